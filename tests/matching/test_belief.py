"""Scores of likeness and prediction: numbers worked by hand, and nothing that is not scored counts."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchatlas.matching.belief import (
    ASTRAY,
    in_deviations,
    local_maxima,
    prediction_density,
    prediction_density_on_grid,
    views_together,
)

NAN = math.nan
ALL = torch.ones(4, dtype=torch.bool)


def pixels(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_maps_count_in_their_own_deviations() -> None:
    maps = torch.tensor([[1.0, 1, 3, 3], [10, 10, 30, 30], [5, 5, 5, 5]])
    expected = torch.tensor([[-1.0, -1, 1, 1], [-1, -1, 1, 1], [0, 0, 0, 0]])
    torch.testing.assert_close(in_deviations(maps, ALL), expected)


def test_cells_that_are_not_scored_change_no_other() -> None:
    scored = torch.tensor([True, True, False, True])
    one, other = torch.tensor([[1.0, 2, 100, 4]]), torch.tensor([[1.0, 2, -7, 4]])
    torch.testing.assert_close(in_deviations(one, scored)[:, scored], in_deviations(other, scored)[:, scored])
    assert in_deviations(one, scored)[0, 0] == pytest.approx((1 - 7 / 3) / math.sqrt(14 / 9))


def test_one_view_is_its_map_and_several_lie_between_mean_and_largest() -> None:
    maps = torch.tensor([[3.0, 0, 0, -1], [0.0, 2.9, 2.9, -1]])
    torch.testing.assert_close(views_together(maps[:1], ALL), maps[0])
    raw = torch.tensor([math.log(math.e**3 + 1), math.log(math.e**2.9 + 1), math.log(math.e**2.9 + 1), math.log(2) - 1])
    torch.testing.assert_close(views_together(maps, ALL), (raw - raw.mean()) / raw.std(correction=0))


def test_equal_views_say_what_one_says() -> None:
    one = in_deviations(torch.tensor([[1.0, 2, 5, 3]]), ALL)
    torch.testing.assert_close(views_together(one.expand(3, -1), ALL), one[0])


def test_density_is_a_gaussian_over_a_floor() -> None:
    """Deviation 10 px in a target of 20000 px2: 20000 / (2 pi 100) = 31.83 at the prediction, e^-2 of it 20 px off."""
    places = pixels((50, 50), (50, 70), (5000, 50))
    density = prediction_density(places[None], pixels((50, 50))[None], pixels((10.0,)), area=20000.0)
    peak = (1 - ASTRAY) * 20000 / (2 * math.pi * 100)
    torch.testing.assert_close(density, torch.tensor([[peak + ASTRAY, peak * math.exp(-2) + ASTRAY, ASTRAY]]))


def test_several_predictions_are_mixed_and_those_that_are_none_left_out() -> None:
    places = pixels((50, 50), (90, 50))
    both = torch.stack([pixels((50, 50), (90, 50)), pixels((50, 50), (NAN, NAN)), pixels((NAN, NAN), (NAN, NAN))])
    sigma = torch.tensor([[10.0, 5.0], [10.0, NAN], [NAN, NAN]], dtype=torch.float64)
    density = prediction_density(places.expand(3, -1, -1), both, sigma, area=20000.0)
    wide, narrow = 20000 / (2 * math.pi * 100), 20000 / (2 * math.pi * 25)
    first = (1 - ASTRAY) * torch.tensor([wide, narrow + wide * math.exp(-8)]) / 2 + ASTRAY
    second = (1 - ASTRAY) * torch.tensor([wide, wide * math.exp(-8)]) + ASTRAY
    torch.testing.assert_close(density, torch.stack([first, second, torch.ones(2)]))
    own = prediction_density(torch.stack([places, places.flip(0), places]), both, sigma, area=20000.0)
    torch.testing.assert_close(own, torch.stack([first, second.flip(0), torch.ones(2)]))


def test_on_a_grid_it_is_what_it_is_at_each_crossing() -> None:
    columns, rows = torch.tensor([4.0, 12, 20], dtype=torch.float64), torch.tensor([3.0, 9], dtype=torch.float64)
    predicted = torch.stack([pixels((5, 4), (NAN, NAN)), pixels((18, 7), (6, 6)), pixels((NAN, NAN), (NAN, NAN))])
    sigma = torch.tensor([[6.0, NAN], [3.0, 9.0], [NAN, NAN]], dtype=torch.float64)
    crossings = pixels(*((x, y) for y in rows.tolist() for x in columns.tolist())).expand(3, -1, -1)
    expected = prediction_density(crossings, predicted, sigma, area=900.0).reshape(3, 2, 3)
    torch.testing.assert_close(prediction_density_on_grid(columns, rows, predicted, sigma, area=900.0), expected)


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 5))
def test_tops_are_no_lower_than_any_scored_neighbour(seed: int, rows: int, columns: int) -> None:
    random = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 4, (2, rows, columns), generator=random).float()
    scored = torch.rand(rows, columns, generator=random) < 0.8
    found = local_maxima(values, scored)
    for k in range(2):
        for r in range(rows):
            for c in range(columns):
                near = [
                    values[k, y, x]
                    for y in range(max(0, r - 1), min(rows, r + 2))
                    for x in range(max(0, c - 1), min(columns, c + 2))
                    if scored[y, x]
                ]
                assert bool(found[k, r, c]) == (bool(scored[r, c]) and values[k, r, c] >= max(near))
