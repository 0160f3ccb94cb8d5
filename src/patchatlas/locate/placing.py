"""From the place that each landmark was given to what is said of it: how sure that is, and what else it might be.

Axes: q landmarks that were moved away from where they look best, `rows cols` the patch grid of the target. Points are
(x, y) in the source plane of their own picture.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from patchatlas.features import FeatureMap
from patchatlas.locate.candidates import SAME_PLACE, Candidates
from patchatlas.locate.expectation import Expectation
from patchatlas.locate.placement import Placement
from patchatlas.locate.reference import Reference
from patchatlas.locate.result import Finding, Point
from patchatlas.locate.search import RADIUS, REACH, match_back, patch_side
from patchatlas.locate.views import ViewsFinding
from patchatlas.matching.assignment import NOWHERE
from patchatlas.matching.belief import in_deviations
from patchatlas.matching.confidence import Cues
from patchatlas.matching.peaks import shape_about
from patchatlas.matching.verdict import State, judge

SAME_PEAK = 1.0
"""Patches between a place and a peak that are still one: refining moves each by at most 0.71 patches, mostly alike."""


@dataclass(frozen=True)
class View:
    """What one reference says of a landmark.

    Attributes:
        reference: its number.
        finding: of the landmark, by this reference alone.
    """

    reference: int
    finding: Finding


def place_all(
    met: Sequence[ViewsFinding],
    views: Sequence[Sequence[View]],
    candidates: Candidates,
    chosen: Sequence[int],
    expected: Expectation,
    *,
    references: Sequence[Reference],
    target_map: FeatureMap,
    known: Mapping[str, Point],
) -> list[Placement]:
    """A placement for each landmark.

    Args:
        met: what its appearance alone says.
        views: what each reference that has it says.
        candidates: the places that it could be given.
        chosen: which of them it was given, or `NOWHERE`.
        expected: where the other landmarks put it.
        references: pictures with marks.
        target_map: of the target.
        known: marks that the target has already.
    """
    patch_px = patch_side(target_map.grid)
    places = [tuple(candidates.places[k, max(choice, 0)].tolist()) for k, choice in enumerate(chosen)]
    moved = [k for k, place in enumerate(places) if math.dist(place, met[k].finding.target_xy) > SAME_PEAK * patch_px]
    looked = _look_at(moved, places, views, references, target_map)
    placements = []
    for k, (found, place) in enumerate(zip(met, places, strict=True)):
        alone = found.finding
        cues, spread = looked.get(k, (alone.cues, alone.spread_px))
        prediction = expected.surest(k)
        away = sigma = None
        if prediction is not None:
            _, at, sigma = prediction
            away = math.dist(at, place)
            cues = replace(cues, residual=away / sigma)
        verdict = judge(cues, alone.calibration)
        peaks = [alone.target_xy, *(peak.xy for peak in alone.runners_up)]
        placements.append(
            Placement(
                uuid=alone.uuid,
                views=found,
                target_xy=place,
                state=verdict.state,
                reason=verdict.reason,
                confidence=verdict.confidence,
                cues=cues,
                spread_px=spread,
                rank=next(
                    (n for n, xy in enumerate(peaks) if math.dist(xy, place) <= SAME_PEAK * patch_px), len(peaks)
                ),
                moved_by=math.dist(place, alone.target_xy),
                taken_by=None,
                predicted_xy=None if prediction is None else prediction[1],
                prior_px=away,
                prior_sigma_px=sigma,
                gap_px=None,
                identity_safe=True,
            )
        )
    return told_apart(_yielded(placements, chosen, known, patch_px=patch_px), list(known.values()), patch_px=patch_px)


def moved_to(
    placements: Sequence[Placement],
    seen: Mapping[str, tuple[Point, float]],
    known: Mapping[str, Point],
    *,
    patch_px: float,
) -> list[Placement]:
    """Placements with the places and spreads of a closer look, as far as these are still one to a mark.

    Each landmark is looked at by itself there, so that two may come to the same place. Those stay where they were.
    What depends on the places of others, gap and safety, is left to `told_apart`.

    Args:
        placements: shared out.
        seen: place and spread by uuid, of those that were looked at.
        known: marks that the target has already.
        patch_px: side of a patch, in target pixels.
    """
    first = {p.uuid: p.target_xy for p in placements if p.state != "absent"}
    before = {**known, **first}
    same = SAME_PLACE * patch_px
    stay: set[str] = set()
    while True:
        after = before | {uuid: seen[uuid][0] for uuid in first if uuid in seen and uuid not in stay}
        met = {
            uuid
            for uuid in first.keys() & seen.keys() - stay
            if any(
                uuid != other and math.dist(after[uuid], xy) <= same < math.dist(before[uuid], before[other])
                for other, xy in after.items()
            )
        }
        if not met:
            break
        stay |= met  # and now another may have come to where one of these was
    return [
        placement
        if placement.uuid not in first or placement.uuid not in seen
        else replace(placement, reason=f"{placement.reason}; a closer look put it where another mark is, so it stays")
        if placement.uuid in stay
        else _moved(placement, *seen[placement.uuid])
        for placement in placements
    ]


def _moved(placement: Placement, place: Point, spread_px: float) -> Placement:
    predicted = placement.predicted_xy
    return replace(
        placement,
        target_xy=place,
        spread_px=spread_px,
        reason=f"{placement.reason}; a closer look moved it by {math.dist(placement.target_xy, place):.1f} px",
        moved_by=math.dist(place, placement.views.finding.target_xy),
        prior_px=None if predicted is None else math.dist(predicted, place),
    )


def _yielded(
    placements: Sequence[Placement], chosen: Sequence[int], known: Mapping[str, Point], *, patch_px: float
) -> list[Placement]:
    """Landmarks that were left without a place say so, and whose the one is that they like best."""
    owners = [(uuid, xy, 1.0) for uuid, xy in known.items()]
    owners += [(p.uuid, p.target_xy, p.confidence) for p, c in zip(placements, chosen, strict=True) if c != NOWHERE]
    told = []
    for placement, choice in zip(placements, chosen, strict=True):
        if choice != NOWHERE:
            told.append(placement)
            continue
        near = [(math.dist(xy, placement.target_xy), uuid, sure) for uuid, xy, sure in owners]
        distance, owner, sure = min(near, default=(math.inf, "", 0.0))
        if distance > SAME_PLACE * patch_px:
            state: State = "uncertain" if placement.state == "found" else placement.state
            reason = f"no place of the target is likelier than none at all; the best of them: {placement.reason}"
            told.append(replace(placement, state=state, reason=reason))
            continue
        confidence = min(placement.confidence, 1 - sure)
        absent = confidence <= placement.views.finding.calibration.absent
        told.append(
            replace(
                placement,
                taken_by=owner,
                confidence=confidence,
                state="absent" if absent else "uncertain",
                reason=f"the place it is most like was given to {owner}, and no other is likely",
            )
        )
    return told


def told_apart(placements: Sequence[Placement], others: Sequence[Point], *, patch_px: float) -> list[Placement]:
    """With the gap to the nearest other mark, and whether it is found with an expected error below half of it.

    Two that lie in one place are not told apart, however sharp their peaks.

    Args:
        placements: all of the target; those that are absent are near nothing.
        others: marks that the target has already, whoever put them there.
        patch_px: side of a patch, in target pixels.
    """
    marks = [*others, *(p.target_xy for p in placements if p.state != "absent")]
    there = torch.tensor(marks, dtype=torch.float64).reshape(-1, 2)
    told, own = [], len(others)
    for placement in placements:
        apart = torch.linalg.vector_norm(there - torch.tensor(placement.target_xy, dtype=torch.float64), dim=1)
        if placement.state != "absent":
            apart[own] = torch.inf
            own += 1
        gap = float(apart.min()) if len(apart) else math.inf
        apart_enough = gap > max(SAME_PLACE * patch_px, 2 * _expected_error(placement))
        safe = placement.state == "found" and apart_enough
        told.append(replace(placement, gap_px=gap if math.isfinite(gap) else None, identity_safe=safe))
    return told


def _expected_error(placement: Placement) -> float:
    """The deviation left when the peak's and the prior's are put together."""
    precision = 1 / placement.spread_px**2
    if placement.prior_sigma_px is not None:
        precision += 1 / placement.prior_sigma_px**2
    return 1 / math.sqrt(precision)


def _look_at(
    moved: Sequence[int],
    places: Sequence[Point],
    views: Sequence[Sequence[View]],
    references: Sequence[Reference],
    target_map: FeatureMap,
) -> dict[int, tuple[Cues, float]]:
    """The cues and the spread in target pixels of places that are not where the landmark looks best."""
    seen: dict[int, list[tuple[Cues, float, Finding]]] = {k: [] for k in moved}
    for r, reference in enumerate(references):
        mine = [(k, view.finding) for k in moved for view in views[k] if view.reference == r]
        if not mine:
            continue
        at = torch.tensor([places[k] for k, _ in mine], dtype=torch.float64)
        cues = _cues_at(at, [finding for _, finding in mine], reference, target_map)
        for (k, finding), (cue, spread) in zip(mine, cues, strict=True):
            seen[k].append((cue, spread, finding))
    radius = RADIUS * patch_side(target_map.grid)
    return {k: _of_views(said, places[k], radius=radius) for k, said in seen.items()}


def _of_views(said: Sequence[tuple[Cues, float, Finding]], place: Point, *, radius: float) -> tuple[Cues, float]:
    """Of several views as in `locate.views`: the median of each cue over those that agree, or over all if none does."""
    if len(said) == 1:
        return said[0][:2]
    weights = [1 + 2 * finding.confidence for _, _, finding in said]
    agrees = [math.dist(finding.target_xy, place) <= radius for _, _, finding in said]
    counted = [one for one, agree in zip(said, agrees, strict=True) if agree] or list(said)
    leads = [cues.lead for cues, _, _ in counted if cues.lead is not None]
    cues = Cues(
        lead=statistics.median(leads) if leads else None,
        cycle=statistics.median(cues.cycle for cues, _, _ in counted),
        entropy=statistics.median(cues.entropy for cues, _, _ in counted),
        views=max(1, sum(agrees)),
        agreement=sum(w for w, agree in zip(weights, agrees, strict=True) if agree) / sum(weights),
    )
    return cues, min(spread for _, spread, _ in counted)


def _cues_at(
    at: Tensor, findings: Sequence[Finding], reference: Reference, target_map: FeatureMap
) -> list[tuple[Cues, float]]:
    """Cues and spread of a place for each finding; the lead is negative where another place looks better."""
    grid, scored = findings[0].grid, findings[0].scored
    similarity = torch.stack([finding.similarity_map for finding in findings])
    values = in_deviations(similarity.flatten(1), scored.flatten())
    cells = grid.cells_of(at)
    centres = grid.cells_of(grid.centres())
    away = torch.cdist(cells, centres).masked_fill(~scored.flatten(), torch.nan)
    here = values.masked_fill(~(away <= 1), -torch.inf).amax(dim=1)
    rival = values.masked_fill(~(away > RADIUS), -torch.inf).amax(dim=1)
    shape = shape_about(similarity, scored, cells, reach=REACH)
    spread = torch.linalg.eigvalsh(shape.covariance)[:, -1].sqrt() * patch_side(grid)
    marks = torch.tensor([finding.source_xy for finding in findings], dtype=torch.float64)
    returned = match_back(target_map, reference.map, at, source_mask=reference.mask)
    cycle = torch.linalg.vector_norm(returned - marks, dim=1) / patch_side(reference.map.grid)
    return [
        (Cues(lead=a - b if math.isfinite(b) else None, cycle=c, entropy=e), s)
        for a, b, c, e, s in zip(
            here.tolist(), rival.tolist(), cycle.tolist(), shape.entropy.tolist(), spread.tolist(), strict=True
        )
    ]
