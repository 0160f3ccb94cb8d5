"""What share of every patch of a crop is foreground and what share lies in the volume, from the cells alone.

A patch that is no whole number of cells, as after a resize, takes parts of cells by volume: inside a cell foreground is
taken as evenly spread. Where patches are whole cells the shares are exact.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float64

from patchatlas.pretrain.crops.table import SummedTable


def token_shares(
    table: SummedTable, start: Sequence[int], cells: Sequence[int], grid: Sequence[int]
) -> tuple[Float64[np.ndarray, "*grid"], Float64[np.ndarray, "*grid"]]:
    """Shares of each patch of a crop, not flipped.

    Args:
        table: of the volume.
        start: first cell of the crop.
        cells: of the crop along each axis.
        grid: patches of the crop along each axis.

    Returns:
        Share of foreground among the voxels of the patch that lie in the volume, 0 where none does; and share of the
        patch that lies in the volume.
    """
    foreground = table.part(start, cells).counts().astype(np.float64)
    inside = np.ones(())
    for axis, (at, n, side, c, patches) in enumerate(zip(start, cells, table.size, table.cell, grid, strict=True)):
        shares, held = _along(min(n * c, side - at * c), c, n, patches)
        foreground = np.moveaxis(np.tensordot(shares, foreground, axes=(1, axis)), 0, axis)
        inside = np.multiply.outer(inside, held)
    volume = float(np.prod([n * c / patches for n, c, patches in zip(cells, table.cell, grid, strict=True)]))
    voxels = inside * volume
    return np.divide(foreground, voxels, out=np.zeros(tuple(grid)), where=voxels > 0), inside


@lru_cache(maxsize=256)
def _along(
    held: int, cell: int, cells: int, patches: int
) -> tuple[Float64[np.ndarray, "patches cells"], Float64[np.ndarray, " patches"]]:
    """The share of every cell that each patch takes, and the share of each patch that lies in the volume.

    Args:
        held: voxels of the crop that lie in the volume, along this axis.
        cell: voxels of a cell.
        cells: of the crop; the ones beyond the volume have no column.
        patches: of the crop.
    """
    first = np.arange(0, held, cell)
    last = np.minimum(first + cell, held)
    side = cells * cell / patches
    begin = np.arange(patches)[:, None] * side
    # Ends of patches that are whole voxels are exact in float64, so whole cells are taken whole.
    taken = np.clip(np.minimum(last, begin + side) - np.maximum(first, begin), 0, None)
    return taken / (last - first), taken.sum(axis=1) / side
