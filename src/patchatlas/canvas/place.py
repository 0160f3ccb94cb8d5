"""Place tiles at sub-pixel positions, and extract them: an exact adjoint pair.

Axes: n tiles, c channels, *tile axes of a tile, ndim of them, *size axes of the canvas, array order. Positions are
(x[, y[, z]]) of each tile's first corner in object pixels: at a whole position p, tile pixel 0 is object pixel p.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.canvas.blocks import read_blocks, take_blocks
from patchatlas.canvas.canvas import CHUNK, Canvas, Fill, Tiles, Values
from patchatlas.canvas.compiled import Backend, read_tiles, use_compiled
from patchatlas.canvas.contract import in_array_order
from patchatlas.canvas.numbers import to_numbers, to_values
from patchatlas.canvas.plan import CanvasPlan, plan_canvas
from patchatlas.canvas.spread import collect
from patchatlas.canvas.taps import Interpolation, find_taps
from patchatlas.errors import InputError, ShapeError


def place(
    tiles: Tiles,
    positions: Float[Tensor, "_n _ndim"],
    *,
    interpolation: Interpolation = "linear",
    window: Float[Tensor, "..."] | None = None,
    weights: Float[Tensor, " _n"] | None = None,
    plan: CanvasPlan | None = None,
    fill: Fill = 0.0,
    crop: bool = False,
    backend: Backend = "auto",
) -> Canvas:
    """All tiles on one canvas.

    Sums are kept in float32 or complex64, and in double precision where the tiles have it. For more tiles than memory
    holds, make a `Canvas` and add them in parts.

    Args:
        tiles: real or complex.
        positions: of their first corners, object pixels; handled in float64.
        interpolation: how tiles are shifted by parts of a pixel. `fourier` is for band-limited objects, with the
            window `hann(size, power=3)`: tiles of 64 pixels and more then come back to 1e-5 wherever there is a value,
            up to 0.3 cycles a pixel. It rings on hard edges, and without a window.
        window: weight of each pixel of a tile.
        weights: of each tile.
        plan: where the canvas lies; without it the smallest rectangle that holds all tiles.
        fill: what `Canvas.value` puts where no tile lies.
        crop: drop what lies outside the plan instead of refusing tiles that reach there.
        backend: what does the work: `numba`, `torch`, or the best of both that is there, see `Canvas`.

    Returns:
        The canvas, with its sum, weight, coverage and value.

    Raises:
        ShapeError: counts or axes that do not fit, or a tile outside the plan.
        InputError: no tiles, positions that are not finite, or negative weights.
        ResourceError: the canvas does not fit into memory.
    """
    if tiles.ndim < 3:
        raise ShapeError(f"tiles are (n, channels, [z,] [y,] x), given {tuple(tiles.shape)}")
    plan = plan_canvas(positions, tiles.shape[2:], interpolation=interpolation) if plan is None else plan
    real = torch.float64 if tiles.dtype in (torch.float64, torch.complex128) else torch.float32
    canvas = Canvas(
        plan,
        channels=tiles.shape[1],
        dtype=real.to_complex() if tiles.is_complex() else real,
        device=tiles.device,
        interpolation=interpolation,
        fill=fill,
        backend=backend,
    )
    canvas.add(tiles, positions, window=window, weights=weights, crop=crop)
    return canvas


def extract(
    values: Values,
    positions: Float[Tensor, "n ndim"],
    tile_size: Sequence[int],
    *,
    plan: CanvasPlan | None = None,
    interpolation: Interpolation = "linear",
    crop: bool = False,
    backend: Backend = "auto",
) -> Tiles:
    """The tiles that a canvas shows at `positions`: the exact adjoint of the sum that `place` makes without weights.

    Args:
        values: of a canvas.
        positions: of the tiles' first corners, object pixels.
        tile_size: pixels of a tile, array order.
        plan: where the canvas lies; without it its pixel 0 is object pixel 0.
        interpolation: how to read between pixels.
        crop: read zeros outside the canvas instead of refusing tiles that reach there. Kernels of cubic and Fourier
            reach beyond their tile, and read zeros there in any case.
        backend: what does the work: `numba`, `torch`, or the best of both that is there, see `Canvas`.

    Returns:
        Tiles in the precision of `values`, float32 at least. Gradients flow to values and positions.

    Raises:
        ShapeError: axes or sizes that do not fit, or a tile outside the canvas.
        InputError: no positions, or some that are not finite.
    """
    size = tuple(tile_size)
    ndim = values.ndim - 1
    plan = CanvasPlan((0,) * ndim, tuple(values.shape[1:])) if plan is None else plan
    if tuple(values.shape[1:]) != plan.size or len(size) != ndim:
        raise ShapeError(
            f"values of {tuple(values.shape)} (channels first), tiles of {size} and a plan of {plan.size} do not fit"
        )
    if not (values.is_floating_point() or values.is_complex()):
        raise InputError(f"values are {values.dtype}; give floats or complex numbers")
    corners = in_array_order(positions, size).to(values.device)
    if not crop:
        plan.check_holds(corners, size, interpolation)
    numbers = to_numbers(values.movedim(0, -1))
    if numbers.dtype != torch.float64:
        numbers = numbers.float()
    taps = find_taps(corners, interpolation, numbers.dtype)
    differentiable = torch.is_grad_enabled() and (values.requires_grad or positions.requires_grad)
    if use_compiled(backend, device=values.device, interpolation=interpolation, differentiable=differentiable):
        tiles = read_tiles(numbers, taps, size, origin=plan.origin)
        return to_values(tiles, is_complex=values.is_complex()).movedim(-1, 1)
    start = taps.start - torch.tensor(plan.origin, device=corners.device)
    block = tuple(n + t - 1 for n, t in zip(size, taps.counts, strict=True))
    if differentiable:
        tiles = collect(take_blocks(numbers, block, start), taps)
        return to_values(tiles, is_complex=values.is_complex()).movedim(-1, 1)
    out = numbers.new_empty(len(corners), *size, numbers.shape[-1])
    step = max(1, CHUNK // (math.prod(block) * numbers.shape[-1] * numbers.itemsize))
    for some in (slice(first, first + step) for first in range(0, len(out), step)):
        out[some] = collect(read_blocks(numbers, block, start[some]), taps.some(some))
    return to_values(out, is_complex=values.is_complex()).movedim(-1, 1)
