"""Input sizes: scale a picture to fit, to cover a bucket, or to the nearest multiple of the patch.

All sizes are (h, w) and computed in integers or fractions, so no row is lost to a truncated float.
"""

import math
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

from patchatlas.errors import FormatError, ShapeError
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.rounding import ceil_to_multiple, round_half_up, round_to_multiple

Hw = tuple[int, int]

BucketRule = Literal["log", "linear"]
"""How the bucket nearest to a picture is found, see `nearest_bucket`."""

# Seven sizes of about one megapixel, (h, w), all sides multiples of 64: a table common in training latent diffusion.
MEGAPIXEL_BUCKETS: tuple[Hw, ...] = (
    (1024, 1024),
    (832, 1216),
    (1216, 832),
    (768, 1280),
    (1280, 768),
    (704, 1344),
    (1344, 704),
)


def fit(size_hw: Sequence[int], *, long_side: int, patch: Sequence[int]) -> Frame:
    """Scale a picture so that its long side is `long_side`, aspect kept, and pad right and bottom to whole patches.

    The short side is rounded to a pixel, halves up; each axis keeps its own exact scale.

    Raises:
        ShapeError: `long_side` is not a multiple of the patch, or the scaled picture is smaller than one patch.
    """
    h, w = size_hw
    for p in patch:
        if long_side % p or long_side < p:
            below = long_side // p * p
            near = [n for n in (below, below + p) if n]
            raise ShapeError(
                f"image size {long_side} is not a multiple of the patch {p}; take {' or '.join(map(str, near))}"
            )
    long = max(h, w)
    scaled = (round_half_up(Fraction(h * long_side, long)), round_half_up(Fraction(w * long_side, long)))
    for side, p in zip(scaled, patch, strict=True):
        if side < p:
            raise ShapeError(
                f"a picture of {w} x {h} px scaled to a long side of {long_side} is {scaled[1]} x {scaled[0]} px, "
                f"smaller than one patch ({p} px); take a larger image size or crop the picture"
            )
    after = [ceil_to_multiple(side, p) - side for side, p in zip(scaled, patch, strict=True)]
    return Frame.whole((h, w)).resize(scaled).pad((0, 0), after)


def bucket_name(bucket: Hw) -> str:
    """How a bucket is written in files and folder names: `"WxH"`, width first."""
    return f"{bucket[1]}x{bucket[0]}"


def parse_bucket(name: str) -> Hw:
    """The inverse of `bucket_name`.

    Raises:
        FormatError: not two whole numbers above zero with an x between.
    """
    found = re.fullmatch(r"([1-9][0-9]*)x([1-9][0-9]*)", name)
    if found is None:
        raise FormatError(f'{name!r} is no bucket; write width, x, height, such as "1216x832"')
    return int(found[2]), int(found[1])


def nearest_bucket(size_hw: Sequence[int], table: Sequence[Hw] = MEGAPIXEL_BUCKETS, *, rule: BucketRule = "log") -> Hw:
    """The bucket with the nearest aspect ratio; the first of equals wins.

    Args:
        size_hw: rows and columns of the upright picture.
        table: buckets (h, w).
        rule: `log` compares logarithms of the ratios, so that the bucket that keeps most of the picture wins and
            portraits are treated as landscapes are. `linear` compares widths over heights, as earlier projects do: it
            can prefer a bucket that cuts more away, and treats portraits otherwise than landscapes.

    The comparison is exact: the distance of log a and log b grows with max(a/b, b/a).
    """
    if not table:
        raise ShapeError("the bucket table is empty; give at least one (h, w)")
    h, w = size_hw

    def stretch(bucket: Hw) -> Fraction:
        ratio = Fraction(w * bucket[0], h * bucket[1])
        return max(ratio, 1 / ratio)

    def difference(bucket: Hw) -> Fraction:
        return abs(Fraction(bucket[1], bucket[0]) - Fraction(w, h))

    return min(table, key=stretch if rule == "log" else difference)


def cover_sizes(size_hw: Sequence[int], bucket: Hw) -> tuple[Hw, Hw]:
    """How a picture is scaled until it covers the bucket, and where the bucket is then cut from its centre.

    Returns:
        The scaled picture's (h, w): the scale is the exact larger of the two ratios, and the other side is rounded up
        to a pixel. Then the (row, column) of the bucket in it: an odd surplus leaves the spare pixel at the right or
        bottom.
    """
    h, w = size_hw
    scale = max(Fraction(bucket[0], h), Fraction(bucket[1], w))
    scaled = (math.ceil(h * scale), math.ceil(w * scale))
    return scaled, ((scaled[0] - bucket[0]) // 2, (scaled[1] - bucket[1]) // 2)


def cover(size_hw: Sequence[int], bucket: Hw) -> Frame:
    """The bucket as `cover_sizes` cuts it from a picture, each axis with its own exact scale."""
    scaled, start = cover_sizes(size_hw, bucket)
    return Frame.whole(size_hw).resize(scaled).crop(start, bucket)


def to_patches(frame: Frame, patch: Sequence[int]) -> Frame:
    """Scale a frame so that each side is the nearest multiple of the patch, halves up; nothing is cut."""
    return frame.resize([round_to_multiple(n, p) for n, p in zip(frame.size, patch, strict=True)])
