"""Why tracks are one and others not: ties, cosines, and the words of each rule."""

import pytest

from patchatlas.reid.calibrate import Calibration
from patchatlas.reid.evidence import cases
from tests.reid.conftest import MakePortrait, MakeTracklet

CURVE = Calibration((-1.0, 1.0), (0.0, 1.0), "logistic", 5, 5, 0.0)


def test_each_track_is_tied_to_the_one_that_it_resembles_most(tracklet: MakeTracklet, portrait: MakePortrait) -> None:
    """Angles 0, 40, 10 and 60 degrees: the tree grows 3 (10 to 0), 2 (40 to 10), 4 (60 to 40)."""
    looks = {1: (1.0, 0.0), 2: (0.7660444, 0.6427876), 3: (0.9848078, 0.1736482), 4: (0.5, 0.8660254)}
    some = [portrait(tracklet(n, range(20 * n, 20 * n + 5)), look) for n, look in looks.items()]
    (case,) = cases(some[::-1], dict.fromkeys(looks, 1), {}, calibration=CURVE)
    assert case.tracks == (1, 2, 3, 4)
    assert [(pair.one, pair.other) for pair in case.joins] == [(3, 1), (2, 3), (4, 2)]
    assert case.joins[0].likeness == pytest.approx(0.9848078)
    assert case.joins[0].chance == pytest.approx((1 + 0.9848078) / 2)
    assert case.cosines[0, 3] == pytest.approx(0.5)
    assert case.apart == ()


def test_what_is_kept_apart_by_a_rule_is_told_likest_first(tracklet: MakeTracklet, portrait: MakePortrait) -> None:
    some = [
        portrait(tracklet(1, range(10)), (1.0, 0.0)),
        portrait(tracklet(2, range(6, 20)), (0.8, 0.6)),
        portrait(tracklet(3, range(30, 40), label="dog"), (0.96, 0.28)),
        portrait(tracklet(4, range(50, 60)), (1.0, 0.0)),
    ]
    apart = {(1, 2): "together", (1, 3): "label"}
    mine, *_ = cases(some, {1: 1, 2: 2, 4: 3}, apart)
    assert [(pair.one, pair.other) for pair in mine.apart] == [(1, 3), (1, 2)]  # 4 could have been joined
    assert [gate.words for pair in mine.apart for gate in pair.gates] == [
        "person and dog",
        "seen at the same time in 4 frames",
    ]
    assert not any(gate.passed for pair in mine.apart for gate in pair.gates)
    assert mine.apart[0].chance is None
    assert mine.joins == ()
    assert len(cases(some, {1: 1, 2: 2}, apart, most_apart=1)[0].apart) == 1


def test_rules_that_were_passed_are_told_too(tracklet: MakeTracklet, portrait: MakePortrait) -> None:
    one = portrait(tracklet(1, range(10)), (1.0, 0.0))
    later = portrait(tracklet(2, range(9, 20)), (1.0, 0.0))
    other = portrait(tracklet(3, range(30, 40), label="dog"), (1.0, 0.0))
    (case,) = cases([one, later, other], {1: 1, 2: 1, 3: 1}, {})
    words = {pair.one: [gate.words for gate in pair.gates] for pair in case.joins}
    assert words[2] == ["at the same time in 1 frame only, touching: handed over late", "both person"]
    assert words[3][0] == "never seen at the same time"
    assert "dog" in words[3][1]
    assert all(gate.passed for pair in case.joins for gate in pair.gates)


def test_tracks_without_a_vector_are_no_part_of_it(tracklet: MakeTracklet, portrait: MakePortrait) -> None:
    seen, blank = portrait(tracklet(1, range(10)), (1.0, 0.0)), portrait(tracklet(2, range(20, 30)))
    (case,) = cases([seen, blank], {1: 1, 2: 1}, {})
    assert case.tracks == (1,)
    assert cases([blank], {}, {}) == ()
    (alone,) = cases([blank], {2: 1}, {})
    assert alone.tracks == ()
    assert alone.joins == ()
