"""A picture with smaller and smaller copies of itself, from which any quadrilateral of it is drawn without aliasing.

Axes: h w pixels, c = 3 channels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from patchatlas.arrays import ImageU8
from patchatlas.geometry.projective import Projective
from patchatlas.geometry.sampling import sample

_LEAST = 32
"""Copies stop where a side would fall below this many pixels."""


@dataclass(frozen=True, eq=False)
class Pyramid:
    """A picture and copies of half, a quarter ... of its sides (Williams 1983, "Pyramidal parametrics").

    Attributes:
        levels: the picture, then ever smaller copies; 8 bits a channel.
    """

    levels: tuple[ImageU8, ...]

    @classmethod
    def of(cls, picture: ImageU8) -> "Pyramid":
        """All copies of a picture: means of 2 x 2 pixels, so that one pixel of copy k is exactly 2^k of the picture's
        wide; an odd last row or column is in no smaller copy."""
        levels = [picture]
        while min(levels[-1].shape[:2]) >= 2 * _LEAST:
            h, w = (n // 2 * 2 for n in levels[-1].shape[:2])
            wide = levels[-1][:h, :w].astype(np.uint16)
            rows = wide[0::2] + wide[1::2]
            sums = rows[:, 0::2] + rows[:, 1::2]
            sums += 1 + ((sums >> 2) & 1)  # halves go to the even level, or copies would get ever brighter
            levels.append((sums >> 2).astype(np.uint8))
        return Pyramid(tuple(levels))

    @property
    def nbytes(self) -> int:
        """Memory that all copies take."""
        return sum(level.nbytes for level in self.levels)

    def draw(self, warp: Projective, size_hw: Sequence[int]) -> Float[Tensor, "c h w"]:
        """The pixels of a crop, 0..1, read linearly from the copy whose pixels are most like the crop's in size.

        That is one copy for the whole crop, by the root of its mean area: neighbouring pixels of the crop lie 0.7 to
        1.4 pixels of the copy apart, more or less where the crop is slanted. Outside the picture its border repeats.

        Args:
            warp: from points of the crop to points of the picture.
            size_hw: rows and columns of the crop.
        """
        rows, columns = size_hw
        points = warp.to_source(_centres(rows, columns))
        k = self._level(warp, rows, columns)
        level, points = self.levels[k], points / 2**k
        # Only what is read becomes floats: what lies around the crop, and the pixel beyond.
        ends = torch.tensor([level.shape[1], level.shape[0]])
        low = torch.minimum((points.amin(0) - 1).floor().long().clamp(min=0), ends - 1)
        high = torch.maximum((points.amax(0) + 1).ceil().long(), low + 1)
        (x, y), (right, bottom) = low.tolist(), high.tolist()
        pixels = torch.from_numpy(level[y:bottom, x:right]).permute(2, 0, 1).to(torch.float32)
        drawn = sample(pixels, points - low)
        return (drawn.T / 255).reshape(3, rows, columns)

    def _level(self, warp: Projective, rows: int, columns: int) -> int:
        corners = torch.tensor([(0, 0), (columns, 0), (columns, rows), (0, rows)], dtype=torch.float64)
        x, y = warp.to_source(corners).T
        area = float((x * y.roll(-1) - y * x.roll(-1)).sum().abs()) / 2  # the shoelace formula
        return int(np.clip(round(math.log2(max(area, 1e-12) / (rows * columns)) / 2), 0, len(self.levels) - 1))


@lru_cache(maxsize=8)
def _centres(rows: int, columns: int) -> Float64[Tensor, "p 2"]:
    """Centres of all pixels, row-major. Shared by all calls, so never to be written to."""
    y, x = torch.meshgrid(
        torch.arange(rows, dtype=torch.float64) + 0.5, torch.arange(columns, dtype=torch.float64) + 0.5, indexing="ij"
    )
    return torch.stack([x.reshape(-1), y.reshape(-1)], dim=1)
