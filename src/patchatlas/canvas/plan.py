"""The rectangle that a set of tiles needs, on whole object pixels, so that its origin is never lost.

Axes: n tiles, ndim = 1, 2 or 3. Positions are (x[, y[, z]]) of each tile's first corner in object pixels: at a whole
position p, tile pixel 0 is object pixel p. Sizes, origins and corners are in array order ([z,] [y,] x).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.canvas.contract import in_array_order
from patchatlas.canvas.taps import Interpolation
from patchatlas.errors import ShapeError


@dataclass(frozen=True)
class CanvasPlan:
    """Where a canvas lies in the object.

    Args:
        origin: object index of canvas pixel 0, array order; may be negative.
        size: pixels along each axis, array order.

    Raises:
        ShapeError: not one to three axes, axes that differ in number, or an empty side.
    """

    origin: tuple[int, ...]
    size: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.size) <= 3 or len(self.origin) != len(self.size) or min(self.size) < 1:
            raise ShapeError(
                f"a canvas has one to three axes, one origin an axis and no empty side; given origin {self.origin} and "
                f"size {self.size}"
            )

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.size)

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return math.prod(self.size)

    @property
    def end(self) -> tuple[int, ...]:
        """Object index one past the last canvas pixel, array order."""
        return tuple(o + n for o, n in zip(self.origin, self.size, strict=True))

    def check_holds(self, corners: Tensor, tile_size: Sequence[int], interpolation: Interpolation) -> None:
        """Refuse tiles that reach outside.

        Raises:
            ShapeError: names the first of them.
        """
        first, last = covered(corners, tile_size, interpolation)
        outside = (first < first.new_tensor(self.origin)) | (last > last.new_tensor(self.end))
        rows = outside.any(dim=1).nonzero()[:, 0]
        if len(rows):
            row = int(rows[0])
            raise ShapeError(
                f"{len(rows)} of {len(corners)} tiles reach outside the canvas, which spans {self.origin} to "
                f"{self.end}; the first, row {row}, spans {tuple(first[row].long().tolist())} to "
                f"{tuple(last[row].long().tolist())} (array order); plan the canvas from all positions, or crop"
            )


def plan_canvas(
    positions: Float[Tensor, "n ndim"],
    tile_size: Sequence[int],
    *,
    interpolation: Interpolation = "linear",
    margin: int = 0,
) -> CanvasPlan:
    """The smallest rectangle of whole object pixels that holds every tile.

    A tile at p covers the object pixels floor(p) to ceil(p) + N - 1 along an axis, and with `nearest` those from p
    rounded (half up). Cubic and Fourier kernels reach further (`taps.reach`); what they put there is cropped unless
    `margin` makes room for it.

    Args:
        positions: (x[, y[, z]]) of each tile's first corner, object pixels.
        tile_size: pixels of a tile, array order.
        interpolation: how the tiles will be placed.
        margin: pixels to add on every side.

    Raises:
        InputError: no positions, or some that are not finite or absurdly far.
        ShapeError: another number of coordinates than the tile has axes, an empty tile or a negative margin.
    """
    if margin < 0:
        raise ShapeError(f"margin {margin} is negative")
    first, last = covered(in_array_order(positions, tile_size), tile_size, interpolation)
    origin = tuple(int(b) - margin for b in first.amin(dim=0))
    end = tuple(int(e) + margin for e in last.amax(dim=0))
    return CanvasPlan(origin, tuple(e - o for o, e in zip(origin, end, strict=True)))


def covered(
    corners: Float[Tensor, "n ndim"], tile_size: Sequence[int], interpolation: Interpolation
) -> tuple[Float[Tensor, "n ndim"], Float[Tensor, "n ndim"]]:
    """First object pixel and one past the last that each tile covers, as float64."""
    corners = corners.detach()
    size = torch.tensor(tuple(tile_size), dtype=torch.float64, device=corners.device)
    if interpolation == "nearest":
        first = torch.floor(corners + 0.5)
        return first, first + size
    return torch.floor(corners), torch.ceil(corners) + size
