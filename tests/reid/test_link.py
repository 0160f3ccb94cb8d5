"""Linking: what must not be joined, what greedy joining gets wrong, who stays unknown, and what is said about it."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchatlas.errors import ShapeError, UsageError
from patchatlas.reid.boxes import Tracklet
from patchatlas.reid.calibrate import Calibration
from patchatlas.reid.link import (
    LinkRules,
    Links,
    average_linkage,
    barred_pairs,
    good_boxes,
    improved,
    link,
    observations_of,
)
from patchatlas.reid.portraits import Portrait

MakeTracklet = Callable[..., Tracklet]
MakePortrait = Callable[..., Portrait]

RED, REDDISH, BLUE = (1.0, 0.0, 0.0), (1.0, 0.1, 0.0), (0.0, 1.0, 0.0)
FAR = (300, 0, 310, 20)


def linked(*people: Portrait, threshold: float = 0.7, **rules: object) -> Links:
    return link(people, threshold=threshold, seconds_a_frame=0.1, rules=LinkRules(**rules))  # type: ignore[arg-type]


def test_who_comes_back_is_known_again(tracklet: MakeTracklet, portrait: MakePortrait) -> None:
    people = [
        portrait(tracklet(1, range(30)), RED, RED),
        portrait(tracklet(2, range(30), FAR), BLUE, BLUE),
        portrait(tracklet(3, range(100, 130), FAR), RED, REDDISH),
    ]
    found = linked(*people)
    assert found.identities == {1: 1, 2: 2, 3: 1}
    assert (found.unknown, found.second_boxes) == ((), {})
    assert linked(*people[::-1]) == found  # order does not matter


def test_people_seen_together_stay_apart_however_alike(tracklet: MakeTracklet, portrait: MakePortrait) -> None:
    """Defects 13 and 14."""
    twins = [portrait(tracklet(1, range(30)), RED), portrait(tracklet(2, range(20, 50), FAR), RED)]
    assert linked(*twins).identities == {1: 1, 2: 2}


def test_few_observations_are_no_reason_to_merge(tracklet: MakeTracklet, portrait: MakePortrait) -> None:
    """Defect 14: entities of three boxes merged at a cosine of 0.26."""
    brief = portrait(tracklet(2, range(50, 53)), (0.3, 1.0, 0.0))
    found = linked(portrait(tracklet(1, range(30)), RED), brief)
    assert found.identities == {1: 1}
    assert found.unknown == (2,)


def test_brief_tracklets_join_but_found_nobody(tracklet: MakeTracklet, portrait: MakePortrait) -> None:
    """Defect 15: few observations of a class became one entity, noise got lost."""
    people = [portrait(tracklet(1, range(30)), RED)]
    people += [portrait(tracklet(2 + k, range(50 + 10 * k, 54 + 10 * k)), BLUE) for k in range(3)]
    people.append(portrait(tracklet(9, range(90, 94)), REDDISH))
    found = linked(*people)
    assert found.identities == {1: 1, 9: 1}
    assert found.unknown == (2, 3, 4)


def test_brief_tracklets_seen_together_do_not_share_an_identity(tracklet: MakeTracklet, portrait: MakePortrait) -> None:
    people = [portrait(tracklet(1, range(30)), RED)]
    people += [portrait(tracklet(2, range(50, 58)), RED), portrait(tracklet(3, range(50, 58), FAR), REDDISH)]
    found = linked(*people)
    assert found.identities == {1: 1, 2: 1}
    assert found.unknown == (3,)


def test_a_tracklet_without_vectors_is_unknown(tracklet: MakeTracklet, portrait: MakePortrait) -> None:
    """Defect 7: what could not be embedded became an identity of its own."""
    found = linked(portrait(tracklet(1, range(30)), RED), portrait(tracklet(2, range(50, 90))))
    assert (found.identities, found.unknown) == ({1: 1}, (2,))
    assert linked(portrait(tracklet(2, range(50, 90)))).unknown == (2,)
    assert linked().identities == {}


def test_second_boxes_have_no_identity(tracklet: MakeTracklet, portrait: MakePortrait) -> None:
    people = [portrait(tracklet(1, range(60)), RED), portrait(tracklet(2, range(20, 50), (1, 0, 11, 20)), RED)]
    found = linked(*people)
    assert (found.identities, found.second_boxes, found.unknown) == ({1: 1}, {2: 1}, ())


def test_labels_and_travel(tracklet: MakeTracklet, portrait: MakePortrait) -> None:
    here = portrait(tracklet(1, range(30)), RED)
    # 300 px are 15 heights; 0.6 s pass from frame 29 to 35.
    there = portrait(tracklet(2, range(35, 65), FAR), RED)
    dog = portrait(tracklet(3, range(80, 110), label="dog"), RED)
    assert linked(here, there, dog).identities == {1: 1, 2: 1, 3: 2}
    assert linked(here, there, dog, same_label=False).identities == {1: 1, 2: 1, 3: 1}
    assert linked(here, there, top_speed=24.0).identities == {1: 1, 2: 2}
    assert linked(here, there, top_speed=26.0).identities == {1: 1, 2: 1}
    assert not barred_pairs([here.tracklet, there.tracklet], rules=LinkRules(top_speed=26.0), seconds_a_frame=0.1).any()


def test_average_linkage_by_hand() -> None:
    alike = np.array([[1, 0.9, 0.5, 0.1], [0.9, 1, 0.6, 0.1], [0.5, 0.6, 1, 0.8], [0.1, 0.1, 0.8, 1]])
    free, ones = np.zeros((4, 4), bool), np.ones(4)
    assert average_linkage(alike, free, ones, threshold=0.7) == [0, 0, 2, 2]
    # The mean between the two groups is (0.5 + 0.1 + 0.6 + 0.1) / 4.
    assert average_linkage(alike, free, ones, threshold=0.325) == [0, 0, 0, 0]
    assert average_linkage(alike, free, ones, threshold=0.33) == [0, 0, 2, 2]
    # With weight 3 for the second tracklet the first group's mean to the third is (0.5 + 3 * 0.6) / 4.
    barred = free.copy()
    barred[2, 3] = barred[3, 2] = True
    weights = np.array([1.0, 3.0, 1.0, 1.0])
    assert average_linkage(alike, barred, weights, threshold=0.575) == [0, 0, 0, 3]
    assert average_linkage(alike, barred, weights, threshold=0.576) == [0, 0, 2, 3]


def test_a_swap_puts_right_what_greedy_joining_got_wrong() -> None:
    """Twins 0 and 1, seen together, come back as 2 and 3: 0-3 is the most alike pair, but 0-2 and 1-3 fit better."""
    alike = np.array([[1, 0.5, 0.9, 0.91], [0.5, 1, 0.6, 0.9], [0.9, 0.6, 1, 0.5], [0.91, 0.9, 0.5, 1]])
    barred = np.zeros((4, 4), bool)
    barred[0, 1] = barred[1, 0] = barred[2, 3] = barred[3, 2] = True
    greedy = average_linkage(alike, barred, np.ones(4), threshold=0.5)
    assert greedy == [0, 1, 1, 0]
    better = improved(alike, barred, np.ones(4), greedy, threshold=0.5)
    assert better[0] == better[2] != better[1] == better[3]


def value(alike: np.ndarray, groups: list[int], threshold: float) -> float:
    pairs = itertools.combinations(range(len(groups)), 2)
    return sum(float(alike[i, j]) - threshold for i, j in pairs if groups[i] == groups[j])


@settings(max_examples=40)
@given(st.integers(0, 10_000))
def test_improving_never_breaks_a_bar_nor_makes_worse(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 9))
    alike = rng.uniform(0, 1, (n, n))
    alike = (alike + alike.T) / 2
    barred = np.triu(rng.random((n, n)) < 0.3, 1)
    barred |= barred.T
    greedy = average_linkage(alike, barred, np.ones(n), threshold=0.5)
    better = improved(alike, barred, np.ones(n), greedy, threshold=0.5)
    for groups in (greedy, better):
        assert not any(barred[i, j] and groups[i] == groups[j] for i, j in itertools.combinations(range(n), 2))
    assert value(alike, better, 0.5) >= value(alike, greedy, 0.5) - 1e-9
    # No single move is left that would be better.
    for i, group in itertools.product(range(n), range(n + 1)):
        moved = [group if k == i else other for k, other in enumerate(better)]
        allowed = not any(barred[i, j] and moved[j] == group for j in range(n) if j != i)
        assert not allowed or value(alike, moved, 0.5) <= value(alike, better, 0.5) + 1e-6


def test_good_boxes_count_quality(tracklet: MakeTracklet, portrait: MakePortrait) -> None:
    usual = [portrait(tracklet(k, range(20)), RED, RED, weights=(0.8, 0.8)) for k in (1, 2)]
    poor = portrait(tracklet(3, range(20)), RED, RED, weights=(0.4, 0.2))
    best = portrait(tracklet(4, range(20)), RED, weights=(5.0,))
    np.testing.assert_allclose(good_boxes([*usual, poor, best]), [20, 20, 7.5, 20])


def test_boxes_of_identities_are_one_a_frame(tracklet: MakeTracklet) -> None:
    one, other = tracklet(5, range(3)), tracklet(6, range(2, 5), (1, 0, 11, 20))
    alone = tracklet(7, range(3), FAR)
    seen = observations_of([one, other, alone], {5: 1, 6: 1})
    assert [(row.frame, row.track, row.box[0]) for row in seen] == [
        (0, 1, 0),
        (1, 1, 0),
        (2, 1, 0),
        (3, 1, 1),
        (4, 1, 1),
    ]


def test_reasons_and_doubts(tracklet: MakeTracklet, portrait: MakePortrait) -> None:
    curve = Calibration((0.0, 1.0), (0.0, 1.0), "logistic", 9, 9, 0.0)  # p is the cosine
    people = [
        portrait(tracklet(1, range(30)), (1.0, 0.0)),
        portrait(tracklet(2, range(30), FAR), (0.6, 0.8)),
        portrait(tracklet(3, range(50, 80)), (0.8, 0.6)),  # cosine 0.8 with the first, 0.96 with the second
        portrait(tracklet(4, range(90, 94)), (0.0, -1.0)),
    ]
    found = link(people, threshold=0.7, seconds_a_frame=0.1, calibration=curve)
    assert found.identities == {1: 1, 2: 2, 3: 2}
    reason = found.reasons[2]
    assert (reason.tracklet, reason.identity, reason.rival) == (3, 2, 1)
    assert reason.likeness == pytest.approx(0.96)
    assert reason.chance == pytest.approx(0.96)
    assert reason.rival_likeness == pytest.approx(0.8)
    # The first has nobody, and nobody it could be: the second identity was seen beside it.
    assert (found.reasons[0].likeness, found.reasons[0].rival) == (None, None)
    assert found.doubts == ()
    unsure = link(people, threshold=0.7, seconds_a_frame=0.1, calibration=curve, rules=LinkRules(margin=0.2, sure=0.97))
    assert [(doubt.tracklet, doubt.candidate) for doubt in unsure.doubts] == [(2, 2), (3, 2), (3, 1)]


def test_a_table_of_other_similarities(tracklet: MakeTracklet, portrait: MakePortrait) -> None:
    people = [portrait(tracklet(1, range(30)), RED), portrait(tracklet(2, range(50, 80)), RED)]
    apart = torch.eye(2, dtype=torch.float64)
    assert link(people, threshold=0.7, seconds_a_frame=0.1, similarity=apart).identities == {1: 1, 2: 2}
    with pytest.raises(ShapeError, match="square table"):
        link(people, threshold=0.7, seconds_a_frame=0.1, similarity=torch.eye(3, dtype=torch.float64))


def test_what_is_refused(tracklet: MakeTracklet, portrait: MakePortrait) -> None:
    one = portrait(tracklet(1, range(30)), RED)
    with pytest.raises(UsageError, match="same tracklet number"):
        linked(one, one)
    for rules in ({"tolerance": -1}, {"top_speed": 0.0}, {"sure": 0.2}):
        with pytest.raises(UsageError):
            LinkRules(**rules)  # type: ignore[arg-type]


def test_linking_puts_twins_right_in_the_end(tracklet: MakeTracklet, portrait: MakePortrait) -> None:
    alike = torch.tensor(
        [[1, 0.5, 0.9, 0.91], [0.5, 1, 0.6, 0.9], [0.9, 0.6, 1, 0.5], [0.91, 0.9, 0.5, 1]], dtype=torch.float64
    )
    times, places = (range(30), range(50, 80)), ((0, 0, 10, 20), FAR)
    people = [
        portrait(tracklet(1 + k, time, place), RED) for k, (time, place) in enumerate(itertools.product(times, places))
    ]
    found = link(people, threshold=0.5, seconds_a_frame=0.1, similarity=alike)
    assert found.identities == {1: 1, 2: 2, 3: 1, 4: 2}
