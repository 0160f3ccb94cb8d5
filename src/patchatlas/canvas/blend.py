"""Tiles at whole positions blended on one canvas: a weighted sum and the sum of weights, both float32.

Axes: d channels, size = ([z,] rows, columns).
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.errors import ShapeError
from patchatlas.geometry.windows import Window


def hann(size: Sequence[int], *, device: torch.device | None = None) -> Float[Tensor, "*size"]:
    """Weights that fall from the middle to the border and are zero nowhere: sin^2(pi (i + 0.5) / n) along each axis.

    It is the Hann window read at cell centres (Harris 1978, eq. 27b, shifted by half a cell).
    """
    weights = torch.ones(tuple(size), dtype=torch.float64)
    for axis, n in enumerate(size):
        along = [1] * len(size)
        along[axis] = n
        centres = torch.arange(n, dtype=torch.float64) + 0.5
        weights = weights * torch.sin(math.pi * centres / n).square().reshape(along)
    return weights.to(device=device, dtype=torch.float32)


class BlendCanvas:
    """Collects overlapping tiles; their order changes nothing but the last bit."""

    def __init__(self, channels: int, size: Sequence[int], *, device: torch.device | None = None) -> None:
        self._sum = torch.zeros(channels, *size, device=device)
        self._weight = torch.zeros(*size, device=device)

    def add(self, tile: Float[Tensor, "d *tile"], window: Window, weight: Float[Tensor, "*tile"]) -> None:
        """Add a tile where `window` says.

        Raises:
            ShapeError: the tile has not the window's size, or the window reaches outside the canvas.
        """
        outside = any(b < 0 or b + n > m for b, n, m in zip(window.start, window.size, self._weight.shape, strict=True))
        if tuple(tile.shape[1:]) != window.size or outside:
            raise ShapeError(
                f"a tile of {tuple(tile.shape[1:])} at {window.start} does not fit its window of {window.size} on a "
                f"canvas of {tuple(self._weight.shape)}"
            )
        self._sum[:, *window.slices] += tile.float() * weight
        self._weight[window.slices] += weight

    def value(self) -> Float[Tensor, "d *size"]:
        """The weighted mean.

        Raises:
            ShapeError: some cell was never covered.
        """
        if not bool((self._weight > 0).all()):
            missing = int((self._weight <= 0).sum())
            raise ShapeError(f"{missing} of {self._weight.numel()} cells of the canvas were never covered by a tile")
        return self._sum / self._weight
