"""What a cosine means in this video: the probability that two tracklets show one object, learnt without labels.

Two parts of one tracklet show the same object; two tracklets seen at the same time show different ones. Those two kinds
of pairs are all it takes to fit p(same) for any encoder, and to say how often strangers would be taken for somebody.

The two kinds count alike in the fit: p = 0.5 is where the cosine is as likely among the same as among the different.
Parts of one tracklet look more alike than two visits do, so `KnownPairs` compares the beginning of a tracklet with its
end, and p errs on the side of keeping apart.

Axes: n tracklets, s scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from scipy.optimize import minimize
from torch import Tensor

from patchatlas.errors import InputError, UsageError
from patchatlas.reid.portraits import Portrait, likeness

LEAST_PAIRS = 5
"""Of either kind; with fewer a curve would be guesswork."""

_FOLDS = 5
_BINS = 10

METHODS = ("logistic", "isotonic")


@dataclass(frozen=True, eq=False)
class KnownPairs:
    """Cosines of pairs of which the answer is known.

    Attributes:
        same: of pairs that show one object.
        different: of pairs that show two.
        rivals: for each tracklet seen together with others, its highest cosine with one of them: a search for somebody
            who is not in the gallery.
    """

    same: Float64[Tensor, " p"]
    different: Float64[Tensor, " m"]
    rivals: Float64[Tensor, " r"]

    @property
    def enough(self) -> bool:
        """Whether a curve can be fitted."""
        return min(len(self.same), len(self.different)) >= LEAST_PAIRS


@dataclass(frozen=True)
class Calibration:
    """From cosine to p(same): straight lines between knots, flat outside them.

    Attributes:
        cosines: of the knots, rising.
        chances: p(same) there, not falling.
        method: how they were fitted.
        same: pairs of the same object that it rests on.
        different: pairs of different ones.
        ece: expected calibration error (Naeini et al., AAAI 2015, ten bins), cross-validated in five folds, both kinds
            of pairs counted alike.
    """

    cosines: tuple[float, ...]
    chances: tuple[float, ...]
    method: str
    same: int
    different: int
    ece: float

    def chance(self, cosine: Float[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
        """p(same) of each cosine."""
        read = np.interp(cosine.double().numpy(), self.cosines, self.chances)
        return torch.as_tensor(read, dtype=torch.float64)

    def cosine_at(self, chance: float) -> float:
        """The lowest cosine at which p(same) reaches `chance`; above 1 where it never does."""
        for k, (x, p) in enumerate(zip(self.cosines, self.chances, strict=True)):
            if p >= chance:
                if k == 0:
                    return x
                x0, p0 = self.cosines[k - 1], self.chances[k - 1]
                return x0 + (x - x0) * (chance - p0) / (p - p0)
        return float(np.nextafter(1, 2))


def known_pairs(portraits: Sequence[Portrait], apart: Bool[Tensor, "n n"]) -> KnownPairs:
    """Pairs of which the video itself gives the answer.

    Args:
        portraits: those without a vector are passed over.
        apart: which pairs are seen together, from `together`.
    """
    same = []
    for portrait in portraits:
        count = len(portrait.frames)
        if count >= 4:
            # First and last: the longest time between them, and so the most change.
            third = max(2, count // 3)
            early, late = portrait.pooled(range(third)), portrait.pooled(range(count - third, count))
            same.append(float(early @ late))
    seen = [row for row, portrait in enumerate(portraits) if portrait.frames]
    if not seen:
        return KnownPairs(*(torch.zeros(0, dtype=torch.float64) for _ in range(3)))
    cosine = likeness([portraits[row] for row in seen])
    known = apart[seen][:, seen]
    rivals = [float(cosine[row][known[row]].max()) for row in range(len(seen)) if bool(known[row].any())]
    upper = torch.ones_like(known).triu(diagonal=1)
    return KnownPairs(
        same=torch.tensor(same, dtype=torch.float64),
        different=cosine[known & upper],
        rivals=torch.tensor(rivals, dtype=torch.float64),
    )


def fit(pairs: KnownPairs, *, method: str = "logistic") -> Calibration:
    """Fit p(same).

    Args:
        pairs: what is known.
        method: `logistic` has two parameters, for dozens of pairs; `isotonic` only demands that p does not fall, for
            hundreds.

    Raises:
        InputError: fewer than `LEAST_PAIRS` of either kind.
    """
    if method not in METHODS:
        raise UsageError(f"there is no calibration {method!r}; choose {' or '.join(METHODS)}")
    if not pairs.enough:
        raise InputError(
            f"{len(pairs.same)} pairs of the same and {len(pairs.different)} of different objects are too few to learn "
            f"what a cosine means, {LEAST_PAIRS} of each are needed; give a threshold, or a longer video"
        )
    scores = torch.cat([pairs.same, pairs.different]).numpy()
    labels = np.concatenate([np.ones(len(pairs.same)), np.zeros(len(pairs.different))])
    knots, chances = _curve(scores, labels, method)
    held_out = np.empty(len(scores))
    folds = np.concatenate([np.arange(len(kind)) % _FOLDS for kind in (pairs.same, pairs.different)])
    for fold in range(_FOLDS):
        held = folds == fold
        held_out[held] = np.interp(scores[held], *_curve(scores[~held], labels[~held], method))
    return Calibration(
        cosines=tuple(knots.tolist()),
        chances=tuple(chances.tolist()),
        method=method,
        same=len(pairs.same),
        different=len(pairs.different),
        ece=calibration_error(held_out, labels, _balance(labels)),
    )


def calibration_error(chances: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """Mean over ten bins of the gap between what was said and what was so, by the weight in each bin."""
    bins = np.minimum((chances * _BINS).astype(int), _BINS - 1)
    gaps = [abs(float((weights * (chances - labels))[bins == k].sum())) for k in range(_BINS)]
    return sum(gaps) / float(weights.sum())


def threshold_for(pairs: KnownPairs, *, fpir: float) -> float:
    """The lowest cosine from which at most a share `fpir` of strangers is taken for somebody, as far as can be seen.

    A stranger's best match is what `pairs.rivals` holds, for galleries as large as this video's.

    Raises:
        InputError: no two tracklets are seen together.
        UsageError: `fpir` is not a share.
    """
    if not 0 <= fpir <= 1:
        raise UsageError(f"fpir is a share of 0..1, given {fpir}")
    if not len(pairs.rivals):
        raise InputError("no two tracklets are seen together, so there is no stranger to learn from; give a threshold")
    falling = pairs.rivals.sort(descending=True).values
    allowed = int(fpir * len(falling))
    return float(np.nextafter(falling[allowed].item(), 2)) if allowed < len(falling) else -1.0


def error_rates(pairs: KnownPairs, *, threshold: float) -> tuple[float, float]:
    """FPIR over rivals and FNIR over the same at a threshold; NaN over none."""
    taken = (pairs.rivals >= threshold).double().mean().item() if len(pairs.rivals) else float("nan")
    missed = (pairs.same < threshold).double().mean().item() if len(pairs.same) else float("nan")
    return taken, missed


def _balance(labels: np.ndarray) -> np.ndarray:
    """Weights that make both kinds count alike."""
    shares = np.where(labels == 1, 0.5 / max(1, labels.sum()), 0.5 / max(1, (1 - labels).sum()))
    return np.asarray(shares)


def _curve(scores: np.ndarray, labels: np.ndarray, method: str) -> tuple[np.ndarray, np.ndarray]:
    return _logistic(scores, labels) if method == "logistic" else _isotonic(scores, labels)


def _logistic(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Platt's sigmoid with his smoothed targets (Platt 1999), which keep it finite where the kinds do not overlap."""
    positives, negatives = labels.sum(), (1 - labels).sum()
    target = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    weights = _balance(labels)
    middle, spread = scores.mean(), max(float(scores.std()), 1e-6)
    x = (scores - middle) / spread

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        z = np.exp(parameters[0]) * x + parameters[1]  # the slope is positive by construction
        p = 1 / (1 + np.exp(-np.clip(z, -500, 500)))
        value = float((weights * (np.logaddexp(0, z) - target * z)).sum())
        step = weights * (p - target)
        return value, np.array([(step * x).sum() * np.exp(parameters[0]), step.sum()])

    found = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(-6, 6), (-50, 50)]).x
    knots = np.linspace(-1, 1, 401)
    z = np.exp(found[0]) * (knots - middle) / spread + found[1]
    return knots, np.asarray(1 / (1 + np.exp(-np.clip(z, -500, 500))))


def _isotonic(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pool adjacent violators (Barlow et al., 1972): the closest curve that does not fall."""
    levels, inverse = np.unique(scores, return_inverse=True)
    weights = _balance(labels)
    mass = np.bincount(inverse, weights)
    share = np.bincount(inverse, weights * labels) / mass
    blocks: list[list[float]] = []  # value, mass, how many levels
    for value, own in zip(share.tolist(), mass.tolist(), strict=True):
        blocks.append([value, own, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            value2, mass2, count2 = blocks.pop()
            value1, mass1, count1 = blocks[-1]
            blocks[-1] = [(value1 * mass1 + value2 * mass2) / (mass1 + mass2), mass1 + mass2, count1 + count2]
    chances = np.repeat([block[0] for block in blocks], [int(block[2]) for block in blocks])
    return levels, np.asarray(chances, dtype=np.float64)
