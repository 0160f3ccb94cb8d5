"""Who of the gallery somebody is: one that it knows, somebody new, or not to be said; for all of an episode at once.

Those of one episode who cannot be one person cannot be one of the gallery either, so they are given out together: the
most alike first, then put right by moves and exchanges as long as the sum of (cosine - threshold) grows. A choice is
sure if p(same) reaches a target and the next best way to give them out is worse by a margin; it is somebody new if
nobody in the gallery reaches p(same) of one half. Whatever lies between is unknown, and left to a person.

Axes: g of the episode, i of the gallery.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from patchatlas.errors import UsageError

Verdict = Literal["known", "new", "unknown"]

_LEAST_GAIN = 1e-9


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When somebody is named.

    Attributes:
        named: cosine from which somebody is named, where p(same) reaches the target.
        stranger: cosine below which nobody in the gallery is meant, where p(same) is one half.
        margin: cosine by which the next best way must be worse.

    Raises:
        UsageError: `named` is below `stranger`, or a negative margin.
    """

    named: float
    stranger: float
    margin: float

    def __post_init__(self) -> None:
        if not self.stranger <= self.named or self.margin < 0:
            raise UsageError(f"named is at least stranger, and margin 0 or more, given {self}")


@dataclass(frozen=True)
class Decision:
    """What is said of one of an episode.

    Attributes:
        verdict: known, new or unknown.
        candidate: place in the gallery of whom they resemble most, of those that they can be; None without any.
        likeness: cosine with that one.
        rival: the next best, None without any.
        margin: by how much the next best way to give out is worse; None where there is no other.
        why: in words.
    """

    verdict: Verdict
    candidate: int | None
    likeness: float | None
    rival: int | None
    margin: float | None
    why: str


def decide(
    likeness: Float64[ndarray, "g i"],
    barred: Bool[ndarray, "g i"],
    apart: Bool[ndarray, "g g"],
    *,
    limits: Limits,
) -> list[Decision]:
    """Decide on all of an episode.

    Args:
        likeness: cosine of each with each of the gallery; -inf where they were not compared.
        barred: who cannot be whom.
        apart: who of the episode cannot be one person, symmetric.
    """
    alike = np.where(barred, -np.inf, likeness)
    given = give_out(alike, apart, floor=limits.stranger)
    return [_decision(k, alike, apart, given, limits) for k in range(len(alike))]


def give_out(alike: Float64[ndarray, "g i"], apart: Bool[ndarray, "g g"], *, floor: float) -> list[int | None]:
    """Give each of the episode one of the gallery, or none where no cosine reaches `floor`, such that those who are
    apart get different ones and the sum of (cosine - floor) is as large as moves and exchanges make it."""
    g, i = alike.shape
    given: list[int | None] = [None] * g
    if not i:
        return given
    order = np.argsort(-alike, axis=None, kind="stable").tolist()
    for who, whom in (divmod(place, i) for place in order):
        if alike[who, whom] < floor:
            break
        if given[who] is None and _free(who, whom, given, apart):
            given[who] = whom
    while True:
        steps = [*_moves(alike, apart, given, floor), *_exchanges(alike, apart, given, floor)]
        gain, step = max(steps, key=lambda one: one[0], default=(0.0, {}))
        if gain <= _LEAST_GAIN:
            return given
        for who, place in step.items():
            given[who] = place


Step = tuple[float, dict[int, int | None]]
"""What is gained, and who then gets whom."""


def _moves(alike: ndarray, apart: ndarray, given: Sequence[int | None], floor: float) -> list[Step]:
    """Somebody gets another one who is free."""
    return [
        (float(alike[who, whom]) - _worth(alike, who, given[who], floor), {who: whom})
        for who, whom in zip(*(side.tolist() for side in np.nonzero(alike >= floor)), strict=True)
        if whom != given[who] and _free(who, whom, given, apart)
    ]


def _exchanges(alike: ndarray, apart: ndarray, given: Sequence[int | None], floor: float) -> list[Step]:
    """Somebody gets whom another one has, and that one gets the best that is then free, or nobody."""
    steps: list[Step] = []
    for who, other in zip(*(side.tolist() for side in np.nonzero(apart)), strict=True):
        theirs = given[other]
        if theirs is None or alike[who, theirs] < floor:
            continue
        before = _worth(alike, who, given[who], floor) + _worth(alike, other, theirs, floor)
        after = list(given)
        after[who], after[other] = theirs, None
        if _free(who, theirs, after, apart):
            back = _best_free(other, after, alike, apart, floor)
            gain = float(alike[who, theirs]) + _worth(alike, other, back, floor) - before
            steps.append((gain, {who: theirs, other: back}))
    return steps


def _best_free(who: int, given: Sequence[int | None], alike: ndarray, apart: ndarray, floor: float) -> int | None:
    """The one most like somebody, from `floor` on, whom nobody apart from them has."""
    free = [whom for whom in np.nonzero(alike[who] >= floor)[0].tolist() if _free(who, whom, given, apart)]
    return max(free, key=lambda whom: float(alike[who, whom]), default=None)


def _decision(who: int, alike: ndarray, apart: ndarray, given: Sequence[int | None], limits: Limits) -> Decision:
    open_to = [whom for whom in np.argsort(-alike[who], kind="stable").tolist() if alike[who, whom] > -np.inf]
    got = given[who]
    if got is None:
        free = [whom for whom in open_to if _free(who, whom, given, apart)]
        best = free[0] if free else None
        if best is None:
            why = "the gallery has nobody else that this can be" if alike.shape[1] else "the gallery was empty"
            return Decision("new", None, None, None, None, why)
        rival = free[1] if len(free) > 1 else None
        return Decision("new", best, float(alike[who, best]), rival, None, "unlike everybody in the gallery")
    cosine = float(alike[who, got])
    others = [whom for whom in open_to if whom != got]
    losses = {whom: cosine - _otherwise(who, whom, alike, apart, given, limits.stranger) for whom in others}
    rival = min(losses, key=lambda whom: (losses[whom], whom), default=None)
    # Those seen with it who have nobody, and could have this one.
    claims = [
        cosine - float(alike[other, got])
        for other in np.nonzero(apart[who])[0].tolist()
        if given[other] is None and alike[other, got] > -np.inf
    ]
    margin = min([*losses.values(), *claims], default=None)
    if cosine < limits.named:
        return Decision("unknown", got, cosine, rival, margin, "not alike enough to be sure")
    if margin is not None and margin < limits.margin:
        return Decision(
            "unknown", got, cosine, rival, margin, "as much like somebody else, or somebody else as much like it"
        )
    return Decision("known", got, cosine, rival, margin, "alike enough, and more than anybody else")


def _otherwise(who: int, whom: int, alike: ndarray, apart: ndarray, given: Sequence[int | None], floor: float) -> float:
    """What the cosine of `who` with `whom` is worth, less what it costs those who have `whom` and must then take the
    best that is free, or nobody."""
    after = [None if theirs == whom and apart[who, other] else theirs for other, theirs in enumerate(given)]
    after[who] = whom
    worth = float(alike[who, whom])
    for other, theirs in enumerate(given):
        if other != who and theirs is not None and after[other] is None:
            after[other] = _best_free(other, after, alike, apart, floor)
            worth -= float(alike[other, theirs]) - _worth(alike, other, after[other], floor)
    return worth


def _free(who: int, whom: int, given: Sequence[int | None], apart: ndarray) -> bool:
    """Whether nobody who is apart from `who` has `whom`."""
    return not any(theirs == whom and other != who and apart[who, other] for other, theirs in enumerate(given))


def _worth(alike: ndarray, who: int, whom: int | None, floor: float) -> float:
    return floor if whom is None else float(alike[who, whom])
