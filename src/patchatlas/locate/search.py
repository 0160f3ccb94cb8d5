"""Find points of an encoded picture or volume in another encoded one: any number of points, two products of matrices.

Axes: p points, m peaks a point, `*shape` the patch grid. Points are (x, y[, z]) in the source plane of their own map.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from patchatlas.errors import ShapeError
from patchatlas.features import Descriptors, FeatureMap
from patchatlas.geometry.grid import PatchGrid
from patchatlas.locate.recipe import PeakRule
from patchatlas.locate.result import Finding, Peak
from patchatlas.matching.confidence import Calibration, Cues, calibration_for
from patchatlas.matching.peaks import (
    Peaks,
    find_peaks,
    level_and_deviation,
    refine,
    scored_cells,
    shape_about,
    soft_argmax,
)
from patchatlas.matching.verdict import judge

RADIUS = 4.0
"""Patches within this distance of a peak count as the same place. Of 1.5 to 12 patches, 4 and more told right
answers from wrong ones about equally well by their margin on the development pairs (AUROC 0.98); of those, 4 is the
best at keeping near twins apart."""

REACH = 5
"""Patches to each side of the peak over which its spread is taken: the 11 x 11 window of GeoAware-SC (Zhang et al.,
CVPR 2024)."""

RUNNERS_UP = 4

PLACED: dict[PeakRule, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"parabola": refine, "soft-argmax": soft_argmax}

_EVEN = 1e-6  # float32 cosines of equal vectors differ by some 1e-7

_AT_ONCE = 1 << 20
"""Similarities worked on at a time: 4 MB stay in a cache, which is twice as fast as all at once (1000 x 10,080)."""


def locate_points(
    source_map: FeatureMap,
    target_map: FeatureMap,
    points_source: Float[Tensor, "p ndim"],
    *,
    uuids: Sequence[str],
    image_size: int,
    calibration: Calibration | None = None,
    target_mask: Bool[Tensor, "*target"] | None = None,
    source_mask: Bool[Tensor, "*source"] | None = None,
    peak: PeakRule = "parabola",
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
        calibration: makes probabilities of cues; that of the encoder if not given.
        target_mask: patches of the target that may be an answer; all with their centre in the picture if not given. The
            others are no rivals either: they count in no margin and no standard deviation.
        source_mask: patches of the source that a place may match back to, likewise.
        peak: how places are told to a part of a patch: by a parabola through a patch and its neighbours, or as the
            softmax-weighted mean of those about it.

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
            calibration=calibration or calibration_for(target_map.spec),
            target_mask=target_mask,
            source_mask=source_mask,
            peak=peak,
        )
    return findings


def _locate(
    source_map: FeatureMap,
    target_map: FeatureMap,
    points: Float64[Tensor, "p ndim"],
    *,
    uuids: Sequence[str],
    image_size: int,
    calibration: Calibration,
    target_mask: Tensor | None,
    source_mask: Tensor | None,
    peak: PeakRule,
) -> list[Finding]:
    grid = target_map.grid
    similarity = target_map.similarity(source_map.at(points)).cpu()
    scored = _allowed(grid, target_mask)
    peaks = find_peaks(similarity, scored, radius=RADIUS, count=1 + RUNNERS_UP)
    tops = PLACED[peak](similarity, scored, peaks.cells)
    places = in_picture(grid, tops)
    shape = shape_about(similarity, scored, tops[:, 0], reach=REACH)
    spreads = in_pixels(shape.covariance, grid)
    entropies = shape.entropy.tolist()
    widths = torch.linalg.eigvalsh(spreads)[:, -1].sqrt().tolist()
    returned = match_back(target_map, source_map, places[:, 0], source_mask=source_mask, peak=peak)
    cycles = torch.linalg.vector_norm(returned - points, dim=1).tolist()
    deviations = level_and_deviation(similarity, scored)[1].tolist()
    margins = _margins(peaks)
    patch_px = patch_side(source_map.grid)

    findings = []
    for k, uuid in enumerate(uuids):
        cues = Cues(
            lead=_lead(margins[k], deviations[k]),
            cycle=cycles[k] / patch_px,
            entropy=entropies[k] if deviations[k] > _EVEN else 1.0,
        )
        verdict = judge(cues, calibration)
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
                state=verdict.state,
                reason=verdict.reason,
                confidence=verdict.confidence,
                cues=cues,
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
                calibration=calibration,
                image_size=image_size,
                source_size=source_map.grid.frame.source_size,
                target_size=grid.frame.source_size,
            )
        )
    return findings


def match_back(
    target_map: FeatureMap,
    source_map: FeatureMap,
    points_target: Float[Tensor, "p ndim"],
    *,
    source_mask: Bool[Tensor, "*source"] | None = None,
    peak: PeakRule = "parabola",
) -> Float64[Tensor, "p ndim"]:
    """For each point of the target the place of the source that is most like it, in source pixels.

    Args:
        source_map: of the source.
        target_map: of the target.
        points_target: the points, in target pixels.
        source_mask: patches of the source that may be an answer.
        peak: as in `locate_points`.
    """
    asked: Descriptors = target_map.at(points_target)
    similarity = source_map.similarity(asked).cpu()
    scored = _allowed(source_map.grid, source_mask)
    best = find_peaks(similarity, scored, radius=0.0, count=1)
    return in_picture(source_map.grid, PLACED[peak](similarity, scored, best.cells))[:, 0]


def in_picture(grid: PatchGrid, at: Float64[Tensor, "p m ndim"]) -> Float64[Tensor, "p m ndim"]:
    """Points in cells as source pixels, at most on the centre of a border pixel."""
    centre = grid.from_cells(at.flatten(0, 1)).reshape(at.shape)
    extent = torch.tensor(grid.frame.source_size[::-1], dtype=torch.float64)
    return centre.clamp(min=torch.full_like(extent, 0.5), max=extent - 0.5)


def patch_side(grid: PatchGrid) -> float:
    """Side of a square (cube) as large as a cell, in source pixels."""
    sides = _cell_sides(grid)
    return math.prod(sides) ** (1 / len(sides))


def _allowed(grid: PatchGrid, mask: Tensor | None) -> Tensor:
    scored = scored_cells(grid)
    return scored if mask is None else scored & mask


def _lead(margin: float | None, deviation: float) -> float | None:
    """Margin in standard deviations; `None` where there is no second place, or no place differs from another."""
    return None if margin is None or deviation <= _EVEN else margin / deviation


def _margins(peaks: Peaks) -> list[float | None]:
    """Lead of the best peak over the next; `None` where there is no other."""
    leads = (peaks.values[:, 0] - peaks.values[:, 1]).tolist()
    return [lead if there else None for lead, there in zip(leads, peaks.present[:, 1].tolist(), strict=True)]


def in_pixels(spread: Float64[Tensor, "k ndim ndim"], grid: PatchGrid) -> Float64[Tensor, "k ndim ndim"]:
    """Covariances in cells squared as source pixels squared."""
    side = torch.diag(torch.tensor(_cell_sides(grid)[::-1], dtype=torch.float64))
    return side @ spread @ side


def _cell_sides(grid: PatchGrid) -> list[float]:
    """Source pixels from one cell to the next, along ([z,] rows, columns)."""
    return [abs(float(scale * step)) for scale, step in zip(grid.frame.scale, grid.stride, strict=True)]
