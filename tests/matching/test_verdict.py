"""The verdict: lines drawn through the probability, and the cue that speaks loudest named."""

from dataclasses import replace

import pytest

from patchatlas.matching.confidence import Cues
from patchatlas.matching.verdict import State, judge
from tests.matching.test_confidence import CALIBRATION

CUES = Cues(lead=0.5, cycle=0.75, entropy=0.25)  # evidence: log 3, 0, 0; log-odds 0.5 + log 3, probability 0.832


@pytest.mark.parametrize(
    ("found", "absent", "state", "said"),
    [
        (0.83, 0.1, "found", "83 % likely right, above all because it leads the next best place by 0.50 standard"),
        (0.84, 0.83, "uncertain", "83 % likely right: that it matches back to 0.8 patches from the mark speaks most"),
        (0.95, 0.84, "absent", "only 83 % likely right: that it matches back"),
    ],
)
def test_the_lines_part_the_states(found: float, absent: float, state: State, said: str) -> None:
    verdict = judge(CUES, replace(CALIBRATION, found=found, absent=absent))
    assert (verdict.state, verdict.confidence) == (state, pytest.approx(0.8318, abs=1e-4))
    assert said in verdict.reason


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lead": -0.5}, "it is less like the mark than another place, by 0.50 standard"),
        ({"cycle": 6.0}, "it matches back to 6.0 patches from the mark"),
        ({"entropy": 0.875}, "its peak has an entropy of 0.88"),
        ({"residual": 15.0, "cycle": 0.0}, "it lies 15.0 sigma from where the other landmarks put it"),
        ({"views": 2, "agreement": 0.25, "cycle": 0.0}, "25% of the weight of all views agrees"),
    ],
)
def test_what_speaks_loudest_against_it_is_named(change: dict[str, float], said: str) -> None:
    verdict = judge(replace(CUES, **change), replace(CALIBRATION, found=1.0, absent=0.0))
    assert verdict.state == "uncertain"
    assert f"that {said}" in verdict.reason


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cycle": 0.0}, "it matches back to 0.0 patches"),
        ({"residual": 0.0}, "it lies 0.0 sigma from"),
        ({"views": 9, "agreement": 0.5}, "9 views agree"),
    ],
)
def test_what_speaks_loudest_for_it_is_named(change: dict[str, float], said: str) -> None:
    verdict = judge(replace(CUES, **change), replace(CALIBRATION, found=0.2, absent=0.1))
    assert verdict.state == "found"
    assert f"above all because {said}" in verdict.reason


@pytest.mark.parametrize(("entropy", "said"), [(1.0, "even surface"), (0.4, "too few patches")])
@pytest.mark.parametrize("line", [0.0, 1.0])
def test_a_place_that_was_compared_with_nothing_is_uncertain(entropy: float, said: str, line: float) -> None:
    """Even where the probability alone would say found (line 0) or absent (line 1)."""
    verdict = judge(Cues(lead=None, cycle=0.1, entropy=entropy), replace(CALIBRATION, found=line, absent=line))
    assert verdict.state == "uncertain"
    assert said in verdict.reason


def test_nothing_is_certain() -> None:
    assert "99 % likely" in judge(replace(CUES, lead=1e9), replace(CALIBRATION, base=50.0)).reason
    assert "only 1 % likely" in judge(CUES, replace(CALIBRATION, base=-50.0)).reason
