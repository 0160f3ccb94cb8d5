"""Cut tracklets that jump from one object to another, as trackers make them where people cross.

A cut can be only where the tracker may have gone wrong: where the box touches another one, or where boxes are missing.
Of those places the best is where the looks before and after differ most for the crops that they rest on. A part may be
cut again, and linking puts together what should not have been cut. An excursion to something else and back shows only
if it outweighs what comes after it.

Axes: k crops of a tracklet in time order, d features.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F

from patchatlas.errors import UsageError
from patchatlas.reid.boxes import Box, Tracklet
from patchatlas.reid.overlap import areas, intersections
from patchatlas.reid.portraits import Portrait

LEAST_CROPS = 3
"""On either side of a cut; fewer may just be hidden by somebody."""

TOUCH = 0.1
"""Share of the smaller of two boxes that the other covers, from which a tracker may take one for the other."""

LEAST_GAP = 2
"""Missing boxes in a row that may hide an exchange."""


@dataclass(frozen=True)
class Cut:
    """One cut.

    Attributes:
        tracklet: number of the tracklet that was cut; it keeps its number up to the cut.
        new: number of the part from the cut on.
        frame: first frame of that part.
        likeness: cosine of the looks before and after.
    """

    tracklet: int
    new: int
    frame: int
    likeness: float


def split_impure(portraits: Sequence[Portrait], *, below: float) -> tuple[list[Portrait], list[Cut]]:
    """Cut every tracklet in which the looks before and after some moment have a cosine below `below`.

    Args:
        portraits: of one video; new numbers follow their highest.
        below: such as the cosine at which p(same) is one half.

    Returns:
        The portraits, parts in the place of what was cut, and the cuts.

    Raises:
        UsageError: `below` is no cosine.
    """
    if not -1 <= below <= 1:
        raise UsageError(f"a cosine lies in -1..1, given {below}")
    numbers = max((portrait.tracklet.id for portrait in portraits), default=0)
    done: list[Portrait] = []
    cuts: list[Cut] = []
    for portrait, doubtful in zip(portraits, doubtful_frames([one.tracklet for one in portraits]), strict=True):
        waiting = [portrait]
        while waiting:
            whole = waiting.pop(0)
            at, likeness = best_cut(whole, doubtful)
            if at is None or likeness >= below:
                done.append(whole)
                continue
            numbers += 1
            before, after = _parts(whole, at, numbers)
            cuts.append(Cut(whole.tracklet.id, numbers, after.tracklet.observations[0].frame, likeness))
            waiting = [before, after, *waiting]
    return done, cuts


def doubtful_frames(tracklets: Sequence[Tracklet]) -> list[frozenset[int]]:
    """For each tracklet the frames in which the tracker may have gone over to something else.

    Those are frames in which its box and that of another tracklet touch, by `TOUCH`, and gaps of `LEAST_GAP` frames or
    more between its own boxes, both ends included.
    """
    by_frame: dict[int, list[tuple[int, Box]]] = {}
    for index, tracklet in enumerate(tracklets):
        for seen in tracklet.observations:
            by_frame.setdefault(seen.frame, []).append((index, seen.box))
    doubtful: list[set[int]] = [set() for _ in tracklets]
    for frame, entries in by_frame.items():
        boxes = torch.tensor([box for _, box in entries], dtype=torch.float64)
        smaller = torch.minimum(areas(boxes)[:, None], areas(boxes)[None, :])
        touching = (intersections(boxes, boxes) / smaller).fill_diagonal_(0).amax(dim=1) >= TOUCH
        for (index, _), touches in zip(entries, touching.tolist(), strict=True):
            if touches:
                doubtful[index].add(frame)
    for index, tracklet in enumerate(tracklets):
        frames = [seen.frame for seen in tracklet.observations]
        for before, after in pairwise(frames):
            if after - before > LEAST_GAP:
                doubtful[index].update((before, after))
    return [frozenset(frames) for frames in doubtful]


def best_cut(portrait: Portrait, doubtful: frozenset[int]) -> tuple[int | None, float]:
    """The crop that a cut would best come before, and the cosine of the two sides; None where there can be no cut.

    Among all cuts the one with the largest gap between the two sides, as Ward's criterion has it: the squared distance
    of the means times the harmonic mean of the weights.

    Args:
        portrait: what may be cut.
        doubtful: frames in which it may be; a cut needs one between the two crops beside it, or next to them.
    """
    count, frames = len(portrait.frames), portrait.frames
    places = [
        at
        for at in range(LEAST_CROPS, count - LEAST_CROPS + 1)
        if any(frames[at - 1] - 1 <= frame <= frames[at] + 1 for frame in doubtful)
    ]
    if not places:
        return None, 1.0
    weights, cuts = portrait.weights.double(), torch.tensor(places)
    sums = (portrait.vectors.double() * weights[:, None]).cumsum(dim=0)
    mass = weights.cumsum(dim=0)
    before, after = sums[cuts - 1], sums[-1] - sums[cuts - 1]
    left, right = mass[cuts - 1], mass[-1] - mass[cuts - 1]
    gaps = (before / left[:, None] - after / right[:, None]).square().sum(dim=1) * left * right / (left + right)
    best = int(gaps.argmax())
    return places[best], float(F.cosine_similarity(before[best], after[best], dim=0))


def _parts(portrait: Portrait, at: int, number: int) -> tuple[Portrait, Portrait]:
    """Before and after, cut halfway between the two crops on either side."""
    last, first = portrait.frames[at - 1], portrait.frames[at]
    moment = (last + first + 1) / 2
    seen = portrait.tracklet.observations
    before = tuple(one for one in seen if one.frame < moment)
    after = tuple(replace(one, track=number) for one in seen if one.frame >= moment)
    label = portrait.tracklet.label
    return (
        Portrait(
            Tracklet(portrait.tracklet.id, label, before),
            portrait.frames[:at],
            portrait.vectors[:at],
            portrait.weights[:at],
        ),
        Portrait(Tracklet(number, label, after), portrait.frames[at:], portrait.vectors[at:], portrait.weights[at:]),
    )
