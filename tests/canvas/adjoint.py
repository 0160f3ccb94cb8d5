"""The dot test of an adjoint pair, for every path."""

import torch

from patchatlas.canvas.compiled import Backend
from patchatlas.canvas.place import extract, place
from patchatlas.canvas.plan import CanvasPlan
from patchatlas.canvas.taps import Interpolation
from tests.canvas.scans import generator


def assert_adjoint(interpolation: Interpolation, dtype: torch.dtype, bound: float, *, backend: Backend) -> None:
    """<place x, y> = <x, extract y> in 200 cases, tiles of 1 to 3 axes that hang over all edges of the canvas."""
    crossed = torch.zeros(2, dtype=torch.int64)
    for case in range(200):
        draw = generator(case)
        ndim = 1 + case % 3
        size = tuple(torch.randint(1, 8, (ndim,), generator=draw).tolist())
        plan = CanvasPlan(
            tuple(torch.randint(-5, 5, (ndim,), generator=draw).tolist()),
            tuple(torch.randint(2, 12, (ndim,), generator=draw).tolist()),
        )
        low = torch.tensor(plan.origin[::-1]) - torch.tensor(size[::-1])
        high = torch.tensor(plan.end[::-1])
        positions = low + torch.rand(6, ndim, dtype=torch.float64, generator=draw) * (high - low)
        if case % 5 == 0:
            positions = positions.round()
        crossed += torch.stack([(positions < low + torch.tensor(size[::-1])).sum(), (positions > low).sum()])
        tiles = torch.randn(6, 2, *size, dtype=dtype, generator=draw)
        values = torch.randn(2, *plan.size, dtype=dtype, generator=draw)
        options = {"interpolation": interpolation, "plan": plan, "crop": True, "backend": backend}
        placed = place(tiles, positions, **options).sum
        read = extract(values, positions, size, **options)
        assert read.shape == tiles.shape
        assert placed.shape == values.shape
        gap = abs(dot(placed, values) - dot(tiles, read)) / (norm(placed) * norm(values) + 1e-30)
        assert gap < bound or norm(placed) < 1e-6
    assert (crossed > 200).all()


def dot(first: torch.Tensor, second: torch.Tensor) -> complex:
    """In complex128."""
    return complex(torch.vdot(first.flatten().to(torch.complex128), second.flatten().to(torch.complex128)))


def norm(tensor: torch.Tensor) -> float:
    """In complex128."""
    return float(torch.linalg.vector_norm(tensor.to(torch.complex128)))
