"""Whether crops or whole frames go through the encoder: what either costs, and which is cheaper for these boxes.

Costs are counted, not timed, so that the choice is the same on every machine; `benchmarks/reid/regions.py` holds the
count against the clock.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.geometry.grid import PatchGrid
from patchatlas.reid.embed.crops import letterbox
from patchatlas.reid.embed.pooling import TokenPooling
from patchatlas.reid.embed.regions import area_shares, frame_of
from patchatlas.spec import EncoderSpec

LEAST_PATCHES = 16
"""4 x 4: of a box that covers fewer patches of its frame, most tokens see what is around it too."""


@dataclass(frozen=True)
class Choice:
    """What is encoded, and why.

    Attributes:
        regions: `crops` or `frame`.
        reason: one sentence.
        crops_flop: of a forward for each box.
        frames_flop: of a forward for each frame with a box.
    """

    regions: Literal["crops", "frame"]
    reason: str
    crops_flop: float
    frames_flop: float


def choose_regions(
    boxes: Sequence[Float[Tensor, "_n 4"]],
    size_hw: tuple[int, int],
    spec: EncoderSpec,
    *,
    pooling: TokenPooling,
    crop_size: int,
    frame_size: int | None = None,
) -> Choice:
    """One way for a whole video, since vectors of the two are not comparable.

    Args:
        boxes: to be embedded, of each frame that has any, source pixels.
        size_hw: of the frames.
        pooling: one that takes the class token is for crops.
        crop_size: long side of a crop as the encoder sees it.
        frame_size: of a frame; its own if not given.
    """
    frame = frame_of(size_hw, spec, size=frame_size)
    grid = PatchGrid.on(frame, spec.patch)
    asked = [some for some in boxes if len(some)]
    frames_flop = len(asked) * forward_flop(grid.shape, spec)
    every = torch.cat(asked).double() if asked else torch.zeros(0, 4, dtype=torch.float64)
    sides = (every[:, 2:] - every[:, :2]).ceil().clamp(min=1).int().tolist()
    crops_flop = sum((crop_flop((h, w), spec, crop_size=crop_size) for w, h in sides), start=0.0)

    def chosen(regions: Literal["crops", "frame"], reason: str) -> Choice:
        return Choice(regions, reason, crops_flop, frames_flop)

    if pooling in ("cls", "cls+mean"):
        return chosen("crops", f"pooling {pooling} takes the class token, and a frame has one for all its boxes")
    costs = f"{crops_flop / 1e9:.1f} GFLOP for {len(every)} crops, {frames_flop / 1e9:.1f} for {len(asked)} frames"
    if crops_flop <= frames_flop:
        return chosen("crops", f"crops cost no more: {costs}")
    covered = float(area_shares(grid, every).sum(dim=1).median())
    if covered < LEAST_PATCHES:
        return chosen("crops", f"half of the boxes cover {covered:.1f} patches of their frame or fewer")
    return chosen("frame", f"frames cost less: {costs}")


def break_even(
    size_hw: tuple[int, int], spec: EncoderSpec, *, crop_hw: tuple[int, int], frame_size: int | None
) -> float:
    """Crops of so many pixels, as the encoder sees them, that cost as much as one frame."""
    frame = PatchGrid.on(frame_of(size_hw, spec, size=frame_size), spec.patch)
    return forward_flop(frame.shape, spec) / crop_flop(crop_hw, spec, crop_size=max(crop_hw))


def crop_flop(size_hw: tuple[int, int], spec: EncoderSpec, *, crop_size: int) -> float:
    """Operations of a forward over one crop."""
    frame = letterbox(size_hw, long_side=crop_size, patch=spec.patch)
    return forward_flop(PatchGrid.on(frame, spec.patch).shape, spec)


def forward_flop(cells: Sequence[int], spec: EncoderSpec) -> float:
    """Operations of one forward, two to a multiplication with addition.

    For n tokens of d features a block of a transformer with a hidden layer of 4 d costs 24 n d^2 in its linears and
    4 n^2 d in attention (Kaplan et al., arXiv 2001.08361, table 1, per token). A ConvNeXt has no attention.
    """
    tokens = math.prod(cells) + spec.registers + spec.has_cls
    attention = 0 if spec.family == "convnext" else 4 * tokens**2 * spec.dim
    return float((spec.layer + 1) * (24 * tokens * spec.dim**2 + attention))
