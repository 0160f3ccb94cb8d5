"""The frame of PtychoPINN's `reassemble_position`, on our canvas: for numbers that must equal those of that program.

Its rule, read from hoidn/PtychoPINN at commit 712c23f and held to its outputs in tests/golden/stitch: the central M x
M of every tile counts; positions lose their mean, in float32; the canvas is a square of M + 2 P, where P is the
largest distance from the mean along either axis, rounded up to an even number; tiles are moved bilinearly and summed,
and the sum is divided by 1e-9 plus the same sum of ones. Uncovered pixels are exactly 0. Subtracting a mean with a
fraction resamples even where all positions are whole, so this is for comparisons; `canvas.place` is what to use
otherwise.

Axes: n tiles, h w of a tile, s the side of the square canvas. Positions are (x, y) of tile pixel (h // 2, w // 2), the
centre in PtychoPINN's sense, in object pixels.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from patchatlas.canvas.canvas import Canvas
from patchatlas.canvas.place import place
from patchatlas.canvas.plan import CanvasPlan
from patchatlas.errors import InputError, ShapeError

EPSILON = 1e-9
"""What the reference adds to the sum of ones before it divides."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PtychoPinnCanvas:
    """What `reassemble_position` gives, and what it forgets.

    Attributes:
        value: the stitched object; exactly 0 where no tile lies.
        ones: the sum of ones, moved as the tiles were: the coverage.
        mean_xy: the mean position that was taken off, float32 as the reference computes it.
        pad: P of the rule, even.
        mirrored: content moved against its positions, as the reference does with USE_XLA_TRANSLATE=0.
    """

    value: Complex[Tensor, "s s"]
    ones: Float[Tensor, "s s"]
    mean_xy: tuple[float, float]
    pad: int
    mirrored: bool

    @property
    def origin_xy(self) -> tuple[float, float]:
        """Object coordinate of canvas pixel (0, 0); in general between pixels. Of the mirrored object where `mirrored`.

        Tile pixel N // 2 lies on the position, and canvas pixel s / 2 on the mean of the positions.
        """
        half = len(self.value) // 2
        return self.mean_xy[0] - half, self.mean_xy[1] - half


def reassemble(
    tiles: Complex[Tensor, "n h w"], positions_xy: Float[Tensor, "_n 2"], *, crop: int = 20, xla: bool = True
) -> PtychoPinnCanvas:
    """Stitch as PtychoPINN's TensorFlow `reassemble_position` does.

    Args:
        tiles: square, complex; summed in complex64 as there.
        positions_xy: of tile pixel N // 2, in object pixels.
        crop: M, how much of the middle of a tile counts. PtychoPINN's scripts pass 20.
        xla: the reference moves content by + (position - mean) on its default path and by the opposite with
            USE_XLA_TRANSLATE=0. That other path also leaves the last row and column of a canvas without padding empty.

    Returns:
        The canvas; agrees with the reference to 2e-5, the rounding of float32.

    Raises:
        ShapeError: tiles that are not square, counts that differ, or a crop that is odd (the reference fails there) or
            larger than a tile.
        InputError: no tiles, or positions that are not finite.
    """
    n, side, width = tiles.shape
    if side != width:
        raise ShapeError(f"tiles of {side} x {width} are not square; the reference knows only square ones")
    if len(positions_xy) != n:
        raise ShapeError(f"{n} tiles need as many positions, given {len(positions_xy)}; none are repeated")
    if not 2 <= crop <= side or crop % 2:
        raise ShapeError(f"crop {crop} must be even and from 2 to the tile's side {side}")
    if not n:
        raise InputError("there are no tiles to stitch")
    if not bool(torch.isfinite(positions_xy).all()):
        raise InputError("some positions are not finite; leave those tiles out")

    positions = positions_xy.to(torch.float32)
    mean = _mean_in_order(positions)
    moves = positions - mean if xla else mean - positions
    pad = 2 * math.ceil(math.ceil(float(moves.abs().max())) / 2)
    start = side // 2 - crop // 2
    middle = tiles[:, None, start : start + crop, start : start + crop].to(torch.complex64)
    plan = CanvasPlan((0, 0), (crop + 2 * pad, crop + 2 * pad))
    # A window of ones is summed as the tiles are, so that rounding cancels where a tile barely touches a pixel.
    canvas = place(middle, moves.double() + pad, plan=plan, window=moves.new_ones(crop, crop))
    value, ones = _quotient(canvas)
    if not xla and pad == 0:
        for emptied in (value, ones):
            emptied[-1, :] = 0
            emptied[:, -1] = 0
    return PtychoPinnCanvas(value=value, ones=ones, mean_xy=(float(mean[0]), float(mean[1])), pad=pad, mirrored=not xla)


def _mean_in_order(positions: Tensor) -> Tensor:
    """The float32 mean with the rounding of a sum that runs from the first row to the last.

    That is how TensorFlow 2.15 adds on the CPU, to the last bit in every golden case. Far from the origin it matters:
    any other order is up to 1e-4 px away there, which moves canvas pixels by 5e-4.
    """
    total = np.add.accumulate(positions.cpu().numpy(), axis=0)[-1]
    return torch.from_numpy(total / np.float32(len(positions))).to(positions.device)


def _quotient(canvas: Canvas) -> tuple[Tensor, Tensor]:
    return canvas.sum[0] / (EPSILON + canvas.weight), canvas.weight.clone()
