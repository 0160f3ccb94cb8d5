"""Find points of an encoded picture or volume in another encoded one: any number of points, two products of matrices.

Axes: p points, m peaks a point, `*shape` the patch grid. Points are (x, y[, z]) in the source plane of their own map.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from patchatlas.errors import ShapeError
from patchatlas.features import Descriptors, FeatureMap
from patchatlas.geometry.grid import PatchGrid
from patchatlas.locate.result import Finding, Peak
from patchatlas.matching.peaks import Peaks, covariance, find_peaks, refine, scored_cells
from patchatlas.matching.verdict import Limits, decide

RADIUS = 4.0
"""Patches within this distance of a peak count as the same place. Of 1.5 to 12 patches, 4 and more told right
answers from wrong ones about equally well by their margin on the development pairs (AUROC 0.98); of those, 4 is the
best at keeping near twins apart."""

REACH = 5
"""Patches to each side of the peak over which its spread is taken: the 11 x 11 window of GeoAware-SC (Zhang et al.,
CVPR 2024)."""

RUNNERS_UP = 4

_AT_ONCE = 1 << 20
"""Similarities worked on at a time: 4 MB stay in a cache, which is twice as fast as all at once (1000 x 10,080)."""


def locate_points(
    source_map: FeatureMap,
    target_map: FeatureMap,
    points_source: Float[Tensor, "p ndim"],
    *,
    uuids: Sequence[str],
    image_size: int,
    limits: Limits | None = None,
    target_mask: Bool[Tensor, "*shape"] | None = None,
) -> list[Finding]:
    """Find points of an encoded source in an encoded target.

    A point's descriptor is read from `source_map` between patch centres; on a map over `centred_frame` it is a token.
    Each point is looked for by itself: others change nothing.

    Args:
        source_map: of the source.
        target_map: of the target, made in the same way.
        points_source: the points, in source pixels.
        uuids: whose points they are; labels.
        image_size: long side of both encoder inputs, for the record.
        limits: where found, uncertain and absent part.
        target_mask: patches of the target that may be an answer; all with their centre in the picture if not given.

    Raises:
        StampError: the two maps were made in different ways.
        ShapeError: not one uuid a point, or no patch may be an answer.
    """
    if len(uuids) != len(points_source):
        raise ShapeError(f"{len(points_source)} points need as many uuids, given {len(uuids)}")
    chunk = max(1, _AT_ONCE // max(source_map.grid.count, target_map.grid.count))
    findings: list[Finding] = []
    for first in range(0, len(uuids), chunk):
        findings += _locate(
            source_map,
            target_map,
            points_source[first : first + chunk].to(torch.float64),
            uuids=uuids[first : first + chunk],
            image_size=image_size,
            limits=limits or Limits(),
            target_mask=target_mask,
        )
    return findings


def _locate(
    source_map: FeatureMap,
    target_map: FeatureMap,
    points: Float64[Tensor, "p ndim"],
    *,
    uuids: Sequence[str],
    image_size: int,
    limits: Limits,
    target_mask: Tensor | None,
) -> list[Finding]:
    grid = target_map.grid
    similarity = target_map.similarity(source_map.at(points)).cpu()
    scored = scored_cells(grid)
    if target_mask is not None:
        scored = scored & target_mask
    peaks = find_peaks(similarity, scored, radius=RADIUS, count=1 + RUNNERS_UP)
    tops = refine(similarity, scored, peaks.cells)
    places = in_picture(grid, tops)
    spreads = _in_pixels(covariance(similarity, scored, tops[:, 0], reach=REACH), grid)
    widths = torch.linalg.eigvalsh(spreads)[:, -1].sqrt().tolist()
    cycles = torch.linalg.vector_norm(match_back(target_map, source_map, places[:, 0]) - points, dim=1).tolist()
    deviations = _deviations(similarity[:, scored]).tolist()
    margins = _margins(peaks)
    patch_px = patch_side(source_map.grid)

    findings = []
    for k, uuid in enumerate(uuids):
        state, reason = decide(
            cycle_px=cycles[k], patch_px=patch_px, margin=margins[k], deviation=deviations[k], limits=limits
        )
        best, *others = (
            Peak(tuple(xy), value)
            for xy, value in zip(places[k].tolist(), peaks.values[k].tolist(), strict=True)
            if value > -math.inf
        )
        findings.append(
            Finding(
                uuid=uuid,
                source_xy=tuple(points[k].tolist()),
                target_xy=best.xy,
                state=state,
                reason=reason,
                similarity=best.similarity,
                margin=margins[k] or 0.0,
                cycle_px=cycles[k],
                spread_px=widths[k],
                covariance=tuple(tuple(row) for row in spreads[k].tolist()),
                runners_up=tuple(others),
                similarity_map=similarity[k],
                scored=scored,
                grid=grid,
                spec=target_map.spec,
                stamp=target_map.stamp,
                limits=limits,
                image_size=image_size,
                source_size=source_map.grid.frame.source_size,
                target_size=grid.frame.source_size,
            )
        )
    return findings


def match_back(
    target_map: FeatureMap, source_map: FeatureMap, points_target: Float[Tensor, "p ndim"]
) -> Float64[Tensor, "p ndim"]:
    """For each point of the target the place of the source that is most like it, in source pixels."""
    asked: Descriptors = target_map.at(points_target)
    similarity = source_map.similarity(asked).cpu()
    scored = scored_cells(source_map.grid)
    best = find_peaks(similarity, scored, radius=0.0, count=1)
    return in_picture(source_map.grid, refine(similarity, scored, best.cells))[:, 0]


def in_picture(grid: PatchGrid, at: Float64[Tensor, "p m ndim"]) -> Float64[Tensor, "p m ndim"]:
    """Points in cells as source pixels, at most on the centre of a border pixel."""
    centre = grid.from_cells(at.flatten(0, 1)).reshape(at.shape)
    extent = torch.tensor(grid.frame.source_size[::-1], dtype=torch.float64)
    return centre.clamp(min=torch.full_like(extent, 0.5), max=extent - 0.5)


def patch_side(grid: PatchGrid) -> float:
    """Side of a square (cube) as large as a cell, in source pixels."""
    sides = _cell_sides(grid)
    return math.prod(sides) ** (1 / len(sides))


def _deviations(values: Float[Tensor, "p n"]) -> Float[Tensor, " p"]:
    """Standard deviation of each row; torch's own `std` takes four times as long."""
    away: Tensor = torch.linalg.vector_norm(values - values.mean(dim=1, keepdim=True), dim=1)
    return away / math.sqrt(values.shape[1])


def _margins(peaks: Peaks) -> list[float | None]:
    """Lead of the best peak over the next; `None` where there is no other."""
    leads = (peaks.values[:, 0] - peaks.values[:, 1]).tolist()
    return [lead if there else None for lead, there in zip(leads, peaks.present[:, 1].tolist(), strict=True)]


def _in_pixels(spread: Float64[Tensor, "k ndim ndim"], grid: PatchGrid) -> Float64[Tensor, "k ndim ndim"]:
    """Covariances in cells squared as source pixels squared."""
    side = torch.diag(torch.tensor(_cell_sides(grid)[::-1], dtype=torch.float64))
    return side @ spread @ side


def _cell_sides(grid: PatchGrid) -> list[float]:
    """Source pixels from one cell to the next, along ([z,] rows, columns)."""
    return [abs(float(scale * step)) for scale, step in zip(grid.frame.scale, grid.stride, strict=True)]
