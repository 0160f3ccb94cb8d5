"""Why stored tokens are not those of the encoder: known mistakes are made on purpose, and the one that fits is named.

Axes: n patches (row-major over rows x columns), r registers, d features, h w pixels of the encoder's input.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from patchatlas.datasets.verify.faults import Fault
from patchatlas.encoders.protocol import Encoder, Tokens
from patchatlas.encoders.vit_encoder import VitEncoder
from patchatlas.geometry.buckets import Hw, cover
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.rounding import round_half_up
from patchatlas.geometry.sampling import resample, resample_picture
from patchatlas.io.images import Picture

NEAR = 0.5
"""A mistake made on purpose may miss what is stored by so much of the spread of its tokens, and of what the right way
misses it by: who made it first used another resize than we do."""

CROPS = tuple(Fraction(n, 40) for n in (38, 36, 35, 34, 32, 30, 28, 24, 20))
"""Parts of the sides that a centre crop is tried with; 35/40 is 224 of 256, the usual one."""

LONGEST_SHIFT = 8
"""Places of the token list that a shift is tried with, or more if there are more registers."""

SQUARE = 224
"""Side of the square that image processors make by default."""


@dataclass(frozen=True)
class Explanation:
    """A known mistake that gives what is stored.

    Attributes:
        fault: its name.
        sentence: in words.
        distance: how far from what is stored, relative to the spread of the tokens.
    """

    fault: Fault
    sentence: str
    distance: float


@dataclass(frozen=True)
class Case:
    """One picture, as it should have been encoded.

    Attributes:
        pixels: of the encoder's input, in 0..1.
        tokens: what the encoder gives for them, a batch of one.
        grid: rows and columns.
        picture: the file, upright.
        bucket: (h, w).
    """

    pixels: Float[Tensor, "3 h w"]
    tokens: Tokens
    grid: Hw
    picture: Picture
    bucket: Hw


def explain_patches(
    stored: Float[Tensor, "n d"], case: Case, encoder: Encoder, *, allowed: float
) -> Explanation | None:
    """The known mistake that gives the stored patches; `None` if none does.

    Args:
        stored: patches from the disk, which are not those of the encoder.
        case: the picture.
        encoder: makes the mistakes.
        allowed: relative difference that storage and arithmetic explain.
    """
    right = distance(stored, case.tokens.patches[0].float())
    best: Explanation | None = None
    for fault, sentence, tokens in _candidates(case, encoder):
        rows = min(len(stored), len(tokens))
        if tokens.shape != stored.shape and fault != "token_shift":
            continue
        given, kept = (tokens, stored) if rows == len(stored) else _overlap(tokens, stored)
        found = Explanation(fault, sentence, distance(kept, given))
        if best is None or found.distance < best.distance:
            best = found
        if found.distance <= 3 * allowed:
            return found
    rescaled = _rescaled(stored, case.tokens.patches[0].float(), allowed)
    if rescaled is not None:
        return rescaled
    return best if best is not None and best.distance <= min(NEAR, NEAR * right) else None


def explain_cls(stored: Float[Tensor, " d"], case: Case, encoder: Encoder) -> str:
    """Where a CLS token that is not of the patches' forward comes from, as far as it can be told."""
    side = [round_half_up(Fraction(SQUARE, patch)) * patch for patch in encoder.spec.patch]
    whole = _redrawn(case.picture, Frame.whole(case.picture.size_hw).resize(side))
    squashed = encoder(whole[None]).cls
    if squashed is not None and relative(stored, squashed[0].float()) < 0.5 * relative(stored, _cls(case)):
        return f"it is that of the whole picture squashed to {side[1]}x{side[0]}"
    return "it is of no input that is known"


def relative(stored: Float[Tensor, "..."], given: Float[Tensor, "..."]) -> float:
    """Length of the difference over that of the given numbers."""
    return float((stored - given).norm() / given.norm())


def distance(stored: Float[Tensor, "n d"], given: Float[Tensor, "n d"]) -> float:
    """Length of the difference over the spread of the given tokens around their mean."""
    spread = (given - given.mean(dim=0)).norm().clamp(min=torch.finfo(torch.float32).tiny)
    return float((stored - given).norm() / spread)


def _candidates(case: Case, encoder: Encoder) -> Iterator[tuple[Fault, str, Tensor]]:
    """Mistakes and what they give: first those of the token list, which cost nothing, then those of the input."""
    yield from _layouts(case)
    if isinstance(encoder, VitEncoder):
        other = "none" if encoder.spec.norm == "final" else "final"
        twin = VitEncoder(encoder.network, replace(encoder.spec, norm=other))  # type: ignore[arg-type]  # one of the two
        norm = "before" if other == "none" else "after"
        yield (
            "other_norm",
            f"these are the tokens {norm} the last LayerNorm",
            twin(case.pixels[None]).patches[0].float(),
        )
    for fault, sentence, make in _inputs(case, encoder):
        yield fault, sentence, encoder(make()[None]).patches[0].float()


def _layouts(case: Case) -> Iterator[tuple[Fault, str, Tensor]]:
    patches = case.tokens.patches[0].float()
    rows, columns = case.grid
    registers = 0 if case.tokens.registers is None else case.tokens.registers.shape[1]
    before = [
        part.float().reshape(-1, patches.shape[1])
        for part in (case.tokens.cls, case.tokens.registers)
        if part is not None
    ]
    everything = torch.cat([*before, patches])
    prefix = len(everything) - len(patches)
    for begin in range(prefix):
        shift = prefix - begin
        fault: Fault = "register_shift" if shift == registers else "token_shift"
        named = " the registers are stored as patches," * (shift == registers)
        sentence = f"patches stand {shift} places too late,{named} and the last {shift} are lost"
        yield fault, sentence, everything[begin : begin + len(patches)]
    for shift in range(1, min(len(patches) - 1, max(LONGEST_SHIFT, registers))):
        yield "token_shift", f"patches stand {shift} places too early", patches[shift:]
    grid = patches.reshape(rows, columns, -1)
    yield "transposed", "tokens run column by column", grid.transpose(0, 1).reshape(patches.shape)
    for axes, way in (((1,), "left-right"), ((0,), "up-down"), ((0, 1), "up-down and left-right")):
        yield "mirrored", f"the grid is mirrored {way}", grid.flip(axes).reshape(patches.shape)


def _inputs(case: Case, encoder: Encoder) -> Iterator[tuple[Fault, str, Callable[[], Tensor]]]:
    pixels = case.pixels
    size = (pixels.shape[1], pixels.shape[2])
    whole = Frame.whole(size)

    def redraw(frame: Frame) -> Callable[[], Tensor]:
        return lambda: resample(pixels, frame)

    for part in CROPS:
        kept = [max(1, round_half_up(n * part)) for n in size]
        start = [Fraction(n - k, 2) for n, k in zip(size, kept, strict=True)]
        sentence = f"only the middle {kept[1]}x{kept[0]} of {size[1]}x{size[0]} pixels was seen, enlarged"
        yield "centre_crop", sentence, redraw(whole.crop(start, kept).resize(size))
    short = min(size)
    if short < max(size):
        start = [Fraction(n - short, 2) for n in size]
        yield (
            "centre_crop",
            "only the middle square was seen, stretched",
            redraw(whole.crop(start, [short] * 2).resize(size)),
        )
    for rows in (-1, 0, 1):
        for columns in (-1, 0, 1):
            by = (Fraction(rows * encoder.spec.patch[0], 2), Fraction(columns * encoder.spec.patch[1], 2))
            if rows or columns:
                sentence = f"the input was moved by ({-by[0]}, {-by[1]}) pixels along (row, column), half a patch"
                yield "half_patch_shift", sentence, redraw(whole.crop(by, size))
    upright = Frame.whole(case.picture.size_hw)
    yield (
        "squashed",
        "the whole picture was stretched to the input, its aspect not kept",
        lambda: _redrawn(case.picture, upright.resize(size)),
    )
    if case.picture.orientation != 1:
        sentence = f"the picture was not turned as its EXIF orientation {case.picture.orientation} says"
        yield "sideways", sentence, lambda: _sideways(case, size)
    yield "swapped_channels", "red and blue are swapped", lambda: pixels.flip(0)
    mean, std = (torch.tensor(values)[:, None, None] for values in (encoder.spec.mean, encoder.spec.std))
    yield "no_normalisation", "mean and std were not applied to pixels in 0..1", lambda: pixels * std + mean
    yield "no_normalisation", "pixels ran to 255 and were not normalised", lambda: 255 * pixels * std + mean


def _redrawn(picture: Picture, frame: Frame) -> Tensor:
    """A frame of the upright picture at the size that was read."""
    return resample_picture(picture.pixels, frame)


def _sideways(case: Case, size: Hw) -> Tensor:
    """The raster as it lies in the file, brought to the bucket as if it stood upright."""
    picture = case.picture
    stored = picture.frame.source_size
    raster = (stored[0], stored[1])
    frame = cover(raster, case.bucket).resize(size)
    return resample_picture(picture.pixels, frame.then(picture.frame.inverse()))


def _rescaled(stored: Tensor, given: Tensor, allowed: float) -> Explanation | None:
    """Tokens that point the same way but have other lengths."""
    cosine = F.cosine_similarity(stored, given, dim=1)
    if float(cosine.min()) < 1 - max(1e-5, allowed**2):  # 1 - cos of a difference e across is e**2 / 2
        return None
    lengths = stored.norm(dim=1)
    unit = bool(((lengths - 1).abs() < max(allowed, 1e-4)).all())
    ratio = float((lengths / given.norm(dim=1)).quantile(0.5))
    sentence = "every token was scaled to length 1" if unit else f"tokens are {ratio:.4g} times as long"
    return Explanation("rescaled", sentence, float(1 - cosine.mean()))


def _overlap(tokens: Tensor, stored: Tensor) -> tuple[Tensor, Tensor]:
    return tokens, stored[: len(tokens)]


def _cls(case: Case) -> Tensor:
    assert case.tokens.cls is not None
    return case.tokens.cls[0].float()
