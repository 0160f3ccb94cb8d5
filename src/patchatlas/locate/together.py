"""Many landmarks of one target together: appearance, where the others say each should be, and one place for one mark.

A landmark that looks like several places, or like the place of another, is settled by the company it keeps. First each
is looked for by itself in every reference that has it. Those that are likely found give each reference a smooth map to
the target (`locate.expectation`). Every patch of the target is then scored anew for every landmark, by likeness and by
distance from where the maps put it (`matching.belief`), so that a place that was not even a runner-up can win; and the
best of these places are shared out so that no two landmarks get the same one (`locate.candidates`). With what was found
so, once more. What comes of it is described in `locate.placement`.

Points are (x, y) in the source plane of their own picture.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from patchatlas.errors import LandmarkError, ShapeError
from patchatlas.features import FeatureMap
from patchatlas.locate.candidates import find_candidates, look, share_out
from patchatlas.locate.expectation import Anchor, Expectation, expect
from patchatlas.locate.placement import ReferencePrior, Together
from patchatlas.locate.placing import View, place_all
from patchatlas.locate.reference import Reference
from patchatlas.locate.result import Point
from patchatlas.locate.search import locate_points, patch_side
from patchatlas.locate.views import meet_views
from patchatlas.matching.confidence import Calibration

ROUNDS = 3
"""Times that maps are fitted and places shared out by them."""

LIKELY = 0.5
"""Least probability of a place among all of its landmark, and none, for it to be a likely one."""


def locate_together(
    references: Sequence[Reference],
    target_map: FeatureMap,
    *,
    uuids: Sequence[str] | None = None,
    known: Mapping[str, Point] | None = None,
    target_mask: Bool[Tensor, "rows cols"] | None = None,
    image_size: int,
    calibration: Calibration | None = None,
) -> Together:
    """Find many landmarks, known in several references, in one target; no two in the same place.

    All landmarks of the references are looked for, whichever are asked for: each helps to place the others.

    Args:
        references: encoded pictures with marks, made in the same way as the target's map.
        target_map: of the target, a picture.
        uuids: landmarks to tell of; all that the references have and `known` has not, if not given.
        known: marks that the target has already, in target pixels: they keep their places, and the maps go by them.
        target_mask: patches of the target that may be an answer or a rival; all if not given.
        image_size: long side of all encoder inputs, for the record.
        calibration: makes probabilities of cues; that of the encoder if not given.

    Raises:
        ShapeError: no reference, not a picture, or no patch may be an answer.
        LandmarkError: a landmark asked for that no reference has, that is known already, or asked for twice.
        StampError: maps made in different ways.
    """
    if not references or len(target_map.grid.shape) != 2:
        raise ShapeError(
            f"{len(references)} references and a target with {len(target_map.grid.shape)} axes; "
            "give at least one reference, and pictures"
        )
    known = known or {}
    there = dict.fromkeys(uuid for reference in references for uuid in reference.uuids)
    _require_sought(uuids or (), there, known)
    views: dict[str, list[View]] = {uuid: [] for uuid in there if uuid not in known}
    for r, reference in enumerate(references):
        rows = [n for n, uuid in enumerate(reference.uuids) if uuid in views]
        findings = locate_points(
            reference.map,
            target_map,
            reference.points_source[rows],
            uuids=[reference.uuids[n] for n in rows],
            image_size=image_size,
            calibration=calibration,
            target_mask=target_mask,
            source_mask=reference.mask,
        )
        for finding in findings:
            views[finding.uuid].append(View(r, finding))
    if not views:
        said = "all of its marks are known in the target"
        return Together((), tuple(ReferencePrior(one.name, None, 0, len(one.uuids), said) for one in references))
    together = _place(references, target_map, views, known)
    if uuids is None:
        return together
    placed = {placement.uuid: placement for placement in together.placements}
    return Together(tuple(placed[uuid] for uuid in uuids), together.priors)


def _place(
    references: Sequence[Reference],
    target_map: FeatureMap,
    views: Mapping[str, Sequence[View]],
    known: Mapping[str, Point],
) -> Together:
    sought = list(views)
    looks = look([[view.finding for view in views[uuid]] for uuid in sought])
    sure = [Anchor(uuid, tuple(xy), sure=True, likely=True) for uuid, xy in known.items()]
    taken = torch.tensor([anchor.target_xy for anchor in sure], dtype=torch.float64).reshape(-1, 2)
    expected = Expectation.nothing(len(sought), len(references))
    candidates = find_candidates(looks, expected.predicted, expected.deviation)
    chosen = share_out(candidates, looks, taken=taken).tolist()
    for _ in range(ROUNDS):
        shares = candidates.shares(nowhere=looks.nowhere)
        found = [
            Anchor(
                uuid,
                tuple(candidates.places[k, max(choice, 0)].tolist()),
                sure=False,
                likely=choice >= 0 and bool(shares[k, choice] >= LIKELY),
            )
            for k, (uuid, choice) in enumerate(zip(sought, chosen, strict=True))
        ]
        expected = expect(references, sure + found, sought, looks, tolerance=patch_side(target_map.grid))
        candidates = find_candidates(looks, expected.predicted, expected.deviation)
        chosen = share_out(candidates, looks, taken=taken).tolist()
    met = [
        meet_views([view.finding for view in views[uuid]], views=[references[v.reference].name for v in views[uuid]])
        for uuid in sought
    ]
    placements = place_all(
        met,
        [views[uuid] for uuid in sought],
        candidates,
        chosen,
        expected,
        references=references,
        target_map=target_map,
        known=known,
    )
    return Together(tuple(placements), expected.priors)


def _require_sought(uuids: Sequence[str], there: Mapping[str, None], known: Mapping[str, Point]) -> None:
    for problem, wrong in (
        ("no reference has", [uuid for uuid in uuids if uuid not in there]),
        ("the target already has", [uuid for uuid in uuids if uuid in known]),
        ("these are asked for more than once:", [uuid for n, uuid in enumerate(uuids) if uuid in uuids[:n]]),
    ):
        if wrong:
            raise LandmarkError(f"{problem} {', '.join(wrong)}; leave them out")
