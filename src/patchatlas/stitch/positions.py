"""Stored positions of a scan to the tile corners that the canvas wants, and back: the one place where they are changed.

Axes: n positions, columns x, y. A corner is where pixel (0, 0) of a tile begins in the object, float64 pixels.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from numpy import ndarray
from torch import Tensor

from patchatlas.io.scans.scan import Scan


def corners(scan: Scan, tile_hw: Sequence[int]) -> Float64[Tensor, "n 2"]:
    """Where each tile begins in the object.

    x_px = sign * stored / pixel size + origin, less the way from the corner to the anchor: nothing for `corner`,
    N // 2 for `centre` (element N // 2 lies on the position), N / 2 for `middle`.

    Args:
        scan: positions and what they mean.
        tile_hw: rows and columns of a tile.
    """
    factor, shift = _conversion(scan, tile_hw)
    return _in_xy(scan, torch.from_numpy(scan.positions)) * factor + shift


def stored(scan: Scan, at: Float64[Tensor, "n 2"], tile_hw: Sequence[int]) -> Float64[ndarray, "n 2"]:
    """The inverse of `corners`: what the scan's file would hold for these corners."""
    factor, shift = _conversion(scan, tile_hw)
    raw: ndarray = _in_xy(scan, (at - shift) / factor).numpy()
    return raw


def _conversion(scan: Scan, tile_hw: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Factor and shift, (x, y), that make corners of stored positions in the order (x, y)."""
    signs = {"plus": (1, 1), "minus": (-1, -1), "minus-x": (-1, 1), "minus-y": (1, -1)}[scan.sign]
    pixel = (1.0, 1.0)
    if scan.unit == "m":
        assert scan.pixel_size is not None  # metres without it are refused when the scan is read
        pixel = scan.pixel_size
    h, w = tile_hw
    way = {"corner": (0, 0), "centre": (w // 2, h // 2), "middle": (w / 2, h / 2)}[scan.anchor]
    factor = [s / p for s, p in zip(signs, pixel, strict=True)]
    shift = [o - a for o, a in zip(scan.origin_px, way, strict=True)]
    return torch.tensor(factor, dtype=torch.float64), torch.tensor(shift, dtype=torch.float64)


def _in_xy(scan: Scan, positions: Tensor) -> Tensor:
    """Columns in the order (x, y); its own inverse."""
    return positions.flip(1) if scan.order == "yx" else positions
