"""Why tracks were put together and others kept apart: of each pair the looks, and what the rules say of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from patchatlas.reid.boxes import Tracklet
from patchatlas.reid.calibrate import Calibration
from patchatlas.reid.portraits import Portrait, likeness

Apart = Mapping[tuple[int, int], str]
"""Pairs that cannot be one object, lower number first, and why: `together`, `label` or `speed`."""


@dataclass(frozen=True)
class Gate:
    """What a rule says of a pair.

    Attributes:
        passed: whether the two may be one object, as far as this rule goes.
        words: what it found.
    """

    passed: bool
    words: str


@dataclass(frozen=True)
class Pair:
    """Two tracks.

    Attributes:
        one, other: their numbers; `one` is the one that the pair is told of.
        likeness: cosine of their pooled vectors.
        chance: p(same) of that; None without calibration.
        gates: of each rule that was asked: one that bars the pair stands alone.
    """

    one: int
    other: int
    likeness: float
    chance: float | None
    gates: tuple[Gate, ...]


@dataclass(frozen=True, eq=False)
class Case:
    """One identity and what speaks for and against it.

    Attributes:
        identity: its number.
        tracks: its tracks that have a vector, in time order.
        cosines: of each pair of `tracks`.
        joins: the pairs that hold it together: each track after the first with the one that it is tied to in the tree
            of highest cosines, in the order in which the tree grows from the first.
        apart: the likest pairs of one of its tracks and somebody else's among those that no looks could join.
    """

    identity: int
    tracks: tuple[int, ...]
    cosines: Float64[Tensor, "n n"]
    joins: tuple[Pair, ...]
    apart: tuple[Pair, ...]


def cases(
    portraits: Sequence[Portrait],
    identities: Mapping[int, int],
    apart: Apart,
    *,
    calibration: Calibration | None = None,
    most_apart: int = 6,
) -> tuple[Case, ...]:
    """The case of each identity, by its number.

    Args:
        portraits: of one video.
        identities: of the tracks that have one.
        apart: which pairs the rules barred.
        calibration: turns cosines into p(same).
        most_apart: pairs kept in `Case.apart`.
    """
    order = sorted(portraits, key=lambda one: (one.tracklet.observations[0].frame, one.tracklet.id))
    known = [one for one in order if one.frames]
    alike = likeness(known) if known else torch.zeros(0, 0, dtype=torch.float64)
    numbers = [one.tracklet.id for one in known]
    owner = [identities.get(number) for number in numbers]

    def barred(a: int, b: int) -> str | None:
        return apart.get((min(numbers[a], numbers[b]), max(numbers[a], numbers[b])))

    def pair(a: int, b: int) -> Pair:
        chance = None if calibration is None else float(calibration.chance(alike[a, b]))
        gates = _gates(known[a].tracklet, known[b].tracklet, barred(a, b))
        return Pair(numbers[a], numbers[b], float(alike[a, b]), chance, gates)

    found = []
    for identity in sorted(set(identities.values())):
        own = [k for k in range(len(known)) if owner[k] == identity]
        rest = [k for k in range(len(known)) if owner[k] != identity]
        rivals = [(a, b) for a in own for b in rest if barred(a, b) is not None]
        rivals.sort(key=lambda ab: -float(alike[ab]))
        table = alike[own][:, own]
        joins = tuple(pair(own[a], own[b]) for a, b in _tree(table))
        kept_apart = tuple(pair(a, b) for a, b in rivals[:most_apart])
        found.append(Case(identity, tuple(numbers[k] for k in own), table, joins, kept_apart))
    return tuple(found)


def _tree(alike: Float64[Tensor, "n n"]) -> list[tuple[int, int]]:
    """The tree of highest cosines, grown from the first (Prim, 1957): what is new, and what it is tied to."""
    inside, outside = [0], list(range(1, len(alike)))
    edges = []
    while outside:
        new, old = max(((new, old) for new in outside for old in inside), key=lambda edge: float(alike[edge]))
        edges.append((new, old))
        outside.remove(new)
        inside.append(new)
    return edges


def _gates(one: Tracklet, other: Tracklet, why: str | None) -> tuple[Gate, ...]:
    shared = len({seen.frame for seen in one.observations} & {seen.frame for seen in other.observations})
    frames = f"in {shared} frame{'' if shared == 1 else 's'}"
    told = {
        "together": f"seen at the same time {frames}",
        "label": f"{one.label} and {other.label}",
        "speed": "too far apart for the time between",
    }
    if why is not None:
        return (Gate(False, told.get(why, why)),)
    met = f"at the same time {frames} only, touching: handed over late" if shared else "never seen at the same time"
    labels = f"both {one.label}" if one.label == other.label else f"{one.label} and {other.label}, which is allowed"
    return (Gate(True, met), Gate(True, labels))
