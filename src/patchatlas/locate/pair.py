"""Find a marked point of one picture in another: one forward for each picture, the rest is arithmetic on their maps.

`locate_pair` takes the two pictures. `locate_in_map` is its second half, for a target that is encoded once and asked
for many points.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from patchatlas.arrays import ImageU8
from patchatlas.dense import encode
from patchatlas.encoders.protocol import Encoder
from patchatlas.errors import ShapeError
from patchatlas.features import FeatureMap
from patchatlas.geometry.buckets import fit
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.grid import PatchGrid
from patchatlas.io.landmarks import mel_point
from patchatlas.locate.result import Finding, Peak
from patchatlas.matching.peaks import Cell, covariance, find_peaks, refine, scored_cells
from patchatlas.matching.verdict import Limits, decide

Point = tuple[float, float]

RADIUS = 4.0
"""Patches within this distance of a peak count as the same place. Of 1.5 to 12 patches, 4 and more told right
answers from wrong ones about equally well by their margin on the development pairs (AUROC 0.98); of those, 4 is the
best at keeping near twins apart."""

REACH = 5
"""Patches to each side of the peak over which its spread is taken: the 11 x 11 window of GeoAware-SC (Zhang et al.,
CVPR 2024)."""

RUNNERS_UP = 4


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
    return locate_in_map(source_map, target_map, point_xy_source, uuid=uuid, image_size=image_size, limits=limits)


def locate_in_map(
    source_map: FeatureMap,
    target_map: FeatureMap,
    point_xy_source: Point,
    *,
    uuid: str,
    image_size: int,
    limits: Limits | None = None,
) -> Finding:
    """Find a point of an encoded source in an encoded target.

    The point's descriptor is read from `source_map` between patch centres; on a map over `centred_frame` it is a token.

    Args:
        source_map: of the source.
        target_map: of the target, made in the same way.
        point_xy_source: the point, in source pixels.
        uuid: whose point it is; a label.
        image_size: long side of both encoder inputs, for the record.
        limits: where found, uncertain and absent part.

    Raises:
        StampError: the two maps were made in different ways.
    """
    limits = limits or Limits()
    similarity = target_map.similarity(source_map.at(_row(point_xy_source)))[0].cpu()
    scored = scored_cells(target_map.grid)
    best, *others = find_peaks(similarity, scored, radius=RADIUS, count=1 + RUNNERS_UP)
    top = refine(similarity, scored, best)
    target_xy = _in_picture(target_map.grid, top)
    cosine = float(similarity[best])

    margin = cosine - float(similarity[others[0]]) if others else None
    spread = _in_pixels(covariance(similarity, scored, top, reach=REACH), target_map.grid)
    cycle_px = math.dist(point_xy_source, _match_back(target_map, source_map, target_xy))
    state, reason = decide(
        cycle_px=cycle_px,
        patch_px=_patch_side(source_map.grid),
        margin=margin,
        deviation=float(similarity[scored].std(correction=0)),
        limits=limits,
    )
    return Finding(
        uuid=uuid,
        source_xy=point_xy_source,
        target_xy=target_xy,
        state=state,
        reason=reason,
        similarity=cosine,
        margin=0.0 if margin is None else margin,
        cycle_px=cycle_px,
        spread_px=math.sqrt(float(torch.linalg.eigvalsh(spread)[-1])),
        covariance=((float(spread[0, 0]), float(spread[0, 1])), (float(spread[1, 0]), float(spread[1, 1]))),
        runners_up=tuple(_peak(similarity, scored, cell, target_map.grid) for cell in others),
        similarity_map=similarity,
        scored=scored,
        grid=target_map.grid,
        spec=target_map.spec,
        stamp=target_map.stamp,
        limits=limits,
        image_size=image_size,
        source_hw=_two(source_map.grid.frame.source_size),
        target_hw=_two(target_map.grid.frame.source_size),
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


def _match_back(target_map: FeatureMap, source_map: FeatureMap, target_xy: Point) -> Point:
    """The place of the source that is most like a point of the target."""
    similarity = source_map.similarity(target_map.at(_row(target_xy)))[0].cpu()
    scored = scored_cells(source_map.grid)
    (best,) = find_peaks(similarity, scored, radius=RADIUS, count=1)
    return _in_picture(source_map.grid, refine(similarity, scored, best))


def _peak(similarity: Tensor, scored: Tensor, cell: Cell, grid: PatchGrid) -> Peak:
    return Peak(_in_picture(grid, refine(similarity, scored, cell)), float(similarity[cell]))


def _in_picture(grid: PatchGrid, at: Point) -> Point:
    """A point in cells as source pixels, at most on the centre of a border pixel."""
    rows, columns = grid.frame.source_size
    x, y = grid.from_cells(_row(at))[0].tolist()
    return min(max(x, 0.5), columns - 0.5), min(max(y, 0.5), rows - 0.5)


def _in_pixels(spread: Tensor, grid: PatchGrid) -> Tensor:
    """A covariance in cells squared as source pixels squared."""
    side = torch.diag(torch.tensor(_cell_sides(grid)[::-1], dtype=torch.float64))
    return side @ spread @ side


def _patch_side(grid: PatchGrid) -> float:
    """Side of a square as large as a cell, in source pixels."""
    return math.sqrt(math.prod(_cell_sides(grid)))


def _cell_sides(grid: PatchGrid) -> list[float]:
    """Source pixels from one cell to the next, along rows and columns."""
    return [abs(float(scale * step)) for scale, step in zip(grid.frame.scale, grid.stride, strict=True)]


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


def _two(size: Sequence[int]) -> tuple[int, int]:
    rows, columns = size
    return rows, columns


def _row(point: Point) -> Tensor:
    return torch.tensor([point], dtype=torch.float64)
