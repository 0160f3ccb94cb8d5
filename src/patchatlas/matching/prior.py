"""Where a landmark should be, by the landmarks that were found: one smooth map from source to target, fitted robustly.

Axes: m matches, i inliers, p points; points are (x, y) in source or target pixels. Three kinds of map, from stiff to
soft: `similarity` (turn, scale, shift: 4 numbers), `affine` (6), `thin-plate` (an affine map and a smooth bending of
it, after Bookstein 1989). Which of them is used is decided by how well each predicts matches that it was not shown.

Each kind is a linear smoother: what it predicts is a sum of the inliers' targets under weights that depend on the
sources alone (`_weights`). So a map fitted without one match, and how sure a prediction is, follow from the weights;
nothing is fitted again.
"""

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from patchatlas.errors import ShapeError

Kind = Literal["similarity", "affine", "thin-plate"]

LEAST: dict[Kind, int] = {"similarity": 3, "affine": 5, "thin-plate": 8}
"""Matches that a kind needs: one or more beyond what fixes it, so that there is something left to judge it by."""

SAMPLES = 2000
"""Pairs (and threes) of matches tried as the whole truth; all pairs up to 63 matches. With half of the matches wrong
one pair in four and one three in eight is right, so the chance that none of so many is, is nothing."""

CHANCE = 1.0
"""Sets of matches as large as the one found that may be expected to agree by chance, at most: the usual level of
a-contrario detection (Desolneux, Moisan and Morel 2000; for point matches Moisan and Stival 2004)."""

SURE_WEIGHT = 3.0
"""What a match that is known to be right counts for where others count 1."""

SMOOTHING = 0.1
"""Weight of a thin plate's bending against its misses, in units of the source's extent. Of 0, 1e-4, 1e-3, 0.01, 0.1 and
1 the best on matches left out: 120 smooth warps of 0.5 to 3 % of the extent with noise of 0.5 %."""

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Prior:
    """A map from source to target, and how far it can be trusted.

    Attributes:
        kind: which of the three.
        inliers: matches that it agrees with.
        error_px: root mean square distance, in target pixels, between an inlier and where the map puts it when fitted
            without it.
        held_out: where the map puts each match in the target, an inlier when fitted without it.
        source: the inliers in the source.
        target: the inliers in the target.
    """

    kind: Kind
    inliers: Bool[Tensor, " m"]
    error_px: float
    held_out: Float64[Tensor, "m 2"]
    source: Float64[Tensor, "i 2"]
    target: Float64[Tensor, "i 2"]

    def predict(self, points_source: Float64[Tensor, "p 2"]) -> Float64[Tensor, "p 2"]:
        """Where points of the source should be in the target."""
        weights = _weights(self.kind, self.source.numpy(), points_source.numpy())
        return torch.from_numpy(_plane(weights @ _complex(self.target.numpy())))

    def deviations(self, points_source: Float64[Tensor, "p 2"]) -> Float64[Tensor, " p"]:
        """Standard deviation along each axis of where a match is found about its prediction, in target pixels.

        `error_px` over the square root of 2 among the inliers, and more away from them. By linear regression the
        variance is that of a match times one plus the sum of the squared weights. That is for a map of the right kind;
        for others, whose error grows on the way from one inlier to the next, the deviation is also in proportion to
        the distance to the nearest (other) inlier, where it is more than usual among inliers.
        """
        source, points = self.source.numpy(), points_source.numpy()
        weights = _weights(self.kind, source, np.concatenate([source, points]))
        own, asked = np.split(1 + (abs(weights) ** 2).sum(axis=1), [len(source)])
        beyond = _to_nearest(points, source) / np.sqrt((_to_nearest(source, source) ** 2).mean())
        usual = self.error_px / math.sqrt(2) / math.sqrt(own.mean())
        return torch.from_numpy(usual * np.sqrt(asked) * np.maximum(beyond, 1))


def fit_prior(
    source: Float64[Tensor, "m 2"],
    target: Float64[Tensor, "n 2"],
    *,
    tolerance: float,
    kind: Kind | None = None,
    sure: Bool[Tensor, " m"] | None = None,
    chance: float = CHANCE,
) -> Prior | None:
    """The smooth map that most matches agree with, or `None` if fewer than three do, or no more than by chance.

    Pairs of matches are tried as a similarity, threes as an affine map; the one with the least sum of squared misses,
    each capped at the square of 3 tolerances (MSAC, Torr and Zisserman 2000), says which matches belong together. Each
    kind is fitted to those (a thin plate to those of the affine map) and takes in what else it explains. Kinds are
    compared by the same capped sum, in which an inlier's miss is that of the map fitted without it: a softer one must
    be better by a fifth, and misses below a twentieth of the tolerance count as none.

    Matches that agree by chance are no map: their number must be more than can be expected among matches spread at
    random over the rectangle that they fill in the target, unless enough of them are sure. Nor are matches
    that all fall on one spot of the target, whatever shrinks onto it.

    Args:
        source: matches, in source pixels.
        target: the same, in target pixels.
        tolerance: how far a right match may be off by itself, in target pixels.
        kind: this kind of map and no other.
        sure: matches that are known to be right; they weigh more. None if not given.
        chance: how many sets as large may be expected by chance; more than 1 where maps are judged by something else
            as well.

    Raises:
        ShapeError: not as many points in the target as in the source, or a tolerance that is not positive.
    """
    if len(source) != len(target) or not tolerance > 0:
        raise ShapeError(f"{len(source)} points and {len(target)}, tolerance {tolerance}; need as many, and above 0")
    kinds: tuple[Kind, ...] = ("similarity", "affine", "thin-plate") if kind is None else (kind,)
    before, after = source.numpy(), target.numpy()
    known = np.zeros(len(source), dtype=bool) if sure is None else sure.numpy()
    counts = np.where(known, SURE_WEIGHT, 1.0)
    if len(source) < min(LEAST[one] for one in kinds):
        return None
    limit = 3 * tolerance
    best: tuple[float, Prior] | None = None
    for one in kinds:
        size = 2 if one == "similarity" else 3
        agrees = _consensus(before, after, counts, limit=limit, size=size)
        if known[agrees].sum() < LEAST[one] and _expected_by_chance(after, agrees, limit=limit, size=size) > chance:
            continue
        agrees = _settle(one, before, after, agrees, limit=limit)
        if agrees.sum() < LEAST[one] or not _spans_plane(before[agrees]) or _is_spot(after[agrees], limit):
            continue
        weights = _weights(one, before[agrees], before)
        put = weights @ _complex(after[agrees])
        put[agrees] = _without_own(weights[agrees], _complex(after[agrees]))
        misses = np.maximum(abs(put - _complex(after))[agrees], tolerance / 20)
        cost = float(counts[agrees] @ np.minimum(misses, limit) ** 2) + counts[~agrees].sum() * limit**2
        if best is None or cost < 0.8 * best[0]:
            error = float(np.sqrt(np.mean(misses**2)))
            inliers, held_out = torch.from_numpy(agrees), torch.from_numpy(_plane(put))
            best = cost, Prior(one, inliers, error, held_out, source[inliers], target[inliers])
    return None if best is None else best[1]


def _settle(kind: Kind, source: Array, target: Array, agrees: Array, *, limit: float, rounds: int = 5) -> Array:
    """Inliers that a kind of map settles on, from those to begin with."""
    for _ in range(rounds):
        if agrees.sum() < LEAST[kind] or not _spans_plane(source[agrees]):
            return agrees
        mapped = _weights(kind, source[agrees], source) @ _complex(target[agrees])
        now: Array = abs(mapped - _complex(target)) <= limit
        if (now == agrees).all():
            return agrees
        agrees = now
    return agrees


def _without_own(weights: Array, target: Array) -> Array:
    """What each inlier would be predicted to be by the others: (f - w y) / (1 - w), f the fit, w its own weight in it.

    Exact for least squares, and for penalised ones at a fixed penalty (Craven and Wahba 1979, lemma 3.1).
    """
    own = weights.diagonal()
    without: Array = (weights @ target - own * target) / np.maximum(1 - own.real, 1e-9)
    return without


def _expected_by_chance(target: Array, agrees: Array, *, limit: float, size: int) -> float:
    """Number of sets as large as this one that matches without any order would hold, on average.

    Choices of `size` matches that fix a map, times choices of the others that agree with it, times the chance that
    these do: the part of the rectangle about all matches within `limit` of one point.
    """
    m, found = len(target), int(agrees.sum())
    if found <= size:
        return math.inf
    width, height = np.ptp(target, axis=0)
    share = min(1.0, math.pi * limit**2 / max(float(width * height), 1e-12))
    ways = _log_choices(m, size) + _log_choices(m - size, found - size)
    return math.exp(min(ways + (found - size) * math.log(share), 700.0))


def _to_nearest(points: Array, others: Array) -> Array:
    """Distance from each point to the nearest of the others that is not the point itself."""
    apart = np.linalg.norm(points[:, None] - others[None], axis=2)
    nearest: Array = np.where(apart > 0, apart, np.inf).min(axis=1)
    return nearest


def _log_choices(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _consensus(source: Array, target: Array, counts: Array, *, limit: float, size: int) -> Array:
    """Matches that agree with the map of the best pair (a similarity) or three (an affine map)."""
    everything = math.comb(len(source), size)
    if everything <= SAMPLES:
        chosen = np.array(list(combinations(range(len(source)), size)))
    else:
        random = np.random.default_rng(0)
        chosen = np.stack([random.choice(len(source), size, replace=False) for _ in range(SAMPLES)])
    # An affine map takes (x, y, 1) to the target; for a pair, a third point is set square to it, as a similarity would.
    corners, images = source[chosen], target[chosen]
    if size == 2:
        corners, images = (np.concatenate([some, _square_to(some)], axis=1) for some in (corners, images))
    raised = np.concatenate([corners, np.ones((*corners.shape[:2], 1))], axis=2)
    extent = np.ptp(source, axis=0).max()
    usable = abs(np.linalg.det(raised)) > 1e-9 * extent**2
    if not usable.any():
        return np.zeros(len(source), dtype=bool)
    maps = np.linalg.solve(raised[usable], images[usable])
    mapped: Array = np.concatenate([source, np.ones((len(source), 1))], axis=1) @ maps
    mapped -= target
    missed = np.square(mapped, out=mapped).sum(axis=2)
    cost = np.minimum(missed, limit**2) @ counts
    agrees: Array = missed[cost.argmin()] <= limit**2
    return agrees


def _square_to(pairs: Array) -> Array:
    """The first point of each pair plus the way to the second, turned by a right angle: (s, 2, 2) to (s, 1, 2)."""
    way = pairs[:, 1:] - pairs[:, :1]
    third: Array = pairs[:, :1] + way[..., ::-1] * np.array([-1, 1])
    return third


def _spans_plane(points: Array) -> bool:
    """Whether points do not all lie on one line (or one spot)."""
    away = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return bool(away[-1] > 1e-6 * max(away[0], 1e-12))


def _is_spot(points: Array, limit: float) -> bool:
    """Whether points lie so close together that any of them might be any other."""
    return bool(np.sqrt(((points - points.mean(axis=0)) ** 2).sum(axis=1).mean()) <= limit)


def _weights(kind: Kind, source: Array, at: Array) -> Array:
    """What each match counts for at each of p points: (p, m), complex where x and y mix; each row sums to 1."""
    match kind:
        case "similarity":  # least squares z -> a z + b in complex numbers
            z, middle = _complex(source), _complex(source).mean()
            away = z - middle
            weights = 1 / len(z) + np.outer(_complex(at) - middle, away.conj()) / (abs(away) ** 2).sum()
        case "affine":  # least squares
            weights = _raised(at, source) @ np.linalg.pinv(_raised(source, source))
        case "thin-plate":  # smallest bending energy, traded against the misses
            size = max(float(np.ptp(source, axis=0).max()), 1e-9)  # in units of it, one smoothing suits all pictures
            flat, m = _raised(source, source) / [size, size, 1], len(source)
            system = np.zeros((m + 3, m + 3))
            system[:m, :m] = _bending(source / size, source / size) + SMOOTHING * np.eye(m)
            system[:m, m:], system[m:, :m] = flat, flat.T
            asked = np.concatenate([_bending(at / size, source / size), _raised(at, source) / [size, size, 1]], axis=1)
            weights = np.linalg.solve(system, asked.T).T[:, :m]  # the system is symmetric
    return np.asarray(weights)


def _raised(points: Array, about: Array) -> Array:
    """(x, y, 1), x and y from the middle of `about`."""
    return np.concatenate([points - about.mean(axis=0), np.ones((len(points), 1))], axis=1)


def _bending(points: Array, centres: Array) -> Array:
    """r^2 log r of all distances r."""
    squared = ((points[:, None] - centres[None]) ** 2).sum(axis=2)
    bending: Array = squared * np.log(np.maximum(squared, 1e-300)) / 2
    return bending


def _complex(points: Array) -> Array:
    """x + i y."""
    joined: Array = points[:, 0] + 1j * points[:, 1]
    return joined


def _plane(values: Array) -> Array:
    """(x, y) of x + i y."""
    return np.stack([values.real, values.imag], axis=1)
