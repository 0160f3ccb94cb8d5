"""How alike each place of a picture is to a landmark: red on the photo, on a scale that does not depend on the photo.

Axes: h w pixels of the drawing, rows cols patch grid, p points.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from patchatlas.arrays import ImageU8
from patchatlas.colour import LUMA
from patchatlas.errors import UsageError
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.grid import PatchGrid
from patchatlas.geometry.rounding import round_half_up
from patchatlas.geometry.sampling import resample, sample

RED = (230, 25, 25)

STRENGTH = 0.7
"""Part of the red where the cosine is at the top of the scale; the rest is photo."""

LONGEST, SHORTEST = 1600, 720
"""A photo is drawn at its own size while its long side lies between these; else it is scaled to the nearer one."""


@dataclass(frozen=True)
class Scale:
    """Which cosine gets how much red. The same for every picture that is to be compared.

    Attributes:
        low: cosine up to which nothing is drawn.
        high: cosine from which the red is at full strength.

    Raises:
        UsageError: not -1 <= low < high <= 1.
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not -1 <= self.low < self.high <= 1:
            raise UsageError(f"a scale from {self.low} to {self.high} is none; cosines need -1 <= low < high <= 1")

    def strength(self, cosine: Float[Tensor, "*size"]) -> Float[Tensor, "*size"]:
        """Part of red in the drawing: 0 up to `low`, `STRENGTH` from `high` on, a straight line between them."""
        return STRENGTH * ((cosine - self.low) / (self.high - self.low)).clamp(0, 1)


def view_of(size_hw: tuple[int, int]) -> Frame:
    """The frame that a photo is drawn in: all of it, with a long side of `SHORTEST` to `LONGEST` pixels."""
    long = max(size_hw)
    factor = Fraction(min(max(long, SHORTEST), LONGEST), long)
    return Frame.whole(size_hw).resize([max(1, round_half_up(n * factor)) for n in size_hw])


def draw_photo(photo: ImageU8, frame: Frame) -> ImageU8:
    """A photo drawn in a frame of it; what lies outside the photo is dark grey."""
    pixels = torch.from_numpy(photo).permute(2, 0, 1).float()
    return _to_u8(resample(pixels, frame, fill=(40.0, 40.0, 40.0)).permute(1, 2, 0))


def overlay(
    photo: ImageU8,
    cosines: Float[Tensor, "rows cols"],
    grid: PatchGrid,
    *,
    view: Frame,
    scale: Scale,
    scored: Bool[Tensor, "rows cols"] | None = None,
) -> ImageU8:
    """The photo in grey, so that a red thing is not taken for a high cosine, with red where it is alike.

    The cosines stand at the patch centres and are interpolated linearly between them.

    Args:
        photo: the whole picture, in its own pixels.
        cosines: one a patch.
        grid: where the patches lie in the photo.
        view: the frame to draw, see `view_of`.
        scale: which cosine gets how much red.
        scored: patches that count. Nothing is drawn on the others, and they do not tint their neighbours.

    Returns:
        A picture of `view.size`.
    """
    grey = draw_photo(photo, view) @ np.array(LUMA)
    scored = torch.ones_like(cosines, dtype=torch.bool) if scored is None else scored
    cells = grid.cells_of(PatchGrid.on(view, (1, 1)).centres())
    counted = scored.float()
    known, weight = sample(torch.stack([cosines.float() * counted, counted]), cells).T
    column, row = (cells[:, axis].floor().long().clamp(0, n - 1) for axis, n in enumerate(reversed(grid.shape)))
    red = scale.strength(known / weight.clamp(min=1e-6)) * scored[row, column]
    red = red.reshape(*view.size, 1)
    return _to_u8((1 - red) * torch.from_numpy(grey)[..., None] + red * torch.tensor(RED, dtype=torch.float64))


def _to_u8(pixels: Tensor) -> ImageU8:
    array: ImageU8 = pixels.round().clamp(0, 255).to(torch.uint8).numpy()
    return np.ascontiguousarray(array)
