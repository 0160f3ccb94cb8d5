"""A second look at the best places: cut from both pictures about the mark and about each place, and matched once more.

The crops show both pictures `zoom` times larger than the maps on which the places were found did, so what had one size
there has one size here. That is all that is known of the scale of the two: where one photo has twice the pixels of the
other, its crop covers twice as many of them, and shows as much of the scene. Turns are kept likewise, since crops are
frames cut from the frames of those maps. With `jitter` the patches of the target's crops are that many input pixels
apart; with both, in the magnified crop.

Axes: k findings, p points, `*shape` the patches of a crop. Points are (x, y[, z]) in the source plane of their picture.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from patchatlas.arrays import ImageU8
from patchatlas.crops import encode_crops
from patchatlas.encoders.protocol import Encoder
from patchatlas.features import Descriptors, FeatureMap
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.grid import PatchGrid
from patchatlas.locate.encoding import prepare
from patchatlas.locate.recipe import Recipe
from patchatlas.locate.result import Finding, Peak, Point
from patchatlas.locate.search import PLACED, REACH, in_picture, in_pixels, match_back, patch_side
from patchatlas.matching.peaks import find_peaks, scored_cells, shape_about
from patchatlas.matching.verdict import judge

Image = ImageU8 | Float[Tensor, "c ..."]
"""A picture or volume; two in one signature may differ in size."""

CELLS = {2: 21, 3: 9}
"""Patches along each side of a crop of a picture or volume; odd, so that one of them is in the middle. With
`bundled:sift`, zoomed by 2.4, 15, 21 and 31 patches put 92, 93 and 93 % of 217 marks of the development cases within a
patch of the truth (85 % before); a network wants surroundings too."""

NEAR = 2.0
"""How far from a place the closer look may find it, in patches of the first look: a place that was further off was
wrong, and is left to its runners-up."""


def look_closer(
    findings: Sequence[Finding],
    source: Image,
    source_map: FeatureMap,
    target: Image,
    target_map: FeatureMap,
    encoder: Encoder,
    recipe: Recipe,
    *,
    source_mask: Bool[Tensor, "*source"] | None = None,
) -> list[Finding]:
    """Look again at the best places of each finding, and take the one that is most like the mark from near by.

    The mark is the centre of the middle patch of its crop, also at the border of the picture, where the crop reaches
    beyond it. The new place lies within `NEAR` patches of one that the first look gave, and never where that was not
    allowed to look. Where a runner-up wins, the two looks disagree: the finding is then judged anew, without a lead.

    The cost is one encoding of a crop for each finding and each place, times (patch / jitter) along each axis for the
    places, in full batches over all findings.

    Args:
        findings: points of `source_map`, found in `target_map`.
        source: what `source_map` was made of.
        source_map: tells the scale and turn at which the first look saw the source.
        target: what `target_map` was made of.
        target_map: likewise.
        encoder: that made the maps, prepared by the recipe or not.
        recipe: says how close, and at how many places.
        source_mask: patches of `source_map` that a place may match back to; all if not given.

    Returns:
        One a finding, in order; the same findings where the recipe wants no second look.

    Raises:
        UsageError: a jitter that does not divide the patch.
        ResourceError: one crop needs more than the recipe's memory.
    """
    if not recipe.closer:
        return list(findings)
    encoder = prepare(encoder, recipe)
    marks = _middles(findings, source, source_map.grid.frame, encoder, recipe)
    best: dict[int, _Look] = {}
    for k, look in _looks(findings, marks, target, target_map.grid, encoder, recipe):
        if k not in best or look.similarity > best[k].similarity:
            best[k] = look
    return [
        _settled(finding, best[k], source_map, target_map, recipe, source_mask) for k, finding in enumerate(findings)
    ]


def crop_about(
    frame: Frame, point: Point, *, zoom: Fraction, size: Sequence[int], at: Sequence[Fraction | int]
) -> Frame:
    """A crop of the source of `frame`, `zoom` times as large as there, that has a point of the source at `at`.

    Args:
        frame: whose scale, axes and turn the crop has.
        point: (x, y[, z]) in the source.
        zoom: magnification; below 1 it shrinks.
        size: pixels of the crop.
        at: where the point lies in the crop, in array order.
    """
    scale = tuple(s / zoom for s in frame.scale)
    there = [Fraction(point[-1 - axis]) for axis in frame.axes]
    shift = tuple(p - s * Fraction(a) for p, s, a in zip(there, scale, at, strict=True))
    return replace(frame, size=tuple(size), scale=scale, shift=shift)


@dataclass(frozen=True, eq=False)
class _Look:
    """The best place of one crop."""

    candidate: int
    place: Point
    covariance: tuple[Point, ...]
    spread: float
    similarity: float


def _middles(
    findings: Sequence[Finding], source: Image, frame: Frame, encoder: Encoder, recipe: Recipe
) -> list[Descriptors]:
    """What each mark looks like from near by."""
    patch = encoder.spec.patch
    cells = CELLS[len(patch)]
    at = [Fraction(cells * p, 2) for p in patch]
    size = [cells * p for p in patch]
    frames = [crop_about(frame, f.source_xy, zoom=_zoom(recipe), size=size, at=at) for f in findings]
    middle = cells ** len(patch) // 2
    return [
        Descriptors(seen.tokens[middle : middle + 1], seen.stamp)
        for seen in encode_crops(source, encoder, frames, max_memory=recipe.max_memory)
    ]


def _looks(
    findings: Sequence[Finding],
    marks: Sequence[Descriptors],
    target: Image,
    grid: PatchGrid,
    encoder: Encoder,
    recipe: Recipe,
) -> Iterator[tuple[int, _Look]]:
    """For each finding and each of its best places what is most like the mark about there."""
    patch = encoder.spec.patch
    strides = patch if recipe.jitter is None else (recipe.jitter,) * len(patch)
    cells = CELLS[len(patch)]
    size = [cells * p + p - s for p, s in zip(patch, strides, strict=True)]
    middle = [cells // 2 * (p // s) + p // s // 2 for p, s in zip(patch, strides, strict=True)]
    at = [m * s + Fraction(p, 2) for m, p, s in zip(middle, patch, strides, strict=True)]
    asked = [(k, c, xy) for k, f in enumerate(findings) for c, xy in enumerate(_places(f)[: recipe.candidates])]
    frames = [crop_about(grid.frame, xy, zoom=_zoom(recipe), size=size, at=at) for _, _, xy in asked]
    maps = encode_crops(target, encoder, frames, stride=recipe.jitter, max_memory=recipe.max_memory)
    for (k, candidate, xy), seen in zip(asked, maps, strict=True):
        allowed, near = _allowed(seen.grid, findings[k], xy)
        allowed[*middle] = True  # the place itself, which the first look allowed
        yield k, _look(candidate, seen.similarity(marks[k]).cpu(), allowed, near, seen.grid, recipe)


def _places(finding: Finding) -> list[Point]:
    return [finding.target_xy, *(peak.xy for peak in finding.runners_up)]


def _allowed(grid: PatchGrid, finding: Finding, about: Point) -> tuple[Bool[Tensor, "*shape"], Bool[Tensor, "*shape"]]:
    """Patches of a crop with their centre in the picture and in none that was forbidden; and those near the place."""
    centres, first = grid.centres(), finding.grid
    away = first.cells_of(centres) - first.cells_of(torch.tensor([about], dtype=torch.float64))
    near = torch.linalg.vector_norm(away, dim=1) <= NEAR
    forbidden = scored_cells(first) & ~finding.scored
    cells = first.cells_of(centres).flip(1).floor().long()
    limit = torch.tensor(first.shape) - 1
    masked = forbidden[*cells.clamp(min=torch.zeros_like(limit), max=limit).unbind(1)]
    return scored_cells(grid) & ~masked.reshape(grid.shape), near.reshape(grid.shape)


def _look(
    candidate: int,
    similarity: Float[Tensor, "1 *shape"],
    allowed: Bool[Tensor, "*shape"],
    near: Bool[Tensor, "*shape"],
    grid: PatchGrid,
    recipe: Recipe,
) -> _Look:
    peak = find_peaks(similarity, allowed & near, radius=0.0, count=1)
    place = PLACED[recipe.peak](similarity, allowed, peak.cells)
    reach = REACH * max(p // s for p, s in zip(grid.patch, grid.stride, strict=True))
    covariance = in_pixels(shape_about(similarity, allowed, place[:, 0], reach=reach).covariance, grid)[0]
    return _Look(
        candidate,
        tuple(in_picture(grid, place)[0, 0].tolist()),
        tuple(tuple(row) for row in covariance.tolist()),
        float(torch.linalg.eigvalsh(covariance)[-1].sqrt()),
        float(peak.values[0, 0]),
    )


def _settled(
    finding: Finding,
    look: _Look,
    source_map: FeatureMap,
    target_map: FeatureMap,
    recipe: Recipe,
    source_mask: Tensor | None,
) -> Finding:
    """The finding with its place from the closer look."""
    seen = replace(finding, target_xy=look.place, covariance=look.covariance, spread_px=look.spread)
    if look.candidate == 0:
        moved = math.dist(finding.target_xy, look.place)
        return replace(seen, reason=f"{finding.reason}; a closer look moved it by {moved:.1f} px")
    peaks = [Peak(finding.target_xy, finding.similarity), *finding.runners_up]
    taken = peaks.pop(look.candidate)
    place = torch.tensor([look.place], dtype=torch.float64)
    back = match_back(target_map, source_map, place, source_mask=source_mask, peak=recipe.peak)[0]
    cycle_px = math.dist(back.tolist(), finding.source_xy)
    at = finding.grid.cells_of(place)
    entropy = float(shape_about(finding.similarity_map[None], finding.scored, at, reach=REACH).entropy)
    cues = replace(finding.cues, lead=0.0, cycle=cycle_px / patch_side(source_map.grid), entropy=entropy)
    verdict = judge(cues, finding.calibration)
    return replace(
        seen,
        state=verdict.state,
        confidence=verdict.confidence,
        reason=f"a closer look prefers what the first look held for place {look.candidate + 1}; {verdict.reason}",
        cues=cues,
        similarity=taken.similarity,
        margin=taken.similarity - finding.similarity,
        cycle_px=cycle_px,
        runners_up=tuple(peaks),
    )


def _zoom(recipe: Recipe) -> Fraction:
    """As written: 2.4 is 12/5, not the nearest binary fraction."""
    return Fraction(str(recipe.zoom)) if recipe.zoom is not None else Fraction(1)
