"""Votes for one place, worked by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchatlas.errors import ShapeError
from patchatlas.matching.consensus import Consensus, meet


def votes(
    places: list[tuple[float, float]],
    *,
    variances: list[float] | None = None,
    weights: list[float] | None = None,
    radius: float = 5.0,
) -> Consensus:
    many = len(places)
    spreads = torch.eye(2, dtype=torch.float64) * torch.tensor(variances or [1.0] * many).double()[:, None, None]
    return meet(
        torch.tensor(places, dtype=torch.float64).reshape(many, 2),
        spreads,
        torch.tensor(weights or [1.0] * many, dtype=torch.float64),
        radius=radius,
    )


def test_one_vote_is_the_place() -> None:
    found = votes([(3.0, 4.0)], variances=[2.0])
    assert found.place.tolist() == [3, 4]
    assert found.covariance.tolist() == [[2, 0], [0, 2]]
    assert found.support == 1


def test_a_stray_vote_moves_nothing_even_if_it_is_the_surest() -> None:
    found = votes([(10.0, 10.0), (12.0, 10.0), (90.0, 10.0)], variances=[1.0, 1.0, 1e-6])
    assert found.place.tolist() == pytest.approx([11, 10])
    assert found.agrees.tolist() == [True, True, False]
    assert found.support == pytest.approx(2 / 3)


def test_narrow_votes_count_more() -> None:
    """Variances 1 and 3: precisions 1 and 1/3, so the mean of 0 and 4 is at (4/3) / (4/3) = 1."""
    found = votes([(0.0, 0.0), (4.0, 0.0)], variances=[1.0, 3.0])
    assert found.place.tolist() == pytest.approx([1, 0])
    # half of (1 + 1^2) and half of (3 + 3^2) along x; half of 1 and half of 3 along y
    assert found.covariance.flatten().tolist() == pytest.approx([7, 0, 0, 2])


def test_a_vote_that_is_long_in_x_says_little_of_x() -> None:
    spreads = torch.tensor([[[100.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 100.0]]], dtype=torch.float64)
    places = torch.tensor([[0.0, 0.0], [3.0, 3.0]], dtype=torch.float64)
    found = meet(places, spreads, torch.ones(2, dtype=torch.float64), radius=5.0)
    assert found.place.tolist() == pytest.approx([300 / 101, 3 / 101])


def test_weight_decides_between_two_camps_and_closeness_between_equals() -> None:
    camps = [(0.0, 0.0), (1.0, 0.0), (50.0, 0.0), (54.0, 0.0)]
    assert votes(camps).agrees.tolist() == [True, True, False, False]
    assert votes(camps, weights=[1.0, 1.0, 1.0, 2.0]).agrees.tolist() == [False, False, True, True]


def test_no_votes_are_refused() -> None:
    with pytest.raises(ShapeError, match="no votes"):
        votes([])


@given(
    st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50), st.floats(0.1, 9)), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
)
def test_the_order_of_votes_does_not_matter(given_votes: list[tuple[float, float, float]], random) -> None:
    mixed = list(given_votes)
    random.shuffle(mixed)
    one, other = (
        votes([(x, y) for x, y, _ in some], variances=[v for _, _, v in some]) for some in (given_votes, mixed)
    )
    assert one.support == pytest.approx(other.support)
