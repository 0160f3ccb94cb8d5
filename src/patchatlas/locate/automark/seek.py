"""Look for the missing marks of one photo from all references at once, and put what was found into plain values."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from patchatlas.encoders.protocol import Encoder
from patchatlas.geometry.turns import Turn
from patchatlas.io.images import MAX_PIXELS
from patchatlas.io.landmarks import continuous_point, mel_point
from patchatlas.locate.automark.answer import Answer
from patchatlas.locate.automark.photos import Laid, Photo, read_planned
from patchatlas.locate.automark.plan import Pixel, Reference, Target
from patchatlas.locate.candidates import SAME_PLACE
from patchatlas.locate.closer import look_closer
from patchatlas.locate.placement import Placement
from patchatlas.locate.placing import moved_to, told_apart
from patchatlas.locate.recipe import Recipe
from patchatlas.locate.reference import Reference as Shown
from patchatlas.locate.result import Point
from patchatlas.locate.search import patch_side
from patchatlas.locate.together import locate_together
from patchatlas.locate.turning import best_fit
from patchatlas.matching.turns import match_maps
from patchatlas.matching.verdict import State


def seek(
    target: Target,
    photo: Photo,
    references: Sequence[tuple[Reference, Photo]],
    missing: Sequence[str],
    *,
    encoder: Encoder,
    recipe: Recipe,
    proposes: Callable[[State, float], bool],
    max_pixels: int = MAX_PIXELS,
) -> tuple[Answer, ...]:
    """Answers for the missing marks of a photo, in the order given.

    The maps go by the marks of the photo that a person confirmed. Those that nobody confirmed are no evidence of where
    others are, but they are rivals: a mark that is put on one of them is not safe, and proposed only where uncertain
    ones are.

    Args:
        target: the photo as planned.
        photo: its map.
        references: photos with marks, and their maps; of several ways that one is laid down the best is taken.
        missing: uuids to look for, each in at least one reference.
        encoder: that made the maps.
        recipe: how to look.
        proposes: whether a mark of this state and confidence is proposed.
        max_pixels: larger photos are refused, where the recipe wants a closer look at them.

    Raises:
        StampError: maps that were made in different ways.
        PictureError: a closer look is wanted at a photo that cannot be read any more, or has changed.
    """
    (there,) = photo.laid
    laid = {reference.name: _best(one, there) for reference, one in references}
    known, guessed = _points(target.confirmed), _points(target.guessed)
    together = locate_together(
        [_shown(reference, laid[reference.name]) for reference, _ in references],
        there.map,
        uuids=missing,
        known=known,
        target_mask=there.mask,
        image_size=recipe.image_size,
    )
    patch_px = patch_side(there.map.grid)
    placements: Sequence[Placement] = together.placements
    if recipe.closer:
        seen: dict[str, tuple[Point, float]] = {}
        for reference, _ in references:
            from_it = [one for one in together.placements if _view(one) == reference.name and one.state != "absent"]
            findings = [replace(one.views.finding, target_xy=one.target_xy, runners_up=()) for one in from_it]
            if findings:
                closer = look_closer(
                    findings,
                    read_planned(reference, max_pixels=max_pixels).pixels,
                    laid[reference.name].map,
                    read_planned(target, max_pixels=max_pixels).pixels,
                    there.map,
                    encoder,
                    recipe,
                )
                seen |= {finding.uuid: (finding.target_xy, finding.spread_px) for finding in closer}
        placements = moved_to(placements, seen, known, patch_px=patch_px)
    placements = told_apart(placements, [*known.values(), *guessed.values()], patch_px=patch_px)
    answers = [_answer(one, target, laid[_view(one)].turn) for one in placements]
    return _propose(answers, proposes, known, guessed, same=SAME_PLACE * patch_px)


def _propose(
    answers: Sequence[Answer],
    proposes: Callable[[State, float], bool],
    known: Mapping[str, Point],
    guessed: Mapping[str, Point],
    *,
    same: float,
) -> tuple[Answer, ...]:
    """Which are proposed: no two in one place, the found and surest first, and none where a confirmed mark is."""
    taken = dict(known)
    proposed: dict[str, Answer] = {}
    for one in sorted(answers, key=lambda one: (one.state != "found", -one.confidence, one.uuid)):
        owner, guess = (_within(same, one.target_xy, marks) for marks in (taken, guessed))
        wanted = proposes("uncertain" if guess is not None and one.state == "found" else one.state, one.confidence)
        if one.state != "absent" and owner is not None:
            wanted, one = False, replace(one, reason=f"{one.reason}; not proposed: {owner} is in that place")
        elif one.state != "absent" and guess is not None:
            one = replace(one, reason=f"{one.reason}; the unconfirmed mark {guess} is in that place")
        if wanted:
            taken[one.uuid] = one.target_xy
        proposed[one.uuid] = replace(one, proposed=wanted)
    return tuple(proposed[one.uuid] for one in answers)


def _within(distance: float, place: Point, marks: Mapping[str, Point]) -> str | None:
    """The nearest mark within a distance, if there is one."""
    away, uuid = min(((math.dist(xy, place), uuid) for uuid, xy in marks.items()), default=(math.inf, ""))
    return uuid if away <= distance else None


def _view(placement: Placement) -> str:
    """Name of the reference that agrees best."""
    return placement.views.votes[placement.views.best].view


def _answer(
    placement: Placement,
    target: Target,
    turn: Turn,
) -> Answer:
    """What is plain about a placement; `_propose` says whether it is proposed."""
    x, y = placement.target_xy
    return Answer(
        uuid=placement.uuid,
        state=placement.state,
        confidence=placement.confidence,
        reason=placement.reason,
        proposed=False,
        target_xy=(x, y),
        mel=mel_point(x, y, size_hw=target.size_hw),
        spread_px=placement.spread_px,
        source=_view(placement),
        source_xy=_flat(placement.views.finding.source_xy),
        turn=turn,
        views=len(placement.views.votes),
        rank=placement.rank,
        predicted_xy=None if placement.predicted_xy is None else _flat(placement.predicted_xy),
        prior_px=placement.prior_px,
        prior_sigma_px=placement.prior_sigma_px,
        gap_px=placement.gap_px,
        identity_safe=placement.identity_safe,
    )


def _flat(point: Point) -> tuple[float, float]:
    x, y = point
    return x, y


def _best(photo: Photo, there: Laid) -> Laid:
    """The way to lay a reference down that fits the photo best; upright unless another fits clearly better."""
    if len(photo.laid) == 1:
        return photo.laid[0]
    return best_fit(
        (match_maps(one.map, there.map, source_mask=one.mask, target_mask=there.mask), one) for one in photo.laid
    )


def _shown(reference: Reference, laid: Laid) -> Shown:
    points = torch.tensor(list(_points(reference.marks).values()), dtype=torch.float64)
    return Shown(reference.name, laid.map, tuple(reference.marks), points, laid.mask)


def _points(marks: Mapping[str, Pixel]) -> dict[str, Point]:
    return {uuid: continuous_point(*pixel) for uuid, pixel in marks.items()}
