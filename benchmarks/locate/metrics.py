"""How good answers are: how near, how safe from mix-ups, and how well the confidence tells right from wrong.

An answer is a place and a confidence for one mark. Errors are distances in target pixels and exist only where the mark
is present; *right* means within one patch side of the truth. An answer for an absent mark is never right.

Axes: n answers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from scipy.stats import rankdata

Array = np.ndarray

PIXELS = (2, 4, 8, 16, 32)
PATCHES = (0.25, 0.5, 1.0, 2.0)


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers of one method, in columns of length n.

    Attributes:
        case: which case; answers of one case are not independent of each other.
        kind: of the case.
        family: texture of the case.
        fate: `present`, or why the mark is absent.
        error: px, NaN if absent.
        gap: px to the nearest other mole, NaN if absent; infinite where nobody knows the others.
        patch: side of a patch in target px.
        confidence: the more, the surer.
        state: `found`, `uncertain`, `absent`, or `` for methods without states.
    """

    case: Array
    kind: Array
    family: Array
    fate: Array
    error: Array
    gap: Array
    patch: Array
    confidence: Array
    state: Array

    @property
    def present(self) -> Array:
        """Whether the mark is in the target."""
        return self.fate == "present"

    @property
    def right(self) -> Array:
        """Within one patch side of the truth."""
        return np.where(self.present, self.error <= self.patch, False)

    def take(self, index: Array) -> "Answers":
        """Some of them, by number or mask."""
        return Answers(*(getattr(self, field.name)[index] for field in fields(self)))

    @classmethod
    def joined(cls, parts: Sequence["Answers"]) -> "Answers":
        """All of several."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def summary(answers: Answers) -> dict[str, float]:
    """Every number that is reported; NaN where there is nothing to count."""
    here = answers.take(answers.present)
    numbers = {f"PCK@{limit}px": share(here.error <= limit) for limit in PIXELS}
    numbers |= {f"PCK@{limit:g}patch": share(here.error <= limit * here.patch) for limit in PATCHES}
    some = len(here.error) > 0
    numbers["mean"] = float(here.error.mean()) if some else np.nan
    numbers["median"] = float(np.median(here.error)) if some else np.nan
    numbers["p95"] = float(np.quantile(here.error, 0.95)) if some else np.nan
    numbers["mean_when_right"] = float(here.error[here.right].mean()) if here.right.any() else np.nan
    numbers["mean_when_right_patches"] = (
        float((here.error / here.patch)[here.right].mean()) if here.right.any() else np.nan
    )
    numbers["identity_safe"] = share(here.error < here.gap / 2)
    numbers["AUROC"] = auroc(answers.confidence, answers.right)
    numbers["AUROC_present"] = auroc(here.confidence, here.right)
    numbers["AURC"] = float(risk_coverage(here.confidence, here.right)[1].mean()) if some else np.nan
    numbers["precision@90"] = precision_at(here.confidence, here.right, coverage=0.9)
    numbers["absent_recall"] = absent_recall(answers.confidence, answers.present, false_alarm=0.05)
    numbers["ECE"] = calibration_error(answers.confidence, answers.right)
    return numbers


def share(which: Array) -> float:
    """Part that is true; NaN of nothing."""
    return float(np.mean(which)) if len(which) else np.nan


def auroc(scores: Array, positive: Array) -> float:
    """Probability that a positive scores more than a negative, ties counting half (Mann and Whitney 1947).

    NaN without positives or without negatives.
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return np.nan
    ranks = rankdata(scores)
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def risk_coverage(confidence: Array, right: Array) -> tuple[Array, Array]:
    """The part of wrong answers among the surest ones, for every number of them.

    Among equally sure answers all orders are alike, so each counts with the part of them that is right.

    Returns:
        coverage: 1 / n ... 1.
        risk: 0..1.
    """
    _, group = np.unique(-confidence, return_inverse=True)
    part = np.bincount(group, right) / np.bincount(group)
    wrong = 1 - part[np.sort(group)]
    count = np.arange(1, len(wrong) + 1)
    return count / len(wrong), np.cumsum(wrong) / count


def precision_at(confidence: Array, right: Array, *, coverage: float) -> float:
    """Part of right answers among the surest `coverage` of them (rounded up to whole answers)."""
    if not len(right):
        return np.nan
    covered, risk = risk_coverage(confidence, right)
    return float(1 - risk[np.searchsorted(covered, coverage)])


def absent_recall(confidence: Array, present: Array, *, false_alarm: float) -> float:
    """Part of the absent marks below the highest threshold that at most `false_alarm` of the present ones are below."""
    if present.all() or not present.any():
        return np.nan
    ascending = np.sort(confidence[present])
    threshold = ascending[int(false_alarm * len(ascending) + 1e-9)]
    return float(np.mean(confidence[~present] < threshold))


def calibration_error(confidence: Array, right: Array, *, bins: int = 10) -> float:
    """Mean distance between confidence and the part that is right, over bins of equal width (Naeini and others 2015).

    NaN where confidences are no probabilities.
    """
    if not len(right) or confidence.min() < 0 or confidence.max() > 1:
        return np.nan
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    sums = np.bincount(index, confidence - right, minlength=bins)
    return float(np.abs(sums).sum() / len(right))


def bootstrap(
    answers: Answers,
    statistic: Callable[[Answers], dict[str, float]] = summary,
    *,
    rounds: int = 500,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of a statistic when whole cases are drawn anew, with repeats (Efron 1979).

    Cases, not answers: those of one picture are right and wrong together.
    """
    random = np.random.default_rng(seed)
    of_case = [np.flatnonzero(answers.case == name) for name in np.unique(answers.case)]
    drawn: dict[str, list[float]] = {}
    for _ in range(rounds):
        chosen = random.integers(0, len(of_case), len(of_case))
        for name, value in statistic(answers.take(np.concatenate([of_case[k] for k in chosen]))).items():
            drawn.setdefault(name, []).append(value)
    edges = [(1 - level) / 2, (1 + level) / 2]
    intervals = {}
    for name, values in drawn.items():
        numbers = np.array(values)[~np.isnan(values)]
        intervals[name] = tuple(np.quantile(numbers, edges).tolist()) if len(numbers) else (np.nan, np.nan)
    return intervals


def alarms(results: dict[str, Answers], *, centres: Sequence[str]) -> list[str]:
    """What cannot be, in words; it would mean that a truth leaked into an answer, or that the harness is wrong.

    Args:
        results: answers of every method to the same marks in the same order; with `oracle`, the patch centre nearest
            to each truth, `any mole`, a marked mole of the target at random, and `control`, marks of another scene.
        centres: methods that can only answer with such a patch centre.
    """
    oracle = results["oracle"]
    found = []
    for name in centres:
        better = results[name].error < oracle.error - 1e-6
        if better.any():
            found.append(f"{name} is nearer than the nearest patch centre for {int(better.sum())} marks")
    if "control" in results:
        control, chance = (bootstrap(results[name], _near) for name in ("control", "any mole"))
        if control["near"][0] > chance["near"][1]:
            found.append("sources of another scene find the truth more often than chance does")
    return found


def _near(answers: Answers) -> dict[str, float]:
    return {"near": share(answers.error[answers.present] <= 16)}
