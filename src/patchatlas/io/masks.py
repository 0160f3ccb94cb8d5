"""Read the mask beside a picture, `photo.jpg.mask.png`: which pixels are the subject, and so which patches count.

The rule is that of aevri/mel at commit a15f0a3: the mask is of the upright picture and of its size, and a pixel
brighter than 127 of 255 is inside.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from patchatlas.errors import FormatError, ShapeError
from patchatlas.geometry.grid import PatchGrid
from patchatlas.geometry.sampling import resample
from patchatlas.io.images import MAX_PIXELS, read_picture

LAST_OUTSIDE = 127
"""Brightest level, of 255, that is still outside."""


@dataclass(frozen=True, eq=False)
class Mask:
    """Which pixels of an upright picture are the subject.

    Attributes:
        inside: true for pixels of the subject.
        path: the mask file.
        sha256: hash of its bytes, in hex.
    """

    inside: Bool[Tensor, "h w"]
    path: Path
    sha256: str

    def over(self, grid: PatchGrid) -> Bool[Tensor, "rows cols"]:
        """The patches of the picture that show at least as much subject as anything else; padding repeats the border.

        Raises:
            ShapeError: the grid is of a picture of another size.
        """
        if grid.frame.source_size != tuple(self.inside.shape):
            raise ShapeError(f"{self.path} is a mask of {tuple(self.inside.shape)}, not of {grid.frame.source_size}")
        rows, columns = (slice(first, None) for first in grid.offset)
        drawn = resample(self.inside[None].float(), grid.frame)[:, rows, columns]
        part = F.avg_pool2d(drawn, kernel_size=grid.patch, stride=grid.stride)[0]
        return part[: grid.shape[0], : grid.shape[1]] > 0.5 - 1e-4  # float32 sums of ones miss 1 by some 1e-6


def mask_path(image_path: str | Path) -> Path:
    """Name of the mask of a picture: `photo.jpg.mask.png`."""
    image_path = Path(image_path)
    return image_path.with_name(f"{image_path.name}.mask.png")


def read_mask(image_path: str | Path, *, size_hw: tuple[int, int], max_pixels: int = MAX_PIXELS) -> Mask | None:
    """The mask of a picture, or `None` if it has none.

    Args:
        image_path: the picture, not the mask.
        size_hw: rows and columns of the upright picture.
        max_pixels: rows times columns that are still read.

    Raises:
        FormatError: the mask cannot be read, is coloured, or is of another size than the picture.
    """
    path = mask_path(image_path)
    if not os.path.lexists(path):
        return None
    picture = read_picture(path, max_pixels=max_pixels)
    if picture.size_hw != size_hw:
        rows, columns = size_hw
        turned = (
            " It fits the picture turned by a quarter: turn it upright." if picture.size_hw == size_hw[::-1] else ""
        )
        raise FormatError(
            f"{path} has {picture.size_hw[1]} x {picture.size_hw[0]} pixels, the upright picture has {columns} x "
            f"{rows}; make the mask anew, or remove it to search the whole picture.{turned}"
        )
    levels = torch.from_numpy(picture.pixels)
    grey = levels[..., 0]
    if not bool((levels == grey[..., None]).all()):
        raise FormatError(f"{path} is coloured, so it does not say what is inside; save it in grey, 255 for inside")
    return Mask(grey > LAST_OUTSIDE, path, picture.sha256)
