"""One place for one landmark, held against trying every way."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchatlas.errors import ShapeError
from patchatlas.matching.assignment import NOWHERE, assign, merge_places

NEVER = -math.inf


def table(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_two_that_want_one_place_share_out_by_what_the_loser_loses() -> None:
    """Both like place 0 best; landmark 1 has a good second choice, so 0 keeps it."""
    assert assign(table([[5.0, 1.0], [6.0, 5.5]]), nowhere=0.0).tolist() == [0, 1]


def test_a_place_below_nowhere_is_not_taken() -> None:
    assert assign(table([[-1.0], [2.0]]), nowhere=0.0).tolist() == [NOWHERE, 0]
    assert assign(table([[NEVER, NEVER]]), nowhere=-5.0).tolist() == [NOWHERE]


def test_more_landmarks_than_places() -> None:
    assert assign(table([[1.0], [3.0], [2.0]]), nowhere=0.0).tolist() == [NOWHERE, 0, NOWHERE]


def test_no_candidates_at_all() -> None:
    assert assign(torch.zeros(2, 0, dtype=torch.float64), nowhere=0.0).tolist() == [NOWHERE, NOWHERE]


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_scores_that_are_none_are_refused(wrong: float) -> None:
    with pytest.raises(ShapeError, match="minus infinity"):
        assign(table([[wrong]]), nowhere=0.0)


@given(
    st.integers(1, 4).flatmap(
        lambda c: st.lists(
            st.lists(st.one_of(st.integers(-4, 8).map(float), st.just(NEVER)), min_size=c, max_size=c),
            min_size=1,
            max_size=4,
        )
    ),
    st.integers(-3, 3),
)
def test_nothing_scores_more(rows: list[list[float]], nowhere: int) -> None:
    scores = table(rows)
    k, c = scores.shape

    def total(choice: tuple[int, ...]) -> float:
        return sum(nowhere if place == NOWHERE else rows[n][place] for n, place in enumerate(choice))

    ways = (
        way
        for way in itertools.product([NOWHERE, *range(c)], repeat=k)
        if len(taken := [place for place in way if place != NOWHERE]) == len(set(taken))
    )
    chosen = tuple(assign(scores, nowhere=float(nowhere)).tolist())
    taken = [place for place in chosen if place != NOWHERE]
    assert len(taken) == len(set(taken))
    assert total(chosen) == max(map(total, ways))


def test_near_places_become_the_best_of_them() -> None:
    places = table([[0.0, 0.0], [3.0, 0.0], [6.0, 0.0], [50.0, 0.0]])
    values = torch.tensor([1.0, 3.0, 2.0, 0.0], dtype=torch.float64)
    assert merge_places(places, values, radius=3.0).tolist() == [1, 1, 1, 3]
    assert merge_places(places, values.flip(0), radius=3.0).tolist() == [0, 2, 2, 3]  # 1 lies as near to 2 as to 0


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 5)), max_size=12))
def test_places_merge_as_if_each_were_compared_with_each(rows: list[tuple[int, int, int]]) -> None:
    places = torch.tensor([row[:2] for row in rows], dtype=torch.float64).reshape(-1, 2)
    values = torch.tensor([row[2] for row in rows], dtype=torch.float64)
    kept: list[int] = []
    expected = list(range(len(rows)))
    for index in sorted(range(len(rows)), key=lambda n: -rows[n][2]):
        near = [(math.dist(rows[index][:2], rows[n][:2]), n) for n in sorted(kept)]
        if near and min(near)[0] <= 3:
            expected[index] = min(near)[1]
        else:
            kept.append(index)
    assert merge_places(places, values, radius=3.0).tolist() == expected
