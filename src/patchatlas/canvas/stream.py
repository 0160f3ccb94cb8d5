"""Tiles that stay where they are stored: read in portions, each placed before the next is read.

Axes: n tiles, c channels, *tile axes of a tile, k tiles of a portion.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchatlas.canvas.canvas import Canvas, Fill, Tiles
from patchatlas.canvas.compiled import Backend
from patchatlas.canvas.contract import check_read, check_weights, in_array_order
from patchatlas.canvas.plan import CanvasPlan, plan_canvas
from patchatlas.canvas.taps import Interpolation
from patchatlas.errors import ShapeError

ReadTiles = Callable[[Int[Tensor, " k"]], Tiles]
"""Gives the tiles (k, c, *tile) with these row numbers, which ascend; for tiles in memory `tiles.__getitem__`."""


@runtime_checkable
class Stored(Protocol):
    """An array on disk: a NumPy memory map, a dataset of h5py, an array of zarr."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole array."""

    def __getitem__(self, rows: slice, /) -> Any:
        """Some rows, read now."""


def reader(stored: Stored, *, ndim: int = 2) -> ReadTiles:
    """Read tiles (n, c, *tile), or (n, *tile) of one channel, from an array on disk, one slice for each run of rows.

    Args:
        stored: the array.
        ndim: axes of a tile.

    Raises:
        ShapeError: another number of axes.
    """
    if len(stored.shape) not in (1 + ndim, 2 + ndim):
        raise ShapeError(f"stored tiles of {ndim} axes are (n, *tile) or (n, c, *tile), given {tuple(stored.shape)}")

    def read(rows: Int[Tensor, " k"]) -> Tiles:
        breaks = [0, *((rows.diff() != 1).nonzero()[:, 0] + 1).tolist(), len(rows)]
        parts = []
        for begin, end in itertools.pairwise(breaks):
            first = int(rows[begin])
            part = np.array(stored[first : first + end - begin])
            parts.append(torch.from_numpy(part.astype(part.dtype.newbyteorder("="), copy=False)))
        tiles = parts[0] if len(parts) == 1 else torch.cat(parts)
        return tiles[:, None] if tiles.ndim == 1 + ndim else tiles

    return read


def place_stream(
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
    crop: bool = False,
    memory: int = 64 << 20,
    backend: Backend = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Canvas:
    """All tiles on one canvas in memory, as `place` does it, with only a portion of the tiles in memory at a time.

    Args:
        read: gives tiles, see `ReadTiles` and `reader`. It is asked for each tile once, in ascending order.
        positions: of the first corners of all tiles, object pixels.
        tile_size: pixels of a tile, array order.
        channels: of the tiles.
        dtype: of the sum, see `Canvas`.
        interpolation: how tiles are shifted by parts of a pixel.
        window: weight of each pixel of a tile.
        weights: of each tile.
        plan: where the canvas lies; without it the smallest rectangle that holds all tiles.
        fill: what `Canvas.value` puts where no tile lies.
        crop: drop what lies outside the plan instead of refusing tiles that reach there.
        memory: bytes of tiles that may be read at a time, one tile at least.
        backend: what does the work, see `Canvas`.
        progress: called with the number of tiles placed and of all after each portion.

    Raises:
        ShapeError: counts or axes that do not fit, tiles read that are not as many or of the sides and channels asked
            for, or a tile outside the plan.
        InputError: tiles or positions that `place` would refuse.
        ResourceError: the canvas does not fit into memory.
    """
    size = tuple(tile_size)
    corners = in_array_order(positions, size)
    check_weights(window, weights, count=len(positions), tile_size=size)
    plan = plan_canvas(positions, size, interpolation=interpolation) if plan is None else plan
    if not crop:
        plan.check_holds(corners, size, interpolation)
    canvas = Canvas(plan, channels=channels, dtype=dtype, interpolation=interpolation, fill=fill, backend=backend)
    for some in torch.arange(len(positions)).split(max(1, tiles_in(memory, size, channels, dtype))):
        each = None if weights is None else weights[some]
        tiles = read(some)
        check_read(tiles, count=len(some), channels=channels, tile_size=size)
        canvas.add(tiles, positions[some], window=window, weights=each, crop=crop)
        if progress is not None:
            progress(canvas.tile_count, len(positions))
    return canvas


def tiles_in(memory: int, tile_size: Sequence[int], channels: int, dtype: torch.dtype) -> int:
    """How many tiles fit into so many bytes."""
    return memory // (math.prod(tile_size) * channels * dtype.itemsize)
