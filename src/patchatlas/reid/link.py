"""Which tracklets are one identity: average linkage of looks, with what cannot be kept apart, then put right by swaps.

First the tracklets that were seen well enough to stand for somebody are linked. Two groups are joined while the mean
cosine between them is at or above the threshold, most alike first, and never if any two of their tracklets cannot be
one object: seen together, of another class, or too far apart for the time between them. Joining greedily cannot undo a
wrong step, so afterwards single tracklets move, and pairs that exclude each other change places, as long as the sum
over linked pairs of (cosine - threshold) grows (correlation clustering, Bansal et al. 2004). Then tracklets seen too
briefly join the identity that they resemble, or stay unknown.

Axes: n tracklets, g groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64
from numpy import ndarray
from torch import Tensor

from patchatlas.errors import ShapeError, UsageError
from patchatlas.reid.boxes import Observation, Tracklet
from patchatlas.reid.calibrate import Calibration
from patchatlas.reid.portraits import Portrait, likeness, second_boxes, together

FULL_WORTH = 20.0
"""Good boxes from which more of them do not make a tracklet count more."""

_LEAST_GAIN = 1e-9

Table = Float64[ndarray, "n n"]
Flags = Bool[ndarray, "n n"]
Groups = list[int]
"""Group of each tracklet."""


@dataclass(frozen=True, kw_only=True)
class LinkRules:
    """What can be one identity.

    Attributes:
        tolerance: frames that two tracklets of one object may share, touching, where a tracker hands over late.
        same_label: only tracklets of one class are linked.
        top_speed: fastest that an object moves, in its own heights a second; None for no limit.
        least_worth: good boxes that a tracklet needs to stand for somebody; one of half the usual quality counts half.
        sure: p(same) below which a link, and from 1 - `sure` on a missing link, is listed for review.
        margin: cosine by which an identity must lead the runner-up not to be listed.

    Raises:
        UsageError: a number outside its range.
    """

    tolerance: int = 5
    same_label: bool = True
    top_speed: float | None = None
    least_worth: float = 15.0
    sure: float = 0.8
    margin: float = 0.03

    def __post_init__(self) -> None:
        if self.tolerance < 0 or self.least_worth < 0 or self.margin < 0:
            raise UsageError(f"tolerance, least_worth and margin are 0 or more, given {self}")
        if self.top_speed is not None and not self.top_speed > 0:
            raise UsageError(f"top_speed is above 0, or None for no limit, given {self.top_speed}")
        if not 0.5 <= self.sure <= 1:
            raise UsageError(f"sure is a probability of 0.5..1, given {self.sure}")


@dataclass(frozen=True)
class Reason:
    """Why a tracklet has its identity.

    Attributes:
        tracklet: which.
        identity: the one it has.
        likeness: mean cosine with the other tracklets of it; None where it is the only one.
        chance: p(same) of that; None without calibration.
        rival: the identity that it could have and resembles most, None where there is none.
        rival_likeness: mean cosine with that.
    """

    tracklet: int
    identity: int
    likeness: float | None
    chance: float | None
    rival: int | None
    rival_likeness: float | None


@dataclass(frozen=True)
class Doubt:
    """Something for a person to look at.

    Attributes:
        tracklet: which.
        identity: the one it has, None if unknown.
        candidate: the identity that it may have instead or as well.
        likeness: mean cosine with the candidate.
        chance: p(same) of that; None without calibration.
        why: in words.
    """

    tracklet: int
    identity: int | None
    candidate: int
    likeness: float
    chance: float | None
    why: str


@dataclass(frozen=True)
class Links:
    """Who is who.

    Attributes:
        identities: of each tracklet that has one, from 1 in the order in which they are first seen.
        unknown: tracklets without: seen too briefly, or without a vector.
        second_boxes: tracklets that lie on another one; they have no identity of their own.
        reasons: one for each tracklet with an identity, by tracklet.
        doubts: what to review, most doubtful identities first.
        threshold: cosine from which groups were joined.
    """

    identities: dict[int, int]
    unknown: tuple[int, ...]
    second_boxes: dict[int, int]
    reasons: tuple[Reason, ...]
    doubts: tuple[Doubt, ...]
    threshold: float


def link(
    portraits: Sequence[Portrait],
    *,
    threshold: float,
    seconds_a_frame: float,
    rules: LinkRules | None = None,
    calibration: Calibration | None = None,
    similarity: Float64[Tensor, "n n"] | None = None,
) -> Links:
    """Give identities to the tracklets of one video.

    The order of the portraits does not matter.

    Args:
        portraits: of one video, with different numbers.
        threshold: mean cosine from which groups are joined.
        seconds_a_frame: time from one frame number to the next, for `top_speed`.
        rules: what can be one identity.
        calibration: turns cosines into p(same) for reasons and doubts.
        similarity: of each pair, in place of the cosine of their pooled vectors; rows of portraits without vectors are
            not read.

    Raises:
        UsageError: two portraits have the same number.
        ShapeError: `similarity` is not n x n.
    """
    rules = rules or LinkRules()
    if similarity is not None and tuple(similarity.shape) != (len(portraits), len(portraits)):
        raise ShapeError(f"{len(portraits)} portraits need a square table of that size, given {similarity.shape}")
    numbers = [portrait.tracklet.id for portrait in portraits]
    if len(set(numbers)) != len(numbers):
        raise UsageError("two portraits have the same tracklet number; number tracklets once a video")
    order = sorted(range(len(portraits)), key=lambda k: (_first(portraits[k].tracklet), numbers[k]))
    doubled = second_boxes([portraits[k].tracklet for k in order])
    rows = [k for k in order if portraits[k].frames and numbers[k] not in doubled]
    seen = [portraits[k] for k in rows]
    if not seen:
        return Links({}, tuple(n for n in numbers if n not in doubled), doubled, (), (), threshold)
    alike = (likeness(seen) if similarity is None else similarity[rows][:, rows]).numpy()
    barred = barred_pairs([portrait.tracklet for portrait in seen], rules=rules, seconds_a_frame=seconds_a_frame)
    worth = good_boxes(seen)
    groups = _grouped(alike, barred.numpy(), worth, threshold=threshold, least_worth=rules.least_worth)
    identities = {seen[k].tracklet.id: group for k, group in enumerate(groups) if group > 0}
    unknown = [number for number in (numbers[k] for k in order) if number not in identities and number not in doubled]
    reasons, doubts = _explained(seen, alike, barred.numpy(), groups, rules, calibration)
    return Links(identities, tuple(unknown), doubled, tuple(reasons), tuple(doubts), threshold)


def observations_of(tracklets: Sequence[Tracklet], identities: dict[int, int]) -> list[Observation]:
    """The boxes of all identities, with the identity as their track, by frame and identity.

    Where two tracklets of one identity share a frame, the box with the higher score stays.
    """
    best: dict[tuple[int, int], Observation] = {}
    for tracklet in tracklets:
        identity = identities.get(tracklet.id)
        if identity is None:
            continue
        for seen in tracklet.observations:
            key = (seen.frame, identity)
            if key not in best or best[key].score < seen.score:
                best[key] = Observation(identity, seen.frame, seen.time_s, seen.box, seen.score, tracklet.label)
    return [best[key] for key in sorted(best)]


def good_boxes(portraits: Sequence[Portrait]) -> Float64[ndarray, " n"]:
    """How many boxes of the usual quality each tracklet is worth: its boxes times the mean quality of its crops, where
    crops of the median quality of the video, or better, count as one."""
    usual = torch.cat([portrait.weights for portrait in portraits]).double().median()
    shares = [float((portrait.weights.double() / usual).clamp(max=1).mean()) for portrait in portraits]
    return np.array([len(p.tracklet.observations) * share for p, share in zip(portraits, shares, strict=True)])


def barred_pairs(tracklets: Sequence[Tracklet], *, rules: LinkRules, seconds_a_frame: float) -> Bool[Tensor, "n n"]:
    """Which pairs cannot be one object: seen together, of another class, or too far apart for the time between."""
    barred = together(tracklets, tolerance=rules.tolerance)
    for one in range(len(tracklets)):
        for other in range(one + 1, len(tracklets)):
            differ = rules.same_label and tracklets[one].label != tracklets[other].label
            if differ or _too_far(tracklets[one], tracklets[other], rules.top_speed, seconds_a_frame):
                barred[one, other] = barred[other, one] = True
    return barred


def average_linkage(alike: Table, barred: Flags, weights: Float64[ndarray, " n"], *, threshold: float) -> Groups:
    """Join groups, most alike first, while the weighted mean cosine of their pairs is at or above `threshold`.

    A pair counts by the product of its weights. Of equals the first pair is joined.
    """
    n = len(alike)
    mean, barred, mass = alike.copy(), barred.copy(), weights.copy()
    np.fill_diagonal(barred, True)
    groups, alive = list(range(n)), np.ones(n, dtype=bool)
    while True:
        open_pairs = np.where(barred | ~alive[:, None] | ~alive[None, :], -np.inf, mean)
        one, other = divmod(int(open_pairs.argmax()), n)
        if open_pairs[one, other] < threshold:
            return groups
        mean[one] = (mass[one] * mean[one] + mass[other] * mean[other]) / (mass[one] + mass[other])
        mean[:, one] = mean[one]
        barred[one] |= barred[other]
        barred[:, one] = barred[one]
        mass[one] += mass[other]
        alive[other] = False
        groups = [one if group == other else group for group in groups]


def improved(
    alike: Table, barred: Flags, weights: Float64[ndarray, " n"], groups: Groups, *, threshold: float
) -> Groups:
    """Move single tracklets, and exchange pairs that exclude each other, while that adds to the sum over linked pairs
    of (cosine - threshold) by the product of their weights; the best step first."""
    n = len(alike)
    gain = (alike - threshold) * weights[:, None] * weights[None, :]
    np.fill_diagonal(gain, 0)
    barred = barred & ~np.eye(n, dtype=bool)
    everyone, ones, others = np.arange(n), *np.nonzero(np.triu(barred))
    groups = np.unique(groups, return_inverse=True)[1].tolist()
    while True:
        member = np.zeros((n, max(groups) + 2))  # the last group is empty: somebody new
        member[everyone, groups] = 1
        sums, conflicts = gain @ member, barred.astype(float) @ member
        own = sums[everyone, groups]
        moves = np.where(conflicts == 0, sums - own[:, None], -np.inf)
        moves[everyone, groups] = -np.inf
        who, where = divmod(int(moves.argmax()), member.shape[1])
        best_move = moves[who, where]
        best_swap, pair = -np.inf, -1
        if len(ones):
            at = np.array(groups)
            free = (conflicts[ones, at[others]] == 1) & (conflicts[others, at[ones]] == 1)
            swaps = sums[ones, at[others]] + sums[others, at[ones]] - 2 * gain[ones, others] - own[ones] - own[others]
            swaps = np.where(free, swaps, -np.inf)
            pair = int(swaps.argmax())
            best_swap = swaps[pair]
        if max(best_move, best_swap) <= _LEAST_GAIN:
            return groups
        if best_move >= best_swap:
            groups[who] = where
        else:
            one, other = int(ones[pair]), int(others[pair])
            groups[one], groups[other] = groups[other], groups[one]
        groups = np.unique(groups, return_inverse=True)[1].tolist()


def _grouped(
    alike: Table, barred: Flags, worth: Float64[ndarray, " n"], *, threshold: float, least_worth: float
) -> Groups:
    """Identity of each tracklet, from 1 in their order; 0 for unknown."""
    weights = np.sqrt(np.minimum(1.0, worth / FULL_WORTH)).clip(min=1e-6)
    firm = np.nonzero(worth >= least_worth)[0]
    groups = [-1] * len(alike)
    if len(firm):
        part = np.ix_(firm, firm)
        linked = average_linkage(alike[part], barred[part], weights[firm], threshold=threshold)
        linked = improved(alike[part], barred[part], weights[firm], linked, threshold=threshold)
        for k, group in zip(firm.tolist(), linked, strict=True):
            groups[k] = group
    brief = [k for k in range(len(alike)) if groups[k] < 0]
    means, possible = _to_groups(alike, barred, groups)
    # The surest first, for each one that joins may keep others out.
    for k in sorted(brief, key=lambda k: -float(np.where(possible[k], means[k], -np.inf).max(initial=-np.inf))):
        now = _to_groups(alike, barred, groups)[1][k] if len(firm) else possible[k]
        open_means = np.where(now, means[k], -np.inf)
        if open_means.max(initial=-np.inf) >= threshold:
            groups[k] = int(open_means.argmax())
    names: dict[int, int] = {-1: 0}
    for group in groups:
        names.setdefault(group, len(names))
    return [names[group] for group in groups]


def _to_groups(alike: Table, barred: Flags, groups: Groups) -> tuple[ndarray, ndarray]:
    """Mean cosine of each tracklet with the others of each group 0, 1, ..., and whether it could be one of them."""
    count = max(groups, default=-1) + 1
    means, possible = np.full((len(alike), count), -np.inf), np.zeros((len(alike), count), dtype=bool)
    for group in range(count):
        members = np.array([other == group for other in groups])
        for k in range(len(alike)):
            rest = members.copy()
            rest[k] = False
            if rest.any():
                means[k, group] = alike[k, rest].mean()
                possible[k, group] = not barred[k, rest].any()
    return means, possible


def _explained(
    seen: Sequence[Portrait],
    alike: Table,
    barred: Flags,
    groups: Groups,
    rules: LinkRules,
    calibration: Calibration | None,
) -> tuple[list[Reason], list[Doubt]]:
    def chance(cosine: float | None) -> float | None:
        if calibration is None or cosine is None:
            return None
        return float(calibration.chance(torch.tensor(cosine, dtype=torch.float64)))

    means, possible = _to_groups(alike, barred, groups)
    reasons, doubts = [], []
    for k, portrait in enumerate(seen):
        number, group = portrait.tracklet.id, groups[k]
        own = float(means[k, group]) if group and np.isfinite(means[k, group]) else None
        others = [g for g in range(1, means.shape[1]) if g != group and possible[k, g]]
        rival = max(others, key=lambda g: means[k, g], default=None)
        near = None if rival is None else float(means[k, rival])
        sure, near_chance = chance(own), chance(near)
        if group:
            reasons.append(Reason(number, group, own, sure, rival, near))
        if own is not None and sure is not None and sure < rules.sure:
            doubts.append(Doubt(number, group, group, own, sure, "looks unlike the rest of its identity"))
        if rival is not None and near is not None:
            if own is not None and own - near < rules.margin:
                doubts.append(Doubt(number, group, rival, near, near_chance, "looks as much like another identity"))
            elif own is None and near_chance is not None and near_chance >= 1 - rules.sure:
                doubts.append(Doubt(number, group or None, rival, near, near_chance, "may be this identity"))
    return sorted(reasons, key=lambda one: one.tracklet), sorted(doubts, key=lambda one: (-one.likeness, one.tracklet))


def _too_far(one: Tracklet, other: Tracklet, top_speed: float | None, seconds_a_frame: float) -> bool:
    """Whether nothing that moves at most at `top_speed` could be both, one after the other."""
    if top_speed is None:
        return False
    earlier, later = sorted((one, other), key=_first)
    end, start = earlier.observations[-1], later.observations[0]
    if start.frame <= end.frame:
        return False  # they overlap in time; `together` decides
    (x0, y0, h0), (x1, y1, h1) = (_place(seen) for seen in (end, start))
    heights = float(np.hypot(x1 - x0, y1 - y0)) / ((h0 + h1) / 2)
    return heights > top_speed * (start.frame - end.frame) * seconds_a_frame


def _place(seen: Observation) -> tuple[float, float, float]:
    """Middle and height of a box."""
    x0, y0, x1, y1 = seen.box
    return (x0 + x1) / 2, (y0 + y1) / 2, y1 - y0


def _first(tracklet: Tracklet) -> int:
    return tracklet.observations[0].frame
