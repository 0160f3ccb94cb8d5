"""The benchmark's numbers, each worked by hand on a handful of answers."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from benchmarks.locate.metrics import (
    Answers,
    absent_recall,
    alarms,
    auroc,
    bootstrap,
    calibration_error,
    precision_at,
    risk_coverage,
    summary,
)


def answers(
    errors: list[float], *, confidence: list[float] | None = None, case: list[str] | None = None, gap: float = 20.0
) -> Answers:
    """Answers with patches of 8 px; NaN errors are absent marks."""
    n = len(errors)
    error = np.array(errors)
    return Answers(
        case=np.array(case or ["a"] * n),
        kind=np.array(["homography"] * n),
        family=np.array(["plain"] * n),
        fate=np.where(np.isnan(error), "outside", "present"),
        error=error,
        gap=np.where(np.isnan(error), np.nan, gap),
        patch=np.full(n, 8.0),
        confidence=np.array(confidence or [0.5] * n),
        state=np.array([""] * n),
    )


def test_errors_by_hand() -> None:
    numbers = summary(answers([1.0, 3.0, 8.0, 12.0, math.nan]))
    assert numbers["PCK@2px"] == 0.25
    assert numbers["PCK@4px"] == 0.5
    assert numbers["PCK@8px"] == 0.75  # at the limit counts
    assert numbers["PCK@16px"] == 1.0
    assert numbers["PCK@0.25patch"] == 0.25  # 2 px
    assert numbers["PCK@1patch"] == 0.75
    assert numbers["mean"] == 6.0
    assert numbers["median"] == 5.5
    assert numbers["mean_when_right"] == 4.0
    assert numbers["mean_when_right_patches"] == 0.5
    assert numbers["identity_safe"] == 0.75  # below half of 20 px


def test_nothing_present_is_nan() -> None:
    numbers = summary(answers([math.nan, math.nan]))
    assert all(math.isnan(numbers[name]) for name in ("PCK@2px", "mean", "p95", "AUROC", "absent_recall", "AURC"))


@pytest.mark.parametrize(
    ("scores", "positive", "expected"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 1.0),
        ([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1], 0.0),
        ([0.5, 0.5, 0.5], [0, 1, 1], 0.5),
        ([0.3, 0.1, 0.2], [1, 1, 0], 0.5),  # 0.3 beats 0.2, 0.1 does not
        ([0.2, 0.2, 0.1], [1, 0, 0], 0.75),  # a tie and a win
    ],
)
def test_auroc(scores: list[float], positive: list[int], expected: float) -> None:
    assert auroc(np.array(scores), np.array(positive, dtype=bool)) == expected


def test_auroc_counts_absent_answers_as_wrong() -> None:
    numbers = summary(answers([1.0, math.nan], confidence=[0.9, 0.1]))
    assert numbers["AUROC"] == 1.0
    assert math.isnan(numbers["AUROC_present"])


def test_risk_coverage() -> None:
    """Surest first: right, wrong, right, wrong."""
    coverage, risk = risk_coverage(np.array([0.2, 0.9, 0.5, 0.7]), np.array([False, True, True, False]))
    assert_allclose(coverage, [0.25, 0.5, 0.75, 1.0])
    assert_allclose(risk, [0, 1 / 2, 1 / 3, 1 / 2])


def test_risk_of_equals_does_not_depend_on_their_order() -> None:
    _, risk = risk_coverage(np.array([0.5, 0.5, 0.9, 0.5]), np.array([True, False, True, False]))
    assert_allclose(risk, [0, 1 / 3, 4 / 9, 1 / 2])


def test_precision_at_coverage() -> None:
    confidence = np.arange(10, 0, -1.0)
    right = np.array([1, 1, 1, 1, 1, 1, 1, 1, 0, 0], dtype=bool)
    assert precision_at(confidence, right, coverage=0.9) == pytest.approx(8 / 9)
    assert precision_at(confidence, right, coverage=0.8) == 1.0
    assert precision_at(confidence, right, coverage=0.81) == pytest.approx(8 / 9)


def test_absent_recall() -> None:
    """Of 20 present marks one may fall below: the threshold is the second smallest of theirs, 2, which is not below."""
    present = np.array([True] * 20 + [False] * 4)
    confidence = np.array([*range(1, 21), 0.5, 1.5, 2.0, 30.0])
    assert absent_recall(confidence, present, false_alarm=0.05) == 0.5
    assert absent_recall(np.ones(24), present, false_alarm=0.05) == 0.0


def test_calibration_error() -> None:
    """Half of the bin at 0.75 is right: off by 0.25 for 2 of 4; the bin at 0.05 is never right: off by 0.05."""
    confidence = np.array([0.75, 0.75, 0.05, 0.05])
    assert calibration_error(confidence, np.array([True, False, False, False])) == pytest.approx(0.15)
    assert math.isnan(calibration_error(np.array([3.0]), np.array([True])))


def test_bootstrap_draws_cases() -> None:
    """Ten answers of one case are one draw: all right or all wrong, never between."""
    errors = [1.0] * 10 + [100.0] * 10
    together = bootstrap(answers(errors, case=["a"] * 10 + ["b"] * 10))["PCK@8px"]
    apart = bootstrap(answers(errors, case=[str(n) for n in range(20)]))["PCK@8px"]
    assert together == (0.0, 1.0)
    assert 0.2 <= apart[0] < 0.5 < apart[1] <= 0.8
    assert bootstrap(answers([1.0, 1.0]))["PCK@8px"] == (1.0, 1.0)


def test_alarms() -> None:
    oracle = answers([2.0, 3.0, math.nan])
    honest, leaking = answers([2.0, 9.0, math.nan]), answers([2.0, 0.5, math.nan])
    assert alarms({"oracle": oracle, "mel": honest}, centres=["mel"]) == []
    assert alarms({"oracle": oracle, "mel": leaking}, centres=["mel"]) == [
        "mel is nearer than the nearest patch centre for 1 marks"
    ]
    assert alarms({"oracle": oracle, "ours": leaking}, centres=[]) == []  # finer than a patch: it may
    case = [str(n) for n in range(30)]
    results = {name: answers([error] * 30, case=case) for name, error in (("oracle", 1.0), ("any mole", 90.0))}
    assert alarms({**results, "control": answers([80.0] * 30, case=case)}, centres=[]) == []
    assert len(alarms({**results, "control": answers([3.0] * 30, case=case)}, centres=[])) == 1
