"""The compiled CPU path of the canvas: nearest and linear placement by numba's fused rows, several threads if wanted.

It gives what the torch path gives, to float rounding, several times as fast; gradients, accelerators, cubic and Fourier
kernels stay with torch. Rows of the canvas are shared out in bands, one thread each, and every thread adds its part of
the tiles from top to bottom: no two write to one place, and the bits do not depend on the number of threads.

Axes: n tiles, *tile axes of a tile, *size axes of the canvas, m numbers a pixel (channels; real and imaginary part),
last.
"""

import importlib.util
import itertools
import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchatlas.canvas.taps import Interpolation, Taps
from patchatlas.errors import MissingExtraError, UsageError

log = logging.getLogger(__name__)

Backend = Literal["auto", "torch", "numba"]

# Numbers to add below which starting threads costs more than it saves (a thread takes some 50 microseconds).
_WORTH_THREADS = 1 << 20


class Edges(NamedTuple):
    """Where the sum of n even windows changes.

    Attributes:
        rows: (n, k) rows of the canvas from which on it does.
        steps: (n, k) how much each window then counts more or, negative, less.
        start: (n, ndim - 1) first pixel of each window along the other axes.
        taps: of each of these axes (n, t), the weights that soften the window's edges.
        size: pixels of a window along these axes.
    """

    rows: Tensor
    steps: Tensor
    start: Tensor
    taps: tuple[Tensor, ...]
    size: tuple[int, ...]


def use_compiled(backend: Backend, *, device: torch.device, interpolation: Interpolation, differentiable: bool) -> bool:
    """Whether this work takes the compiled path. `auto` takes it where it can, and notes in the log why it does not.

    Args:
        backend: what was asked for.
        device: of the canvas.
        interpolation: of the tiles.
        differentiable: whether gradients are asked for.

    Raises:
        UsageError: numba was asked for and cannot do this, or there is no such backend.
        MissingExtraError: numba was asked for and is not installed.
    """
    if backend not in ("auto", "torch", "numba"):
        raise UsageError(f"backend {backend!r} is not auto, torch or numba")
    if backend == "torch":
        return False
    reason = ""
    if device.type != "cpu":
        reason = f"it works on CPUs, not on {device}"
    elif interpolation not in ("nearest", "linear"):
        reason = f"it shifts by nearest and linear, not by {interpolation}"
    elif differentiable:
        reason = "it knows no gradients, and some are asked for"
    if reason and backend == "numba":
        raise UsageError(f"the numba backend cannot do this: {reason}; take backend auto or torch")
    missing = importlib.util.find_spec("numba") is None
    if missing and backend == "numba":
        raise MissingExtraError("numba", extra="numba", needed_for="the compiled canvas")
    if missing:
        reason = reason or "numba is not installed"
    log.debug("canvas backend: %s", f"torch, not numba: {reason}" if reason else "numba")
    return not reason


def add_tiles(
    canvas: Tensor,
    tiles: Tensor,
    taps: Taps,
    *,
    origin: Sequence[int],
    window: Tensor | None = None,
    weights: Tensor | None = None,
) -> None:
    """Add tiles to a canvas (*size, m) in place; what lies outside is left out.

    Args:
        canvas: float32 or float64, contiguous.
        tiles: (n, *tile, m) of the canvas's type, or (1, *tile, m) for the same one at every place.
        taps: where they lie.
        origin: object index of canvas pixel 0, array order.
        window: (*tile), a factor for each pixel.
        weights: (n), a factor for each tile.
    """
    from patchatlas.canvas.rows import add_rows

    start, share = _places(taps, origin, canvas)
    m, tile = canvas.shape[-1], tuple(tiles.shape[1:-1])
    planes, numbers = _planes(canvas), _planes(tiles, first=1)
    factors = np.empty((0, 0, 0), planes.dtype)
    if window is not None:
        factors = _planes(window.to(canvas)[..., None].expand(*tile, m))
    scale = np.ones(len(start), planes.dtype) if weights is None else weights.detach().to(canvas).numpy()

    def add(first: int, last: int) -> None:
        add_rows(planes, numbers, factors, scale, order, start, share, m, first, last)

    # From top to bottom, so that the part of a large canvas that is at work stays in the cache.
    order = np.lexsort((start[:, 2], start[:, 1], start[:, 0]))
    rows, height = planes.shape[1], numbers.shape[2]
    work = len(start) * math.prod(tile) * m
    middles = np.clip(start[:, 1] + height // 2, 0, rows)
    _run(add, _bands(middles, rows, _threads(work, rows // height)))


def read_tiles(canvas: Tensor, taps: Taps, tile_size: Sequence[int], *, origin: Sequence[int]) -> Tensor:
    """The tiles (n, *tile_size, m) that a canvas (*size, m) shows; zeros outside it."""
    from patchatlas.canvas.rows import read_rows

    canvas = canvas.contiguous()
    start, share = _places(taps, origin, canvas)
    m = canvas.shape[-1]
    tiles = canvas.new_zeros(len(start), *tile_size, m)
    planes, numbers = _planes(canvas), _planes(tiles, first=1)

    def read(first: int, last: int) -> None:
        read_rows(planes, numbers[first:last], start[first:last], share[first:last], m)

    _run(read, _even_parts(len(tiles), _threads(tiles.numel(), len(tiles))))
    return tiles


def sum_even(total: Tensor, edges: Edges, *, least: float) -> None:
    """Write the sum of even windows; what is not greater than `least` becomes 0.

    Args:
        total: (*size), float32 or float64, contiguous.
        edges: of the windows.
        least: see above.
    """
    from patchatlas.canvas.finish import sum_boxes

    # The rows of the first axis are walked through; axes that are missing come after it.
    missing = 3 - total.ndim
    planes = total.numpy().reshape(len(total), *[1] * missing, *total.shape[1:])
    rows, steps = edges.rows.flatten(), edges.steps.flatten()
    order = rows.argsort(stable=True)
    start = np.zeros((len(edges.rows), 2), np.int64)
    start[:, missing:] = edges.start.numpy()
    taps = [np.ones((len(start), 1))] * missing + [weights.numpy() for weights in edges.taps]
    sizes = [1] * missing + list(edges.size)
    edge_row, edge_tile, edge_step = rows[order].numpy(), (order // edges.rows.shape[1]).numpy(), steps[order].numpy()

    def write(first: int, last: int) -> None:
        sum_boxes(planes, edge_row, edge_tile, edge_step, start, *taps, *sizes, least, first, last)

    _run(write, _even_parts(len(total), _threads(total.numel(), len(total))))


def divide(out: Tensor, total: Tensor, weight: Tensor, fill: Tensor) -> None:
    """Write total / weight where the weight is positive, and the fill elsewhere.

    Args:
        out: (*size, m), contiguous; may be `total`.
        total: (*size, m), contiguous.
        weight: (*size).
        fill: (m).
    """
    from patchatlas.canvas.finish import divide_rows

    width, m = weight.shape[-1], total.shape[-1]
    flat = [some.detach().numpy().reshape(-1, width * m) for some in (out, total)]
    weights = weight.detach().contiguous().numpy().reshape(-1, width)
    filling = fill.repeat(width).numpy()

    def write(first: int, last: int) -> None:
        divide_rows(*flat, weights, filling, m, first, last)

    _run(write, _even_parts(len(weights), _threads(total.numel(), len(weights))))


def _places(taps: Taps, origin: Sequence[int], canvas: Tensor) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
    """Starts (n, 3) on the canvas and shares (n, 3, 2), for tiles of one to three axes."""
    n, ndim = taps.start.shape
    start = np.zeros((n, 3), np.int64)
    start[:, 3 - ndim :] = taps.start.numpy() - np.array(tuple(origin))
    share = canvas.new_tensor([1.0, 0.0]).repeat(n, 3, 1)
    for axis, weights in enumerate(taps.weights, start=3 - ndim):
        if weights is not None:
            share[:, axis] = weights
    return start, share.numpy()


def _planes(numbers: Tensor, *, first: int = 0) -> NDArray[np.floating]:
    """Numbers (..., *size, m) of one to three axes as (..., z, y, x m); the first so many axes are kept."""
    kept, size = numbers.shape[:first], numbers.shape[first:-1]
    whole = (*[1] * (3 - len(size)), *size)
    flat: NDArray[np.floating] = numbers.detach().contiguous().numpy().reshape(*kept, *whole[:2], -1)
    return flat


def _threads(work: int, most: int) -> int:
    return max(1, min(torch.get_num_threads(), most, work // _WORTH_THREADS))


def _even_parts(length: int, count: int) -> list[tuple[int, int]]:
    return [(k * length // count, (k + 1) * length // count) for k in range(count)]


def _bands(middles: NDArray[np.int64], rows: int, count: int) -> list[tuple[int, int]]:
    """Bands of rows, each with about as many of the tiles with these middle rows as the others."""
    cuts = np.quantile(middles, np.arange(1, count) / count, method="nearest").tolist()
    edges = [0, *cuts, rows]
    return list(itertools.pairwise(edges))


def _run(work: Callable[[int, int], None], parts: list[tuple[int, int]]) -> None:
    """Do each part in a thread of its own, the only one in this."""
    if len(parts) == 1:
        work(*parts[0])
        return
    with ThreadPoolExecutor(len(parts)) as pool:
        for done in [pool.submit(work, *part) for part in parts]:
            done.result()
