"""The rule: found needs both cues, absent needs neither, all else is uncertain."""

from typing import Any

import pytest

from patchatlas.errors import UsageError
from patchatlas.matching.verdict import Limits, State, decide, decide_together

LIMITS = Limits(cycle_found=1.0, cycle_absent=3.0, lead=0.5)


@pytest.mark.parametrize(
    ("cycle_px", "margin", "state", "said"),
    [
        (8.0, 0.10, "found", ["8.0 px", "limit 10.0", "1.00 standard", "limit 0.5"]),
        (10.0, 0.05, "found", ["10.0 px", "0.50 standard"]),
        (10.1, 0.05, "uncertain", ["found within 10.0", "0.50 standard"]),
        (10.0, 0.04, "uncertain", ["nearly as good", "0.40 standard", "limit 0.5"]),
        (29.9, 0.04, "uncertain", ["nearly as good", "29.9 px"]),
        (30.0, 0.04, "absent", ["30.0 px", "limit 30.0", "only 0.40"]),
        (400.0, 0.05, "uncertain", ["400.0 px", "though it leads"]),
        (400.0, 0.0, "absent", ["400.0 px", "only 0.00"]),
    ],
)
def test_both_cues_decide(cycle_px: float, margin: float, state: str, said: list[str]) -> None:
    answer, reason = decide(cycle_px=cycle_px, patch_px=10.0, margin=margin, deviation=0.1, limits=LIMITS)
    assert answer == state
    for words in said:
        assert words in reason


def test_the_cycle_is_measured_in_patches_and_the_margin_in_deviations() -> None:
    assert decide(cycle_px=15.0, patch_px=10.0, margin=0.05, deviation=0.1, limits=LIMITS)[0] == "uncertain"
    assert decide(cycle_px=15.0, patch_px=16.0, margin=0.05, deviation=0.1, limits=LIMITS)[0] == "found"
    assert decide(cycle_px=15.0, patch_px=16.0, margin=0.05, deviation=0.2, limits=LIMITS)[0] == "uncertain"


@pytest.mark.parametrize("deviation", [0.0, 1e-7])
def test_an_even_map_says_nothing(deviation: float) -> None:
    state, reason = decide(cycle_px=500.0, patch_px=10.0, margin=0.0, deviation=deviation)
    assert state == "uncertain"
    assert "even surface" in reason


@pytest.mark.parametrize("wrong", [{"cycle_found": 0.0}, {"cycle_found": 4.0}, {"lead": -0.1}])
def test_limits_in_the_wrong_order_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="cannot be used"):
        Limits(**wrong)


def test_a_map_without_a_second_place_says_so() -> None:
    state, reason = decide(cycle_px=1.0, patch_px=10.0, margin=None, deviation=0.1, limits=LIMITS)
    assert state == "uncertain"
    assert "too few patches" in reason


@pytest.mark.parametrize(
    ("agreeing", "views", "support", "state", "said"),
    [
        (["found", "uncertain"], 3, 0.7, "found", "2 of 3 views agree (70% of the weight)"),
        (["uncertain"] * 3, 5, 0.6, "found", "3 of 5"),
        (["uncertain"] * 2, 3, 0.6, "uncertain", "none of them sure"),
        (["found", "found"], 5, 0.45, "uncertain", "less than half"),
        (["absent"], 4, 0.2, "absent", "no two of 4"),
        (["found"], 4, 0.3, "uncertain", "no two of 4"),
    ],
)
def test_views_decide_together(agreeing: list[State], views: int, support: float, state: str, said: str) -> None:
    answer, reason = decide_together(agreeing, views=views, support=support)
    assert answer == state
    assert said in reason
