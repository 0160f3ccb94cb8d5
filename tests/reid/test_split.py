"""Cuts: where looks change and a tracker may have gone wrong, and nowhere else."""

from collections.abc import Callable

import pytest

from patchatlas.errors import UsageError
from patchatlas.reid.boxes import Tracklet
from patchatlas.reid.portraits import Portrait
from patchatlas.reid.split import best_cut, doubtful_frames, split_impure

MakeTracklet = Callable[..., Tracklet]
MakePortrait = Callable[..., Portrait]
RED, BLUE = (1.0, 0.0, 0.1), (0.0, 1.0, 0.1)


def test_a_jump_is_cut_where_it_is(tracklet: MakeTracklet, portrait: MakePortrait) -> None:
    jumps = portrait(tracklet(1, range(24), dx=2), *[RED] * 5, *[BLUE] * 3)  # a crop every 3 frames
    passer_by = portrait(tracklet(7, range(8, 14), (20, 0, 30, 20), dx=2), *[BLUE] * 6)
    parts, cuts = split_impure([jumps, passer_by], below=0.5)
    assert [(cut.tracklet, cut.new, cut.frame) for cut in cuts] == [(1, 8, 14)]  # halfway between crops 12 and 15
    assert cuts[0].likeness < 0.1
    assert [(part.tracklet.id, part.frames) for part in parts] == [
        (1, (0, 3, 6, 9, 12)),
        (8, (15, 18, 21)),
        (7, (8, 9, 10, 11, 12, 13)),
    ]
    assert [len(part.tracklet.observations) for part in parts] == [14, 10, 6]
    assert {seen.track for seen in parts[1].tracklet.observations} == {8}


def test_no_cut_where_nothing_came_near(tracklet: MakeTracklet, portrait: MakePortrait) -> None:
    """A change of looks alone is a turn or a shadow."""
    jumps = portrait(tracklet(1, range(24), dx=2), *[RED] * 5, *[BLUE] * 3)
    far = portrait(tracklet(7, range(24), (200, 0, 210, 20)), *[BLUE] * 6)
    parts, cuts = split_impure([jumps, far], below=0.5)
    assert (len(parts), cuts) == (2, [])


def test_no_cut_where_looks_stay(tracklet: MakeTracklet, portrait: MakePortrait) -> None:
    same = portrait(tracklet(1, range(24), dx=2), *[RED] * 8)
    passer_by = portrait(tracklet(7, range(8, 14), (20, 0, 30, 20), dx=2), *[BLUE] * 6)
    assert split_impure([same, passer_by], below=0.5)[1] == []


def test_there_and_back_is_cut_twice(tracklet: MakeTracklet, portrait: MakePortrait) -> None:
    jumps = portrait(tracklet(1, range(36)), *[RED] * 3, *[BLUE] * 6, *[RED] * 3)
    on_top = portrait(tracklet(2, range(36), (2, 0, 12, 20)), *[BLUE] * 3)
    parts, cuts = split_impure([jumps, on_top], below=0.5)
    assert sorted(cut.frame for cut in cuts) == [8, 26]
    assert [part.frames for part in parts[:3]] == [(0, 3, 6), (9, 12, 15, 18, 21, 24), (27, 30, 33)]


def test_crops_of_little_worth_do_not_cut(tracklet: MakeTracklet, portrait: MakePortrait) -> None:
    """Behind somebody else the crop shows the other; the cosine is of what is worth looking at."""
    weights = (1.0,) * 5 + (1e-3,) * 2 + (1.0,)
    hidden = portrait(tracklet(1, range(24)), *[RED] * 5, *[BLUE] * 2, RED, weights=weights)
    on_top = portrait(tracklet(2, range(24), (2, 0, 12, 20)), *[BLUE] * 3)
    assert split_impure([hidden, on_top], below=0.5)[1] == []


def test_too_few_crops_cannot_be_cut(tracklet: MakeTracklet, portrait: MakePortrait) -> None:
    few = portrait(tracklet(1, range(10)), *[RED] * 3, *[BLUE] * 2)
    assert best_cut(few, frozenset(range(10))) == (None, 1.0)
    assert split_impure([portrait(tracklet(1, range(10)))], below=0.5)[1] == []
    assert split_impure([], below=0.5) == ([], [])


def test_doubtful_frames(tracklet: MakeTracklet) -> None:
    one, other = tracklet(1, range(10)), tracklet(2, range(4, 8), (-12, 0, -2, 20), dx=4)
    # The other's right edge is at -2, 2, 6, 10: it covers a fifth, then more, from its second frame on.
    assert doubtful_frames([one, other]) == [frozenset({5, 6, 7}), frozenset({5, 6, 7})]
    gone = tracklet(3, range(0, 10, 5))
    assert doubtful_frames([gone]) == [frozenset({0, 5})]


def test_a_threshold_that_is_no_cosine() -> None:
    with pytest.raises(UsageError, match="cosine"):
        split_impure([], below=1.5)


def test_the_best_cut_weighs_both_sides(tracklet: MakeTracklet, portrait: MakePortrait) -> None:
    """The last three crops are the most unlike, and worth next to nothing."""
    orange, green = (0.4, 0.9, 0.1), (0.0, 0.0, 1.0)
    weights = (1.0,) * 9 + (0.01,) * 3
    one = portrait(tracklet(1, range(36)), *[(1.0, 0.0, 0.0)] * 5, *[orange] * 4, *[green] * 3, weights=weights)
    assert best_cut(one, frozenset(range(36)))[0] == 5
