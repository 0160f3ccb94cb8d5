"""Canvases larger than memory: placed band by band of rows, and each band written once, to a zarr group.

Every band has one owner: all tiles that touch it are added before it is written, and chunks of the file never lie in
two bands. A tile that touches two bands is read for both. Needs the `zarr` extra.

The group is described in `store`. Chunks that no tile touches are not stored; they read as the fill and as 0.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.canvas.canvas import Canvas, Fill
from patchatlas.canvas.compiled import Backend, use_compiled
from patchatlas.canvas.contract import check_canvas, check_fill, check_read, check_weights, in_array_order
from patchatlas.canvas.plan import CanvasPlan, covered, plan_canvas
from patchatlas.canvas.store import attributes, complete, new_group, recipe
from patchatlas.canvas.stream import ReadTiles, tiles_in
from patchatlas.canvas.taps import Interpolation, check_interpolation, reach
from patchatlas.errors import ResourceError
from patchatlas.stamp import Stamp

# Longest side of a chunk in pixels: 2 MB of complex64.
_CHUNK_SIDE = 512


def place_to_zarr(
    path: str | Path,
    read: ReadTiles,
    positions: Float[Tensor, "_n _ndim"],
    tile_size: Sequence[int],
    *,
    channels: int = 1,
    dtype: torch.dtype = torch.complex64,
    interpolation: Interpolation = "linear",
    window: Float[Tensor, "..."] | None = None,
    weights: Float[Tensor, " _n"] | None = None,
    plan: CanvasPlan | None = None,
    fill: Fill = 0.0,
    memory: int = 256 << 20,
    backend: Backend = "auto",
    stamp: Stamp | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CanvasPlan:
    """Place tiles on a canvas in a zarr group: what `place` would give, a band of rows at a time.

    The group is written beside `path` under another name, synced, and renamed when it is complete.

    Args:
        path: the group to make.
        read: gives tiles, see `ReadTiles` and `stream.reader`. A band's tiles are asked for in portions, and some tiles
            for two bands.
        positions: of the first corners of all tiles, object pixels.
        tile_size: pixels of a tile, array order.
        channels: of the tiles.
        dtype: of the values: float32, float64, complex64 or complex128.
        interpolation: how tiles are shifted by parts of a pixel.
        window: weight of each pixel of a tile.
        weights: of each tile.
        plan: where the canvas lies; without it the smallest rectangle that holds all tiles.
        fill: value where no tile lies.
        memory: bytes that a band and a portion of tiles may take together.
        backend: what does the work, see `Canvas`.
        stamp: what made the tiles, and whatever else changes the numbers; its facts are stored with those known here,
            and must not contradict them.
        progress: called with the number of bands done and of all after each.

    Returns:
        Where the canvas lies.

    Raises:
        InputError: the path exists or its folder does not, or tiles that `place` would refuse.
        ShapeError: counts or axes that do not fit, tiles read that are not as many or of the sides and channels asked
            for, or a tile outside the plan.
        UsageError: a dtype, fill, interpolation or backend that a canvas does not have.
        StampError: the stamp says something else than what was asked for here.
        ResourceError: `memory` does not hold one row and one tile.
        MissingExtraError: zarr is not installed.
    """
    check_canvas(channels, dtype)
    check_fill(fill, dtype)
    check_interpolation(interpolation)
    use_compiled(backend, device=torch.device("cpu"), interpolation=interpolation, differentiable=False)
    size = tuple(tile_size)
    corners = in_array_order(positions, size, count=len(positions))
    check_weights(window, weights, count=len(positions), tile_size=size)
    plan = plan_canvas(positions, size, interpolation=interpolation) if plan is None else plan
    plan.check_holds(corners, size, interpolation)
    height, portion = _portions(plan, size, channels, dtype, memory, interpolation)
    chunk = (min(height, _CHUNK_SIDE), *(min(n, _CHUNK_SIDE) for n in plan.size[1:]))
    tops = range(0, plan.size[0], height)
    first, last = (rows[:, 0] - plan.origin[0] for rows in covered(corners, size, interpolation))
    beyond = reach(interpolation)
    by_row = corners[:, 0].argsort(stable=True)
    begins, ends = first[by_row] - beyond, last[by_row] + beyond

    facts = recipe(plan, positions, size, window, weights, interpolation=interpolation, dtype=dtype, fill=fill)
    whole = complete(facts, stamp)

    with new_group(path) as group:
        group.attrs.update(attributes(plan, whole))
        like = torch.empty(0, dtype=dtype).numpy().dtype
        value = group.create_array(
            "value", shape=(channels, *plan.size), chunks=(channels, *chunk), dtype=like, fill_value=fill
        )
        coverage = group.create_array(
            "coverage", shape=plan.size, chunks=chunk, dtype=like.type(0).real.dtype, fill_value=0
        )
        has_value = group.create_array("covered", shape=plan.size, chunks=chunk, dtype=bool, fill_value=False)
        for done, top in enumerate(tops, start=1):
            bottom = min(top + height, plan.size[0])
            # Tiles are all of one size, so those that touch the band follow each other.
            inside = slice(int((ends <= top).sum()), int((begins < bottom).sum()))
            numbers = by_row[inside].sort().values
            if len(numbers):
                band = CanvasPlan((plan.origin[0] + top, *plan.origin[1:]), (bottom - top, *plan.size[1:]))
                canvas = Canvas(
                    band, channels=channels, dtype=dtype, interpolation=interpolation, fill=fill, backend=backend
                )
                for some in numbers.split(portion):
                    each = None if weights is None else weights[some]
                    tiles = read(some)
                    check_read(tiles, count=len(some), channels=channels, tile_size=size)
                    canvas.add(tiles, positions[some], window=window, weights=each, crop=True)
                coverage[top:bottom] = canvas.coverage.numpy()
                has_value[top:bottom] = canvas.covered.numpy()
                value[:, top:bottom] = canvas.value(consume=True).numpy()
            if progress is not None:
                progress(done, len(tops))
    return plan


def _portions(
    plan: CanvasPlan,
    tile_size: tuple[int, ...],
    channels: int,
    dtype: torch.dtype,
    memory: int,
    interpolation: Interpolation,
) -> tuple[int, int]:
    """Rows of a band, whole chunks where it holds any, and tiles of a portion."""
    numbers = channels * (2 if dtype.is_complex else 1)
    real = dtype.to_real().itemsize
    # Of each pixel there are the sum, the weight, what is covered, and a copy of the weight and value on their way out.
    pixel = 2 * numbers * real + 3 * real + 1
    if interpolation in ("cubic", "fourier"):
        # The weight without signs and a part of it, the counts (int32) and those of a kind of tiles, and masks.
        pixel += 2 * real + 8 + 2
    if interpolation == "fourier":
        # What tiles count at their best, and a part of it.
        pixel += 2 * real
    row = (plan.pixels // plan.size[0]) * pixel
    height, portion = int(0.75 * memory) // row, tiles_in(memory // 4, tile_size, channels, dtype)
    if height < 1 or portion < 1:
        tile = math.prod(tile_size) * numbers * real
        raise ResourceError(
            f"memory of {memory} bytes does not hold a row of the canvas ({row} bytes, in three quarters of it) and a "
            f"tile ({tile} bytes, in the rest); allow at least {max(4 * row // 3 + 2, 4 * tile)}"
        )
    height = min(height, plan.size[0])
    return (height // _CHUNK_SIDE * _CHUNK_SIDE if height > _CHUNK_SIDE else height), portion
