"""D1: positions are one finite (x[, y[, z]]) a tile, as many as there are tiles, and nothing is broadcast."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from patchatlas.canvas.contract import FARTHEST
from patchatlas.stitch.diagnosis.fault import Fault

# Numbers of tiles looked at in one go.
_AT_A_TIME = 2**22


@dataclass(frozen=True)
class Contract:
    """Tiles and positions as given.

    Attributes:
        positions_shape: as given.
        positions_dtype: as given.
        expected_shape: what it must be.
        not_finite: rows of positions that hold a NaN, an infinity or a number that no canvas reaches.
        tiles_not_finite: tiles that do.
    """

    positions_shape: tuple[int, ...]
    positions_dtype: str
    expected_shape: tuple[int, ...]
    not_finite: int
    tiles_not_finite: int

    @property
    def fault(self) -> Fault | None:
        """What is wrong with them."""
        given, wanted = self.positions_shape, self.expected_shape
        if given != wanted:
            return Fault("misshaped", f"positions are {given}, {wanted} is needed: {_guess(given, wanted)}")
        if self.not_finite:
            return Fault(
                "not_finite", f"{self.not_finite} of {given[0]} positions hold a NaN, an infinity or over 2^31 px"
            )
        if self.tiles_not_finite:
            return Fault("not_finite", f"{self.tiles_not_finite} of {given[0]} tiles hold a NaN or an infinity")
        return None


def contract(positions: ndarray | Tensor, tiles: Tensor) -> Contract:
    """Look at positions of any shape, and at tiles (n, c, *tile)."""
    array = positions.detach().cpu().numpy() if isinstance(positions, Tensor) else positions
    shape = tuple(int(side) for side in array.shape)
    numeric = np.issubdtype(array.dtype, np.number)
    bad = ~(np.abs(array) <= FARTHEST) if numeric else np.ones(shape, dtype=bool)  # NaN compares false
    rows = bad.reshape(len(bad), -1).any(axis=1) if bad.ndim and bad.size else np.atleast_1d(bad.any())
    finite = peaks(tiles).isfinite()
    return Contract(
        positions_shape=shape,
        positions_dtype=str(array.dtype),
        expected_shape=(len(tiles), tiles.ndim - 2),
        not_finite=int(rows.sum()),
        tiles_not_finite=int((~finite).sum()),
    )


def peaks(tiles: Tensor) -> Tensor:
    """The largest absolute value of each tile, 0 of empty ones; a few tiles at a time, as they may lie on disk."""
    if not tiles.numel():
        return torch.zeros(len(tiles))
    step = max(1, _AT_A_TIME // tiles[0].numel())
    return torch.cat([some.abs().flatten(1).amax(dim=1) for some in tiles.split(step)])


def _guess(given: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """What such a shape usually is."""
    n, ndim = wanted
    bare = tuple(side for side in given if side != 1)
    if given == (ndim, n):
        return "rows and columns are exchanged, transpose them"
    if len(given) == 2 and given[1] == ndim:
        return f"there are {given[0]} positions for {n} tiles, and positions are never repeated"
    if bare == wanted or (n == 1 and bare == (ndim,)):
        return f"these are the right numbers with axes of length 1, as in PtychoPINN's arrays; reshape to {wanted}"
    if len(given) == 4 and given[1] == 1 and given[2] == ndim:
        return (
            f"this looks like PtychoPINN's grouped offsets (groups, 1, {ndim}, members) with the coordinate before the "
            f"members; move the last axis to the front of the coordinate, then reshape"
        )
    if bare == (n * ndim,):
        return "the coordinates run on in one row; only you can say whether x and y alternate or follow each other"
    return f"one (x{', y' if ndim > 1 else ''}{', z' if ndim > 2 else ''}) a tile is"
