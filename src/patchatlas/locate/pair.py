"""Find a marked point of one picture in another: one forward for each picture, the rest is arithmetic on their maps.

`locate_pair` takes the two pictures. For a target that is encoded once and asked for many points, see `locate.search`.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import torch

from patchatlas.arrays import ImageU8
from patchatlas.dense import encode
from patchatlas.encoders.protocol import Encoder
from patchatlas.errors import ShapeError
from patchatlas.geometry.buckets import fit
from patchatlas.geometry.frame import Frame
from patchatlas.io.landmarks import mel_point
from patchatlas.locate.result import Finding
from patchatlas.locate.search import locate_points
from patchatlas.matching.verdict import Limits

Point = tuple[float, float]


def locate_pair(
    source: ImageU8,
    target: ImageU8,
    point_xy_source: Point,
    encoder: Encoder,
    *,
    uuid: str,
    image_size: int = 896,
    limits: Limits | None = None,
) -> Finding:
    """Find the point of `source` in `target`.

    Args:
        source: upright picture in which the point is known.
        target: upright picture in which it is looked for.
        point_xy_source: the point, in source pixels.
        encoder: of pictures.
        uuid: whose point it is; a label.
        image_size: long side of both pictures as the encoder sees them.
        limits: where found, uncertain and absent part.

    Raises:
        LandmarkError: the point is outside the source.
        ShapeError: `image_size` is not a multiple of the patch, a picture is smaller than a patch (as it is, or
            scaled), or the encoder is not one of pictures.
    """
    source_hw, target_hw = _size_hw(source), _size_hw(target)
    mel_point(*point_xy_source, size_hw=source_hw)  # refuses a point outside
    _require_pictures(encoder, source=source_hw, target=target_hw)
    patch = encoder.spec.patch
    source_frame = centred_frame(source_hw, point_xy_source, image_size=image_size, patch=patch)
    target_frame = fit(target_hw, long_side=image_size, patch=patch)
    source_map = encode(source, encoder, frame=source_frame)
    target_map = encode(target, encoder, frame=target_frame)
    points = torch.tensor([point_xy_source], dtype=torch.float64)
    (finding,) = locate_points(source_map, target_map, points, uuids=[uuid], image_size=image_size, limits=limits)
    return finding


def centred_frame(size_hw: Sequence[int], point_xy: Point, *, image_size: int, patch: Sequence[int]) -> Frame:
    """The picture scaled to `image_size`, on a patch grid shifted so that the point is the centre of a patch.

    The shift is less than a patch along each axis. The frame holds the whole picture, and at the borders less than two
    patches of padding along each axis in all.

    Raises:
        ShapeError: see `geometry.buckets.fit`.
    """
    scaled = fit(size_hw, long_side=image_size, patch=patch)
    start: list[Fraction] = []
    size: list[int] = []
    for axis, (_, end) in enumerate(scaled.content()):
        point = Fraction(point_xy[1 - axis]) / scaled.scale[axis]
        ahead = (Fraction(patch[axis], 2) - point) % patch[axis]
        start.append(-ahead)
        size.append(math.ceil((end + ahead) / patch[axis]) * patch[axis])
    return scaled.crop(start, size)


def _require_pictures(encoder: Encoder, **pictures: tuple[int, int]) -> None:
    patch = encoder.spec.patch
    if len(patch) != 2:
        raise ShapeError(
            f"{encoder.spec.name} encodes {len(patch)}-D input; locating on a pair of pictures needs a 2-D encoder"
        )
    for what, (rows, columns) in pictures.items():
        if rows < patch[0] or columns < patch[1]:
            raise ShapeError(
                f"the {what} is {columns} x {rows} px, smaller than one patch of {patch[1]} x {patch[0]} px; "
                f"use a larger picture"
            )


def _size_hw(image: ImageU8) -> tuple[int, int]:
    return image.shape[0], image.shape[1]
