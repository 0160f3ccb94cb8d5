"""How far tiles are from the canvas that they make together, pixel by pixel and tile by tile: the map of where to look.

A quotient of powers: that of tile less canvas over that of tile less the mean of all tiles, where two tiles or more
lie. 0: all agree; 1 and more: they have nothing in common. (The one number for a whole scan, which does not depend on
how a canvas was made, is `patchatlas.stitch.diagnosis.overlap.overlap_residual`.)

Axes: n tiles, c channels, h w pixels of a tile, rows cols pixels of the canvas.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from patchatlas.canvas.canvas import Canvas, Tiles
from patchatlas.canvas.place import extract

# Tiles compared at a time.
_CHUNK = 64


@dataclass(frozen=True, eq=False)
class Misfit:
    """How far tiles are from their canvas.

    Attributes:
        tiles: of each tile; NaN where it shares no pixel.
        map: of each canvas pixel, channels taken together; NaN where fewer than two tiles lie or there is no value.
    """

    tiles: Float64[Tensor, " n"]
    map: Float[Tensor, "rows cols"]


def misfit(
    tiles: Tiles, positions: Float64[Tensor, "n 2"], canvas: Canvas, *, window: Float[Tensor, "h w"] | None = None
) -> Misfit:
    """Compare tiles with the canvas that they were placed on.

    Args:
        tiles: real or complex.
        positions: of their corners, as they were placed.
        canvas: all tiles together.
        window: the weights with which they were placed.
    """
    size = (tiles.shape[2], tiles.shape[3])
    values = canvas.value()
    shared = ((canvas.counts.to(values.device) >= 2) & canvas.covered).float()[None]
    weight = torch.ones(size, device=values.device) if window is None else window
    mean = tiles.mean(dim=(0, 2, 3), keepdim=True)
    apart, power = (Canvas(canvas.plan, dtype=torch.float32, device=values.device) for _ in range(2))
    sums = torch.zeros(2, len(tiles), dtype=torch.float64)
    for first in range(0, len(tiles), _CHUNK):
        part, at = tiles[first : first + _CHUNK], positions[first : first + _CHUNK]
        back = extract(values, at, size, plan=canvas.plan, interpolation=canvas.interpolation)
        counted = weight * extract(shared, at, size, plan=canvas.plan, interpolation="nearest", crop=True)[:, 0]
        for row, onto, difference in ((0, apart, part - back), (1, power, part - mean)):
            square = counted * difference.abs().square().sum(dim=1)  # (n, h, w)
            sums[row, first : first + _CHUNK] = square.sum(dim=(1, 2), dtype=torch.float64)
            onto.add(square[:, None].float(), at, crop=True)
    whole = _quotient(*(canvas.sum[0] for canvas in (apart, power)))
    return Misfit(
        tiles=_quotient(*sums),
        map=torch.where(shared[0] > 0, whole, math.nan),
    )


def _quotient(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, NaN where whole is nothing."""
    return torch.where(whole > 0, part / torch.where(whole > 0, whole, 1), math.nan)
