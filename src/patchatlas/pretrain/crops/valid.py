"""The positions at which a crop has what is asked of it, as a list from which each is drawn alike.

The list is made once for each volume and crop size; a draw is then one random number, whatever the volume.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Int64, Integer

from patchatlas.geometry.frame import Size
from patchatlas.pretrain.crops.table import SummedTable


@dataclass(frozen=True, eq=False)
class Valid:
    """Positions to draw from.

    Attributes:
        flat: the allowed ones, as row-major indices into `shape`.
        shape: all that were looked at, along each axis.
        origin: the cell of index 0 along each axis.
        step: cells from one index to the next along each axis.
    """

    flat: Integer[np.ndarray, " p"]
    shape: Size
    origin: Size
    step: Size

    @classmethod
    def of(
        cls, mask: Bool[np.ndarray, "*positions"], *, origin: Sequence[int] = (), step: Sequence[int] = ()
    ) -> "Valid":
        """The positions at which `mask` is true; without origin and step those of the volume itself."""
        ndim = mask.ndim
        flat = np.flatnonzero(mask).astype(np.min_scalar_type(mask.size))  # kept for long: two bytes each, mostly
        return Valid(flat, mask.shape, tuple(origin) or (0,) * ndim, tuple(step) or (1,) * ndim)

    def __len__(self) -> int:
        return len(self.flat)

    def draw(self, rng: np.random.Generator) -> Size:
        """One of the positions, each with the same chance, as its first cell along each axis."""
        index = int(self.flat[rng.integers(len(self.flat))])
        at = []
        for n, origin, step in zip(self.shape[::-1], self.origin[::-1], self.step[::-1], strict=True):
            index, k = divmod(index, n)
            at.append(origin + step * k)
        return tuple(at[::-1])

    def starts(self) -> Int64[np.ndarray, "p ndim"]:
        """All positions, as their first cells."""
        indices = np.stack(np.unravel_index(self.flat, self.shape), axis=1)
        return np.asarray(self.origin) + np.asarray(self.step) * indices


@lru_cache(maxsize=4096)
def least_voxels(share: float, voxels: int) -> int:
    """The smallest whole number of voxels that is at least `share` of `voxels`.

    The share is taken as it is written: 0.07 of 100 voxels is 7, though 0.07 * 100 exceeds 7 in floating point.
    """
    return math.ceil(Fraction(str(share)) * voxels)


def meets(
    table: SummedTable, cells: Sequence[int], share: float, *, step: Sequence[int] = ()
) -> Bool[np.ndarray, "*positions"]:
    """Whether a crop has at least this share of foreground, for every position, or every `step`-th along each axis."""
    return stepped(table.boxes(cells), step) >= least_voxels(share, table.voxels(cells))


def stepped(values: np.ndarray, step: Sequence[int]) -> np.ndarray:
    """Every `step`-th entry along each axis; all without a step."""
    return values[tuple(slice(None, None, n) for n in step)] if step else values
