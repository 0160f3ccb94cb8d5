"""How much foreground any box of cells holds: a summed-area table of whole numbers, so nothing is ever rounded.

A volume is tiled by cells from its first voxel on; the last ones may reach beyond it. A crop is a box of whole cells,
and its position is its first cell. Crow, "Summed-area tables for texture mapping", SIGGRAPH 1984, here with any number
of axes. Sizes and positions run in array order.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Integer

from patchatlas.errors import ShapeError
from patchatlas.geometry.frame import Size


@dataclass(frozen=True, eq=False)
class SummedTable:
    """The foreground voxels of one volume, or of one box of it, summed from its first cell to any other.

    Attributes:
        sums: entry i is the count of all cells before i along every axis, but for a constant; one more than cells.
        cell: voxels in a cell along each axis.
        size: voxels of the volume or box along each axis.
    """

    sums: Integer[np.ndarray, "*corners"]
    cell: Size
    size: Size

    @classmethod
    def of(cls, counts: Integer[np.ndarray, "*cells"], cell: Sequence[int], size: Sequence[int]) -> "SummedTable":
        """The table of a volume.

        Args:
            counts: foreground voxels of each cell; cells that reach beyond the volume count what lies inside.
            cell: voxels in a cell along each axis.
            size: voxels of the volume along each axis.

        Raises:
            ShapeError: there are not as many cells as the volume needs.
        """
        needed = tuple(-(-side // c) for side, c in zip(size, cell, strict=True))
        if counts.shape != needed:
            raise ShapeError(
                f"a volume of {tuple(size)} has {needed} cells of {tuple(cell)}, given counts of {counts.shape}; "
                "index it again"
            )
        small = math.prod(size) < 2**31  # then no sum or difference of sums leaves 32 bits
        sums = np.zeros([n + 1 for n in counts.shape], np.int32 if small else np.int64)
        inner = sums[(slice(1, None),) * counts.ndim]
        inner[...] = counts
        for axis in range(counts.ndim):
            np.cumsum(inner, axis=axis, out=inner)
        return SummedTable(sums, tuple(cell), tuple(size))

    @cached_property
    def cells(self) -> Size:
        """Cells along each axis, those that reach beyond the volume too."""
        return tuple(n - 1 for n in self.sums.shape)

    def positions(self, cells: Sequence[int]) -> Size:
        """Positions of a crop of so many cells along each axis.

        Crops lie inside the volume; along an axis that is too short for one there is a single position, the first, and
        the rest of the crop is padding. What is left of a side that is no multiple of the cell is in no crop then.
        """
        return tuple(max(1, side // c - n + 1) for side, c, n in zip(self.size, self.cell, cells, strict=True))

    def voxels(self, cells: Sequence[int]) -> int:
        """Voxels of a crop that lie in the volume, the same at all positions."""
        return math.prod(min(n * c, side) for n, c, side in zip(cells, self.cell, self.size, strict=True))

    def boxes(self, cells: Sequence[int]) -> Integer[np.ndarray, "*positions"]:
        """Foreground voxels of a crop at every position."""
        found = self.sums
        for axis, (n, count) in enumerate(zip(cells, self.positions(cells), strict=True)):
            reach = min(n, self.cells[axis])
            before = (slice(None),) * axis
            found = found[*before, reach : reach + count] - found[*before, :count]
        return found

    def box(self, start: Sequence[int], cells: Sequence[int]) -> int:
        """Foreground voxels of one crop."""
        ends = tuple(min(at + n, whole) for at, n, whole in zip(start, cells, self.cells, strict=True))
        found = self.sums[tuple(slice(at, end + 1, end - at) for at, end in zip(start, ends, strict=True))]
        for _ in range(self.sums.ndim):
            found = found[1] - found[0]
        return int(found)

    def ratio(self, start: Sequence[int], cells: Sequence[int]) -> float:
        """Share of foreground among the voxels of one crop that lie in the volume."""
        return self.box(start, cells) / self.voxels(cells)

    def part(self, start: Sequence[int], cells: Sequence[int]) -> "SummedTable":
        """The table of one box, whose positions count from its own first cell; what reaches beyond is left out."""
        ends = tuple(min(at + n, whole) for at, n, whole in zip(start, cells, self.cells, strict=True))
        sums = self.sums[tuple(slice(at, end + 1) for at, end in zip(start, ends, strict=True))]
        size = tuple(
            min(end * c, side) - at * c for at, end, c, side in zip(start, ends, self.cell, self.size, strict=True)
        )
        return SummedTable(sums, self.cell, size)

    def counts(self) -> Integer[np.ndarray, "*cells"]:
        """Foreground voxels of every cell."""
        found = self.sums
        for axis in range(found.ndim):
            found = np.diff(found, axis=axis)
        return found
