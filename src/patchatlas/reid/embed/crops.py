"""Boxes cut out of frames, and how a crop is laid before an encoder: whole, its shape kept, never cut at the centre.

Axes: n crops, h w pixels.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from patchatlas.arrays import ImageU8
from patchatlas.dense import RESAMPLE_RULE
from patchatlas.encoders.forward import forward
from patchatlas.encoders.protocol import Encoder
from patchatlas.errors import UsageError
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.grid import PatchGrid
from patchatlas.geometry.rounding import ceil_to_multiple, round_half_up
from patchatlas.geometry.sampling import resample_picture
from patchatlas.reid.boxes import Box
from patchatlas.reid.embed.pooling import TokenPooling, in_rows, pool, pooled_dim
from patchatlas.spec import EncoderSpec
from patchatlas.stamp import Stamp

LEAST_SIDE = 2
"""Pixels; smaller crops hold no picture."""


def cut(picture: ImageU8, box: Box) -> ImageU8:
    """The pixels that a box touches, a copy; what lies outside the picture is left away, so the crop may be empty."""
    h, w = picture.shape[:2]
    x0, y0 = (max(0, math.floor(value)) for value in box[:2])
    x1, y1 = min(w, math.ceil(box[2])), min(h, math.ceil(box[3]))
    return np.ascontiguousarray(picture[y0 : max(y0, y1), x0 : max(x0, x1)])


def letterbox(size_hw: tuple[int, int], *, long_side: int, patch: tuple[int, ...]) -> Frame:
    """A whole crop scaled to a long side, shape kept, in the middle of as few patches as hold it."""
    scaled = [max(1, round_half_up(Fraction(n * long_side, max(size_hw)))) for n in size_hw]
    spare = [ceil_to_multiple(n, p) - n for n, p in zip(scaled, patch, strict=True)]
    before = [n // 2 for n in spare]
    return Frame.whole(size_hw).resize(scaled).pad(before, [n - b for n, b in zip(spare, before, strict=True)])


class CropEmbedder:
    """A forward for each crop; those whose inputs are of one size go together.

    Padding repeats the rim of the crop, and patches count by how much of them shows crop. Vectors do not depend on what
    else is in the batch, but for float rounding.

    Args:
        encoder: makes the tokens.
        pooling: what is kept of them.
        size: long side of a crop as the encoder sees it.
        batch: crops a forward.

    Raises:
        UsageError: a size that is no multiple of the patch, or a pooling that the encoder cannot serve.
    """

    def __init__(self, encoder: Encoder, *, pooling: TokenPooling, size: int, batch: int = 16) -> None:
        require_side(size, encoder.spec)
        self._encoder, self._pooling, self._size, self._batch = encoder, pooling, size, batch
        self._dim = pooled_dim(encoder.spec, pooling)

    @property
    def spec(self) -> EncoderSpec:
        """The facts of the encoder."""
        return self._encoder.spec

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._dim

    @property
    def stamp(self) -> Stamp:
        """What the vectors depend on."""
        recipe = {"resample": RESAMPLE_RULE, "fill": "edge", "pooling": self._pooling}
        return Stamp.of(self.spec, regions="crops", crop=self._size, **recipe)

    def embed_crops(self, crops: Sequence[ImageU8]) -> tuple[Float32[Tensor, "n d"], Bool[Tensor, " n"]]:
        """One unit vector a crop, RGB, and which rows are any good; the others are NaN.

        A row is no good if a side of its crop is below `LEAST_SIDE` pixels, or if the encoder gave nothing finite.

        Raises:
            ResourceError: memory ran out on a single crop.
        """
        by_size: dict[tuple[int, ...], list[tuple[int, Frame]]] = {}
        for row, crop in enumerate(crops):
            if min(crop.shape[:2]) >= LEAST_SIDE:
                size_hw = (crop.shape[0], crop.shape[1])
                frame = letterbox(size_hw, long_side=self._size, patch=self.spec.patch)
                by_size.setdefault(frame.size, []).append((row, frame))
        rows, found = [], [torch.zeros(0, self._dim)]
        for group in by_size.values():
            for first in range(0, len(group), self._batch):
                part = group[first : first + self._batch]
                rows += [row for row, _ in part]
                found.append(self._pooled([(crops[row], frame) for row, frame in part]))
        return in_rows(torch.cat(found), rows, len(crops))

    def _pooled(self, part: Sequence[tuple[ImageU8, Frame]]) -> Float32[Tensor, "n d"]:
        pixels = torch.stack([resample_picture(crop, frame) for crop, frame in part])
        shares = torch.stack([PatchGrid.on(frame, self.spec.patch).real_part().flatten() for _, frame in part])
        tokens = forward(self._encoder, pixels.to(self._encoder.device))
        return pool(tokens, shares, pooling=self._pooling).cpu()


def require_side(side: int, spec: EncoderSpec, *, what: str = "crop") -> None:
    """Refuse an input side that is not whole patches.

    Raises:
        UsageError: it is not.
    """
    step = math.lcm(*spec.patch)
    if side < step or side % step:
        near = max(1, round(side / step)) * step
        raise UsageError(f"a {what} size of {side} px is no multiple of the patch {step} of {spec.name}; take {near}")
