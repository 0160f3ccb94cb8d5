"""Find a marked point of one picture in another: one forward for each picture, the rest is arithmetic on their maps.

`locate_pair` takes the two pictures, `locate_pairs` several sources of one point. For a target that is encoded once and
asked for many points, see `locate.search`.
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
from patchatlas.locate.views import ViewsFinding, locate_from_views
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
    found = locate_pairs(
        [source], target, [point_xy_source], encoder, views=["source"], uuid=uuid, image_size=image_size, limits=limits
    )
    return found.finding


def locate_pairs(
    sources: Sequence[ImageU8],
    target: ImageU8,
    points_xy_source: Sequence[Point],
    encoder: Encoder,
    *,
    views: Sequence[str],
    uuid: str,
    image_size: int = 896,
    limits: Limits | None = None,
) -> ViewsFinding:
    """Find one point, known in several sources, in `target`; see `locate.views`. The target is encoded once.

    Args:
        sources: upright pictures in which the point is known.
        target: upright picture in which it is looked for.
        points_xy_source: the point, in pixels of each source.
        encoder: of pictures.
        views: names of the sources.
        uuid: whose point it is; a label.
        image_size: long side of all pictures as the encoder sees them.
        limits: where found, uncertain and absent part.

    Raises:
        LandmarkError: a point is outside its source.
        ShapeError: as for `locate_pair`, or not one point and name a source.
    """
    for source, point, view in zip(sources, points_xy_source, views, strict=True):
        mel_point(*point, size_hw=_size_hw(source))  # refuses a point outside
        _require_picture(encoder, view, _size_hw(source))
    _require_picture(encoder, "target", _size_hw(target))
    patch = encoder.spec.patch
    target_map = encode(target, encoder, frame=fit(_size_hw(target), long_side=image_size, patch=patch))
    frames = (
        centred_frame(_size_hw(source), point, image_size=image_size, patch=patch)
        for source, point in zip(sources, points_xy_source, strict=True)
    )
    source_maps = [encode(source, encoder, frame=frame) for source, frame in zip(sources, frames, strict=True)]
    points = torch.tensor(points_xy_source, dtype=torch.float64)
    return locate_from_views(
        source_maps, points, target_map, views=views, uuid=uuid, image_size=image_size, limits=limits
    )


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


def _require_picture(encoder: Encoder, name: str, size_hw: tuple[int, int]) -> None:
    patch, (rows, columns) = encoder.spec.patch, size_hw
    if len(patch) != 2:
        raise ShapeError(
            f"{encoder.spec.name} encodes {len(patch)}-D input; locating on a pair of pictures needs a 2-D encoder"
        )
    if rows < patch[0] or columns < patch[1]:
        raise ShapeError(
            f"the {name} is {columns} x {rows} px, smaller than one patch of {patch[1]} x {patch[0]} px; "
            f"use a larger picture"
        )


def _size_hw(image: ImageU8) -> tuple[int, int]:
    return image.shape[0], image.shape[1]
