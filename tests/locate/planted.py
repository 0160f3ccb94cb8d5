"""Feature maps with landmarks planted in noise, so that a test says what looks like what, and how much."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from patchatlas.dense import encode
from patchatlas.encoders.fake import FakeEncoder
from patchatlas.features import FeatureMap
from patchatlas.locate.reference import Reference
from patchatlas.matching.confidence import Calibration, Term

SIDE = 24
"""Patches along each side."""
PATCH = 8
"""Pixels along each side of a patch."""
DIM = 128

CALIBRATION = Calibration(
    name="planted",
    fitted_on="nothing; a clear lead and a short cycle are found",
    encoders=(),
    base=0.0,
    terms={
        "lead": Term(weight=3.0, centre=1.5),
        "cycle": Term(weight=-3.0, centre=0.0),
        "residual": Term(weight=-1.0, centre=1.0),
    },
    found=0.8,
    absent=0.2,
)
"""Log-odds of an even chance for a lead of 0.9 deviations, a cycle of 0.75 patches and a residual of 2.2 sigmas."""

Cell = tuple[int, int]
"""(column, row)."""


def look_of(name: str) -> torch.Tensor:
    """What a landmark looks like: a unit vector of its own."""
    seed = 10_000 + int.from_bytes(name.encode(), "little")  # no seed of the noise
    vector = torch.randn(DIM, generator=torch.Generator().manual_seed(seed))
    return vector / vector.norm()


def planted(marks: Mapping[Cell, Mapping[str, float]], *, seed: int) -> FeatureMap:
    """A map of noise in which each cell named shows landmarks, each with the weight (a cosine) given."""
    blank = encode(
        torch.zeros(3, SIDE * PATCH, SIDE * PATCH), FakeEncoder(patch=(PATCH, PATCH), registers=0, has_cls=False)
    )
    noise = torch.randn(SIDE, SIDE, DIM, generator=torch.Generator().manual_seed(seed))
    tokens = noise / noise.norm(dim=2, keepdim=True)
    for (column, row), shown in marks.items():
        rest = max(0.0, 1 - sum(weight**2 for weight in shown.values())) ** 0.5
        tokens[row, column] *= rest
        for name, weight in shown.items():
            tokens[row, column] += weight * look_of(name)
    return replace(blank, tokens=tokens.reshape(-1, DIM))


def centre(cell: Cell) -> tuple[float, float]:
    """Of a cell, in pixels."""
    return (cell[0] + 0.5) * PATCH, (cell[1] + 0.5) * PATCH


def reference(name: str, cells: Mapping[str, Cell], *, seed: int) -> Reference:
    """A picture in which each landmark looks like itself."""
    points = torch.tensor([centre(cell) for cell in cells.values()], dtype=torch.float64).reshape(-1, 2)
    return Reference(
        name, planted({cell: {uuid: 1.0} for uuid, cell in cells.items()}, seed=seed), tuple(cells), points
    )
