"""Clips of tracklets for encoders of video: even times, one square of constant size that goes along.

Axes: b clips, t frames, c channels, h w pixels, n clips asked for, d features.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from patchatlas.arrays import ImageU8
from patchatlas.dense import RESAMPLE_RULE
from patchatlas.encoders.forward import forward
from patchatlas.encoders.protocol import Tokens
from patchatlas.encoders.transformers_adapter import VJepa2Encoder
from patchatlas.errors import UsageError
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.sampling import resample_picture
from patchatlas.reid.boxes import Box, Observation, Tracklet
from patchatlas.reid.embed.crops import require_side
from patchatlas.reid.embed.pooling import TokenPooling, in_rows, pool, pooled_dim
from patchatlas.spec import EncoderSpec
from patchatlas.stamp import Stamp

MARGIN = Fraction(11, 10)
"""Side of the square over the longest side of the boxes in it."""


@dataclass(frozen=True)
class Clip:
    """Which boxes of a tracklet make a clip.

    Attributes:
        observations: in time order; one stands several times where the tracklet is shorter than the clip.
        side: of the square, source pixels.
    """

    observations: tuple[Observation, ...]
    side: int

    @property
    def frame(self) -> int:
        """The frame in the middle, by which the clip is known."""
        return self.observations[len(self.observations) // 2].frame


def clips_of(tracklet: Tracklet, *, frames: int, count: int = 1) -> tuple[Clip, ...]:
    """Parts of a tracklet of equal time, each as a clip of the observations nearest to even times.

    Args:
        frames: of a clip.
        count: how many clips are wanted; a tracklet with fewer than `frames` observations for each gives fewer, at
            least one; so does one with a gap over several parts.

    Raises:
        UsageError: `frames` or `count` is below 1.
    """
    if frames < 1 or count < 1:
        raise UsageError(f"clips have 1 frame or more and there is 1 or more, given {frames} and {count}")
    seen = tracklet.observations
    count = max(1, min(count, len(seen) // frames))
    times = np.array([one.time_s for one in seen])
    edges = np.linspace(times[0], times[-1], count + 1)
    found: list[Clip] = []
    for start, end in pairwise(edges):
        wanted = np.linspace(start, end, frames)
        picked = [seen[k] for k in np.abs(times[None, :] - wanted[:, None]).argmin(axis=1)]
        longest = max(max(x1 - x0, y1 - y0) for x0, y0, x1, y1 in (one.box for one in picked))
        clip = Clip(tuple(picked), max(1, math.ceil(Fraction(longest) * MARGIN)))
        if not found or clip.frame > found[-1].frame:  # across a long gap two parts may have one middle
            found.append(clip)
    return tuple(found)


def square(picture: ImageU8, box: Box, *, side: int, size: int) -> ImageU8:
    """The square of `side` source pixels around the middle of a box, drawn at `size` pixels a side; outside the picture
    its rim is repeated."""
    (x0, y0, x1, y1), half = (Fraction(value) for value in box), Fraction(side, 2)
    start = ((y0 + y1) / 2 - half, (x0 + x1) / 2 - half)
    frame = Frame.whole(picture.shape[:2]).crop(start, (side, side)).resize((size, size))
    levels: ImageU8 = (resample_picture(picture, frame) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return np.ascontiguousarray(levels)


class ClipEmbedder:
    """A forward for each clip of a fixed number of frames.

    Args:
        encoder: V-JEPA 2.
        pooling: `mean` or `gem`, over all tokens of the clip.
        frames: of a clip; whole tubelets.
        size: side of the square that the encoder sees, see `square`.
        batch: pictures a forward, at least one clip.

    Raises:
        UsageError: an odd number of frames, a size that is no multiple of the patch, or a pooling that needs a class
            token.
    """

    def __init__(
        self, encoder: VJepa2Encoder, *, frames: int, size: int, pooling: TokenPooling = "mean", batch: int = 16
    ) -> None:
        if frames < encoder.tubelet or frames % encoder.tubelet:
            raise UsageError(
                f"clips of {frames} frames do not fill tubelets of {encoder.tubelet}; give a multiple of it"
            )
        require_side(size, encoder.spec)
        self._encoder, self._pooling, self.frames, self.size = encoder, pooling, frames, size
        self._dim = pooled_dim(encoder.spec, pooling)
        self._batch = max(1, batch // frames)

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
        return Stamp.of(self.spec, regions="clips", crop=self.size, frames=self.frames, **recipe)

    def embed_clips(self, clips: Sequence[Sequence[ImageU8]]) -> tuple[Float32[Tensor, "n d"], Bool[Tensor, " n"]]:
        """One unit vector a clip, RGB, and which rows are any good; the others are NaN.

        A row is no good if its clip has another number of frames than `frames`, or a picture that is not `size` pixels
        a side, or if the encoder gave nothing finite.

        Raises:
            ResourceError: memory ran out on a single clip.
        """
        right = (self.size, self.size, 3)
        rows = [
            row
            for row, clip in enumerate(clips)
            if len(clip) == self.frames and all(picture.shape == right for picture in clip)
        ]
        found = [torch.zeros(0, self._dim)]
        for first in range(0, len(rows), self._batch):
            part = [np.stack(clips[row]) for row in rows[first : first + self._batch]]
            pixels = torch.from_numpy(np.stack(part)).permute(0, 1, 4, 2, 3).float() / 255  # b t c h w
            tokens = forward(_OfClips(self._encoder), pixels.to(self._encoder.device))
            shares = tokens.patches.new_ones(tokens.patches.shape[:2])
            found.append(pool(tokens, shares, pooling=self._pooling).cpu())
        return in_rows(torch.cat(found), rows, len(clips))


@dataclass(frozen=True)
class _OfClips:
    """V-JEPA 2 as an encoder whose inputs are clips, for `forward`, which halves batches that are too large."""

    encoder: VJepa2Encoder

    @property
    def spec(self) -> EncoderSpec:
        return self.encoder.spec

    @property
    def device(self) -> torch.device:
        return self.encoder.device

    def __call__(self, pixels: Float32[Tensor, "b t c h w"], /) -> Tokens:
        return Tokens(self.encoder.clips(pixels))
