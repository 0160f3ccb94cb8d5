"""The tracklets of a gallery as linking sees them, who of them cannot be one person, and which are the same ones as
before when an episode is linked again.

Axes: n tracklets, t frames.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Bool, Float64
from numpy import ndarray

from patchatlas.reid.boxes import Observation, Tracklet
from patchatlas.reid.gallery.store import Store
from patchatlas.reid.link import LinkRules, barred_pairs
from patchatlas.reid.overlap import iou
from patchatlas.reid.portraits import SAME_PLACE_IOU, handover_frames, together

_AT_A_TIME = 500
"""Numbers in one question to SQLite, which has a limit (sqlite.org/limits.html, 9)."""


def read_tracklets(store: Store, numbers: Iterable[int]) -> dict[int, Tracklet]:
    """Tracklets by their number in the gallery, which they also carry."""
    wanted, found = sorted(numbers), {}
    for begin in range(0, len(wanted), _AT_A_TIME):
        part = wanted[begin : begin + _AT_A_TIME]
        marks = ", ".join("?" * len(part))
        rows = store.rows(
            "SELECT tracklet, frame, time_s, x0, y0, x1, y1, score, observations.label, tracklets.label "
            f"FROM observations JOIN tracklets ON tracklets.id = tracklet WHERE tracklet IN ({marks}) "
            "ORDER BY tracklet, frame",
            *part,
        )
        for number, own in groupby(rows, key=lambda row: row[0]):
            lines = list(own)
            seen = tuple(Observation(number, row[1], row[2], (*row[3:7],), row[7], row[8]) for row in lines)
            found[number] = Tracklet(number, lines[0][9], seen)
    return found


def of_source(store: Store, source: str) -> dict[int, int]:
    """The identity of each tracklet of a video that has one, by the tracklet's number."""
    return dict(
        store.rows(
            "SELECT tracklets.id, identity FROM tracklets JOIN sightings ON sightings.id = sighting "
            "JOIN episodes ON episodes.id = episode WHERE source = ? AND identity IS NOT NULL",
            source,
        )
    )


def barred_between(
    new: Sequence[Tracklet], old: Sequence[Tracklet], *, rules: LinkRules, seconds_a_frame: float
) -> Bool[ndarray, "_n _m"]:
    """Which tracklets of a video cannot be one object with which that were found in it before.

    Those that lie on each other in most of the frames that they share are the same thing, found twice.
    """
    if not new or not old:
        return np.zeros((len(new), len(old)), dtype=bool)
    barred = barred_pairs([*new, *old], rules=rules, seconds_a_frame=seconds_a_frame)[: len(new), len(new) :].numpy()
    for one, other in zip(*(side.tolist() for side in np.nonzero(barred)), strict=True):
        shared, on_top = _shared(new[one], old[other])
        if 2 * on_top > shared:
            barred[one, other] = False
    return barred


def seen_together(store: Store, ones: Iterable[int], others: Iterable[int]) -> list[tuple[int, int]]:
    """Pairs of tracklets, by number, one of each kind, that are seen together in one video and so are two people."""
    ones, others = list(ones), list(others)
    source = dict(
        store.rows(
            "SELECT tracklets.id, source FROM tracklets JOIN sightings ON sightings.id = sighting "
            "JOIN episodes ON episodes.id = episode"
        )
    )
    shared = {source[number] for number in ones} & {source[number] for number in others}
    tracklets = read_tracklets(store, [number for number in {*ones, *others} if source[number] in shared])
    pairs = []
    for one in ones:
        for other in others:
            if one in tracklets and other in tracklets and source[one] == source[other]:
                both = [tracklets[one], tracklets[other]]
                count, on_top = _shared(*both)
                if count and 2 * on_top <= count and bool(together(both, tolerance=handover_frames(both))[0, 1]):
                    pairs.append((one, other))
    return pairs


def heirs(old: Mapping[int, Tracklet], new: Mapping[int, Tracklet]) -> dict[int, int]:
    """For each new tracklet of an episode the old one that it shows most of, where it shows enough of one.

    Boxes of the old one are read between its own at the times of the new one, so that both need not be of the same
    frames. Enough is `SAME_PLACE_IOU` in more than half of the boxes of the new one, or of the old one.
    """
    found = {}
    for number, tracklet in new.items():
        counts: Counter[int] = Counter()
        for before, other in old.items():
            on_top = int((_iou_in_time(tracklet, other) >= SAME_PLACE_IOU).sum())
            if 2 * on_top > min(len(tracklet.observations), len(other.observations)):
                counts[before] = on_top
        if counts:
            found[number] = min(counts, key=lambda before: (-counts[before], before))
    return found


def _shared(one: Tracklet, other: Tracklet) -> tuple[int, int]:
    """Frames that two tracklets share, and in how many of them one lies on the other."""
    first, second = ({seen.frame: seen.box for seen in tracklet.observations} for tracklet in (one, other))
    frames = sorted(first.keys() & second.keys())
    if not frames:
        return 0, 0
    boxes = (torch.tensor([own[frame] for frame in frames], dtype=torch.float64) for own in (first, second))
    return len(frames), int((iou(*boxes).diagonal() >= SAME_PLACE_IOU).sum())


def _iou_in_time(one: Tracklet, other: Tracklet) -> Float64[ndarray, " t"]:
    """IoU of each box of one with the box that the other has at that time, 0 where it is not there."""
    times = np.array([seen.time_s for seen in one.observations])
    boxes = np.array([seen.box for seen in one.observations])
    theirs = np.array([seen.time_s for seen in other.observations])
    inside = (times >= theirs[0] - 1e-6) & (times <= theirs[-1] + 1e-6)
    if not inside.any():
        return np.zeros(len(times))
    sides = [np.interp(times, theirs, [seen.box[k] for seen in other.observations]) for k in range(4)]
    there = np.stack(sides, axis=1)
    start, end = np.maximum(boxes[:, :2], there[:, :2]), np.minimum(boxes[:, 2:], there[:, 2:])
    both = (end - start).clip(min=0).prod(axis=1)
    either = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (there[:, 2:] - there[:, :2]).prod(axis=1) - both
    return np.where(inside, both / either, 0.0)
