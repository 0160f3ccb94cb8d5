"""Where a landmark should be, by the landmarks that were found: one smooth map from source to target, fitted robustly.

Axes: m matches, p points; points are (x, y) in source or target pixels. Three kinds of map, from stiff to soft:
`similarity` (turn, scale, shift: 4 numbers), `affine` (6), `thin-plate` (an affine map and a smooth bending of it,
after Bookstein 1989). Which of them is used is decided by how well each predicts matches that it was not shown.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float64
from scipy.interpolate import RBFInterpolator
from torch import Tensor

from patchatlas.errors import ShapeError

Kind = Literal["similarity", "affine", "thin-plate"]

LEAST: dict[Kind, int] = {"similarity": 3, "affine": 5, "thin-plate": 8}
"""Matches that a kind needs: one or more beyond what fixes it, so that there is something left to judge it by."""

SAMPLES = 2000
"""Pairs (and threes) of matches tried as the whole truth; all pairs up to 63 matches. With half of the matches wrong
one pair in four and one three in eight is right, so the chance that none of so many is, is nothing."""

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Prior:
    """A map from source to target, and how far it can be trusted.

    Attributes:
        kind: which of the three.
        inliers: matches that it agrees with.
        error_px: root mean square distance, in target pixels, between an inlier and where the map puts it when fitted
            without it.
        source: the inliers in the source.
        target: the inliers in the target.
    """

    kind: Kind
    inliers: Bool[Tensor, " m"]
    error_px: float
    source: Float64[Tensor, "i 2"]
    target: Float64[Tensor, "i 2"]

    def predict(self, points_source: Float64[Tensor, "p 2"]) -> Float64[Tensor, "p 2"]:
        """Where points of the source should be in the target."""
        mapped = _FITS[self.kind](self.source.numpy(), self.target.numpy())
        return torch.from_numpy(mapped(points_source.numpy()))

    def deviations(self, points_source: Float64[Tensor, "p 2"]) -> Float64[Tensor, " p"]:
        """Standard deviation of each prediction along each axis, in target pixels.

        `error_px` over the square root of 2, and more outside the inliers: it grows with the distance from their middle
        in units of their own spread (the leverage of linear regression, with m for its least).
        """
        middle = self.source.mean(dim=0)
        spread = (self.source - middle).square().sum(dim=1).mean().clamp(min=1e-12)
        beyond = (points_source - middle).square().sum(dim=1) / spread
        return self.error_px / math.sqrt(2) * (1 + beyond / len(self.source)).sqrt()


def fit_prior(
    source: Float64[Tensor, "m 2"], target: Float64[Tensor, "n 2"], *, tolerance: float, kind: Kind | None = None
) -> Prior | None:
    """The smooth map that most matches agree with, or `None` if fewer than three do.

    Pairs of matches are tried as a similarity, threes as an affine map; the one with the least sum of squared misses,
    each capped at the square of 3 tolerances (MSAC, Torr and Zisserman 2000), says which matches belong together. Each
    kind is fitted to those (a thin plate to those of the affine map) and takes in what else it explains. Kinds are
    compared by the same capped sum, in which an inlier's miss is that of the map fitted without it: a softer one must
    be better by a fifth, and misses below a twentieth of the tolerance count as none.

    Args:
        source: matches, in source pixels.
        target: the same, in target pixels.
        tolerance: how far a right match may be off by itself, in target pixels.
        kind: this kind of map and no other.

    Raises:
        ShapeError: not as many points in the target as in the source, or a tolerance that is not positive.
    """
    if len(source) != len(target) or not tolerance > 0:
        raise ShapeError(f"{len(source)} points and {len(target)}, tolerance {tolerance}; need as many, and above 0")
    kinds: tuple[Kind, ...] = ("similarity", "affine", "thin-plate") if kind is None else (kind,)
    before, after = source.numpy(), target.numpy()
    if len(source) < min(LEAST[one] for one in kinds):
        return None
    limit = 3 * tolerance
    best: tuple[float, Prior] | None = None
    for one in kinds:
        agrees = _consensus(before, after, limit=limit, size=2 if one == "similarity" else 3)
        settled = _settle(one, before, after, agrees, limit=limit)
        if settled is None:
            continue
        inliers, misses = settled
        misses = np.maximum(misses, tolerance / 20)
        cost = float(np.minimum(misses, limit) @ np.minimum(misses, limit)) + (~inliers).sum() * limit**2
        if best is None or cost < 0.8 * best[0]:
            error = float(np.sqrt(np.mean(misses**2)))
            best = cost, Prior(one, torch.from_numpy(inliers), error, source[inliers], target[inliers])
    return None if best is None else best[1]


def _settle(
    kind: Kind, source: Array, target: Array, agrees: Array, *, limit: float, rounds: int = 5
) -> tuple[Array, Array] | None:
    """Inliers that a kind of map settles on, and its miss of each when left out; `None` if they are too few."""
    for _ in range(rounds):
        if agrees.sum() < LEAST[kind] or not _spans_plane(source[agrees]):
            return None
        mapped = _FITS[kind](source[agrees], target[agrees])
        now = np.linalg.norm(mapped(source) - target, axis=1) <= limit
        if (now == agrees).all():
            break
        agrees = now
    if agrees.sum() < LEAST[kind] or not _spans_plane(source[agrees]):
        return None
    return agrees, _left_out(kind, source[agrees], target[agrees])


def _left_out(kind: Kind, source: Array, target: Array) -> Array:
    """How far each match is from where the map that the others give puts it."""
    misses = np.empty(len(source))
    for k in range(len(source)):
        kept = np.arange(len(source)) != k
        mapped = _FITS[kind](source[kept], target[kept])
        misses[k] = np.linalg.norm(mapped(source[k : k + 1]) - target[k : k + 1])
    return misses


def _consensus(source: Array, target: Array, *, limit: float, size: int) -> Array:
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
    misses = np.linalg.norm(mapped - target, axis=2)
    cost = (np.minimum(misses, limit) ** 2).sum(axis=1)
    agrees: Array = misses[cost.argmin()] <= limit
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


def _similarity(source: Array, target: Array) -> Callable[[Array], Array]:
    """Least squares z -> a z + b, in complex numbers."""
    z, w = source[:, 0] + 1j * source[:, 1], target[:, 0] + 1j * target[:, 1]
    away = z - z.mean()
    a = np.vdot(away, w - w.mean()) / np.vdot(away, away).real
    b = w.mean() - a * z.mean()

    def mapped(points: Array) -> Array:
        at = a * (points[:, 0] + 1j * points[:, 1]) + b
        return np.stack([at.real, at.imag], axis=1)

    return mapped


def _affine(source: Array, target: Array) -> Callable[[Array], Array]:
    """Least squares."""
    middle = source.mean(axis=0)
    raised = np.concatenate([source - middle, np.ones((len(source), 1))], axis=1)
    solved = np.linalg.lstsq(raised, target, rcond=None)[0]
    return lambda points: np.concatenate([points - middle, np.ones((len(points), 1))], axis=1) @ solved


def _thin_plate(source: Array, target: Array) -> Callable[[Array], Array]:
    """A thin plate that bends, but not so far as to hit every noisy match."""
    size = max(float(np.ptp(source, axis=0).max()), 1e-9)  # in units of it, one smoothing suits all pictures
    plate = RBFInterpolator(source / size, target, kernel="thin_plate_spline", smoothing=SMOOTHING)
    return lambda points: np.asarray(plate(points / size))


SMOOTHING = 0.1
"""Weight of a thin plate's bending against its misses, in units of the source's extent. Of 0, 1e-4, 1e-3, 0.01, 0.1 and
1 the best on matches left out: 120 smooth warps of 0.5 to 3 % of the extent with noise of 0.5 %."""

_FITS: dict[Kind, Callable[[Array, Array], Callable[[Array], Array]]] = {
    "similarity": _similarity,
    "affine": _affine,
    "thin-plate": _thin_plate,
}
