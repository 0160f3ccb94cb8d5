"""Lay the patch grid so that a point is the exact centre of a patch: its token then describes just that point."""

import math
from collections.abc import Sequence
from fractions import Fraction

from patchatlas.geometry.frame import Frame


def centred_on(drawn: Frame, point_source: Sequence[float], *, patch: Sequence[int]) -> Frame:
    """A frame over all of the source that `drawn` shows, on a patch grid shifted so that a point is a patch's centre.

    The shift is less than a patch along each axis, and the padding in all less than two patches.

    Args:
        drawn: says at what scale and turn the source is drawn.
        point_source: the point, (x, y[, z]) in source pixels or voxels.
        patch: of the encoder, along the axes of the frame.
    """
    start: list[Fraction] = []
    size: list[int] = []
    for k, (begin, end) in enumerate(drawn.content()):
        point = (Fraction(point_source[-1 - drawn.axes[k]]) - drawn.shift[k]) / drawn.scale[k]
        ahead = (Fraction(patch[k], 2) + begin - point) % patch[k]
        start.append(begin - ahead)
        size.append(math.ceil((end - begin + ahead) / patch[k]) * patch[k])
    return drawn.crop(start, size)
