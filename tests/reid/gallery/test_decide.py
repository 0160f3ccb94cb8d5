"""Open-set decisions: named, new or unknown, for all of an episode at once."""

from itertools import product

import numpy as np
import pytest

from patchatlas.errors import UsageError
from patchatlas.reid.gallery.decide import Limits, decide, give_out

LIMITS = Limits(named=0.8, stranger=0.6, margin=0.05)


def table(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, dtype=np.float64).reshape(len(rows), -1)


def said(likeness: np.ndarray, apart: np.ndarray | None = None, barred: np.ndarray | None = None) -> list[tuple]:
    g = len(likeness)
    apart = ~np.eye(g, dtype=bool) if apart is None else apart
    barred = np.zeros(likeness.shape, dtype=bool) if barred is None else barred
    return [(one.verdict, one.candidate) for one in decide(likeness, barred, apart, limits=LIMITS)]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ((0.9, 0.2), ("known", 0)),
        ((0.2, 0.85), ("known", 1)),
        ((0.7, 0.2), ("unknown", 0)),  # between stranger and named
        ((0.9, 0.88), ("unknown", 0)),  # no margin
        ((0.5, 0.59), ("new", 1)),  # below stranger
        ((), ("new", None)),
    ],
)
def test_one_against_a_gallery(row, expected):
    assert said(table(row)) == [expected]


def test_those_seen_together_are_never_one_person():
    likeness = table((0.95, 0.1), (0.88, 0.1))
    assert said(likeness) == [("known", 0), ("new", 1)]
    # Two parts of one person's stay may both be that person.
    assert said(likeness, apart=np.zeros((2, 2), dtype=bool)) == [("known", 0), ("known", 0)]


def test_who_is_barred_is_nobody():
    assert said(table((0.95, 0.9)), barred=np.array([[True, False]])) == [("known", 1)]
    assert said(table((0.95,)), barred=np.array([[True]])) == [("new", None)]


def test_twins_seen_together_are_told_apart_by_both():
    # Either alone has no margin (0.93 against 0.91), but exchanging both would cost 0.05 in all.
    likeness = table((0.93, 0.91), (0.90, 0.93))
    assert said(likeness[:1]) == [("unknown", 0)]
    assert said(likeness) == [("known", 0), ("known", 1)]


def test_one_who_is_claimed_by_somebody_seen_with_them_is_unknown():
    # Nobody can say which of the two, seen together, is the one of the gallery.
    verdicts = said(table((0.92,), (0.90,)))
    assert verdicts[0] == ("unknown", 0)
    assert verdicts[1][0] == "new"


def test_an_exchange_beats_the_greedy_way():
    # Greedy gives the first its 0.95 and leaves the second nothing; 0.94 + 0.9 is more than 0.95 + the floor.
    assert give_out(table((0.95, 0.94), (0.90, 0.1)), ~np.eye(2, dtype=bool), floor=0.6) == [1, 0]


def test_giving_out_is_as_good_as_trying_all_ways():
    rng = np.random.default_rng(4)
    for _ in range(60):
        likeness = rng.uniform(0.3, 1.0, (3, 3))
        apart = np.triu(rng.random((3, 3)) < 0.7, 1)
        apart |= apart.T

        def worth(given, likeness=likeness):
            return sum(likeness[k, whom] - 0.6 for k, whom in enumerate(given) if whom is not None)

        ways = [
            given
            for given in product([None, 0, 1, 2], repeat=3)
            if not any(given[a] is not None and given[a] == given[b] for a, b in zip(*np.nonzero(apart), strict=True))
        ]
        best = max(map(worth, ways))
        found = give_out(likeness, apart, floor=0.6)
        assert tuple(found) in ways
        assert worth(found) >= best - 0.08  # moves and exchanges; a ring of three may stay


def test_limits_out_of_order():
    with pytest.raises(UsageError, match="at least stranger"):
        Limits(named=0.5, stranger=0.6, margin=0.0)
