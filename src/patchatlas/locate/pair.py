"""Find a marked point of one picture in another: one forward for each picture, the rest is arithmetic on their maps.

`locate_pair` takes the two pictures, `locate_pairs` several sources of one point. A `Recipe` asks for more forwards:
windows, turns, a closer look. For a target that is encoded once and asked for many points, see `locate.search`.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from patchatlas.arrays import ImageU8
from patchatlas.encoders.protocol import Encoder
from patchatlas.errors import ShapeError
from patchatlas.geometry.buckets import fit
from patchatlas.geometry.frame import Frame
from patchatlas.io.landmarks import mel_point
from patchatlas.io.masks import Mask
from patchatlas.locate.centring import centred_on
from patchatlas.locate.closer import look_closer
from patchatlas.locate.encoding import encode_view, prepare
from patchatlas.locate.recipe import Recipe
from patchatlas.locate.result import Finding
from patchatlas.locate.search import locate_points
from patchatlas.locate.turning import encode_best_turn
from patchatlas.locate.views import ViewsFinding, meet_views
from patchatlas.matching.confidence import Calibration

Point = tuple[float, float]


def locate_pair(
    source: ImageU8,
    target: ImageU8,
    point_xy_source: Point,
    encoder: Encoder,
    *,
    uuid: str,
    recipe: Recipe | None = None,
    calibration: Calibration | None = None,
    source_mask: Mask | None = None,
    target_mask: Mask | None = None,
) -> Finding:
    """Find the point of `source` in `target`.

    Args:
        source: upright picture in which the point is known.
        target: upright picture in which it is looked for.
        point_xy_source: the point, in source pixels.
        encoder: of pictures.
        uuid: whose point it is; a label.
        recipe: how it is looked for; plainly, at a long side of 896, if not given.
        calibration: makes probabilities of cues; that of the encoder if not given.
        source_mask: what of the source counts; a place may not match back to the rest.
        target_mask: what of the target counts; the rest is neither an answer nor a rival.

    Raises:
        LandmarkError: the point is outside the source.
        ShapeError: the image size is not a multiple of the patch, a picture is smaller than a patch (as it is, or
            scaled), a mask leaves no patch or is of another picture, or the encoder is not one of pictures.
        ResourceError: a forward needs more memory than the recipe allows, or than there is.
        UsageError: the encoder cannot follow the recipe.
    """
    found = locate_pairs(
        [source],
        target,
        [point_xy_source],
        encoder,
        views=["source"],
        uuid=uuid,
        recipe=recipe,
        calibration=calibration,
        source_masks=[source_mask],
        target_mask=target_mask,
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
    recipe: Recipe | None = None,
    calibration: Calibration | None = None,
    source_masks: Sequence[Mask | None] | None = None,
    target_mask: Mask | None = None,
) -> ViewsFinding:
    """Find one point, known in several sources, in `target`; see `locate.views`. The target is encoded once.

    Args:
        sources: upright pictures in which the point is known.
        target: upright picture in which it is looked for.
        points_xy_source: the point, in pixels of each source.
        encoder: of pictures.
        views: names of the sources.
        uuid: whose point it is; a label.
        recipe: how it is looked for; plainly, at a long side of 896, if not given.
        calibration: makes probabilities of cues; that of the encoder if not given.
        source_masks: what of each source counts; `None` where all of it does.
        target_mask: what of the target counts.

    Raises:
        LandmarkError: a point is outside its source.
        ShapeError: as for `locate_pair`, or not one point, name (and mask) a source.
        UsageError: the encoder cannot follow the recipe.
    """
    recipe = recipe or Recipe()
    masks = [None] * len(sources) if source_masks is None else source_masks
    if not len(sources) == len(points_xy_source) == len(views) == len(masks):
        raise ShapeError(
            f"{len(sources)} sources, {len(points_xy_source)} points, {len(views)} names and {len(masks)} masks; give "
            "one of each a source"
        )
    for source, point, view in zip(sources, points_xy_source, views, strict=True):
        mel_point(*point, size_hw=_size_hw(source))  # refuses a point outside
        _require_picture(encoder, view, _size_hw(source))
    _require_picture(encoder, "target", _size_hw(target))
    encoder = prepare(encoder, recipe)
    target_map = encode_view(target, encoder, recipe)
    alone = []
    for source, point, mask in zip(sources, points_xy_source, masks, strict=True):
        frame = centred_frame(_size_hw(source), point, image_size=recipe.image_size, patch=encoder.spec.patch)
        source_map, turn = encode_best_turn(
            source, encoder, recipe, target_map, frame=frame, source_mask=mask, target_mask=target_mask
        )
        source_mask = None if mask is None else mask.over(source_map.grid)
        (finding,) = locate_points(
            source_map,
            target_map,
            torch.tensor([point], dtype=torch.float64),
            uuids=[uuid],
            image_size=recipe.image_size,
            calibration=calibration,
            source_mask=source_mask,
            target_mask=None if target_mask is None else target_mask.over(target_map.grid),
            peak=recipe.peak,
        )
        (finding,) = look_closer(
            [finding], source, source_map, target, target_map, encoder, recipe, source_mask=source_mask
        )
        alone.append(replace(finding, turn=turn, recipe=recipe))
    return meet_views(alone, views=views)


def centred_frame(size_hw: Sequence[int], point_xy: Point, *, image_size: int, patch: Sequence[int]) -> Frame:
    """The picture scaled to `image_size`, on a patch grid shifted so that the point is the centre of a patch.

    The shift is less than a patch along each axis. The frame holds the whole picture, and at the borders less than two
    patches of padding along each axis in all.

    Raises:
        ShapeError: see `geometry.buckets.fit`.
    """
    return centred_on(fit(size_hw, long_side=image_size, patch=patch), point_xy, patch=patch)


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
