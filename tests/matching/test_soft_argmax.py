"""The soft peak: weights worked by hand, cells that may not be an answer, and maps with more than one peak."""

import math

import pytest
import torch

from patchatlas.errors import ShapeError
from patchatlas.matching.peaks import soft_argmax

ALL = torch.ones(3, 4, dtype=torch.bool)


def place(
    similarity: torch.Tensor, scored: torch.Tensor, cell: tuple[int, ...], *, reach: int, temperature: float
) -> list[float]:
    cells = torch.tensor([[cell]])
    return soft_argmax(similarity[None], scored, cells, reach=reach, temperature=temperature)[0, 0].tolist()  # type: ignore[no-any-return]


def test_two_cells_worked_by_hand() -> None:
    """Of 0, 2, 1, 1 the deviation is sqrt(1/2); a temperature of sqrt(2) of them is 1, so weights are exp(s)."""
    row = torch.tensor([[0.0, 2.0, 1.0, 1.0]])
    scored = torch.ones(1, 4, dtype=torch.bool)
    e0, e2, e1 = 1.0, math.exp(2), math.exp(1)
    x, y = place(row, scored, (0, 1), reach=1, temperature=math.sqrt(2))
    assert x == pytest.approx((0.5 * e0 + 1.5 * e2 + 2.5 * e1) / (e0 + e2 + e1))
    assert y == pytest.approx(0.5)


def test_x_is_the_column_and_y_the_row() -> None:
    """The neighbour below weighs as much as the peak, none other weighs anything."""
    hill = torch.full((3, 4), -1e3)
    hill[1, 2] = hill[2, 2] = 0.0
    assert place(hill, ALL, (1, 2), reach=1, temperature=1e-3) == pytest.approx([2.5, 2.0])


def test_cells_that_may_not_be_an_answer_weigh_nothing() -> None:
    hill = torch.zeros(3, 4)
    hill[1, 1] = hill[1, 2] = 1.0
    scored = ALL.clone()
    scored[1, 2] = False
    assert place(hill, scored, (1, 1), reach=1, temperature=1e-3) == pytest.approx([1.5, 1.5])
    assert place(hill, ALL, (1, 1), reach=1, temperature=1e-3) == pytest.approx([2.0, 1.5])


def test_a_corner_looks_at_what_is_there() -> None:
    assert place(torch.zeros(3, 4), ALL, (0, 0), reach=1, temperature=1.0) == pytest.approx([1.0, 1.0])


def test_a_second_peak_out_of_reach_pulls_nothing() -> None:
    hill = torch.zeros(3, 4)
    hill[1, 0] = hill[1, 3] = 1.0
    assert place(hill, ALL, (1, 0), reach=1, temperature=0.01) == pytest.approx([0.5, 1.5])


def test_temperature_is_in_deviations_of_the_map() -> None:
    """The same map with a tenth of the range, shifted, gives the same place."""
    hill = torch.randn(1, 9, 9, generator=torch.Generator().manual_seed(0))
    everywhere = torch.ones(9, 9, dtype=torch.bool)
    cells = torch.tensor([[[4, 4], [0, 8], [7, 2]]])
    one, other = (soft_argmax(values, everywhere, cells) for values in (hill, 0.1 * hill + 0.8))
    assert torch.allclose(one, other, atol=1e-4)
    assert one.shape == (1, 3, 2)


def test_several_maps_and_peaks_are_each_by_themselves() -> None:
    maps = torch.randn(3, 7, 8, generator=torch.Generator().manual_seed(1))
    everywhere = torch.ones(7, 8, dtype=torch.bool)
    cells = torch.tensor([[[1, 1], [5, 6]], [[0, 0], [6, 7]], [[3, 3], [2, 5]]])
    together = soft_argmax(maps, everywhere, cells)
    for k in range(3):
        for m in range(2):
            alone = soft_argmax(maps[k : k + 1], everywhere, cells[k : k + 1, m : m + 1])[0, 0]
            assert torch.allclose(together[k, m], alone)


def test_volumes_too() -> None:
    hill = torch.zeros(3, 4, 5)
    hill[1, 2, 3] = hill[2, 2, 3] = 1.0
    scored = torch.ones(3, 4, 5, dtype=torch.bool)
    assert place(hill, scored, (1, 2, 3), reach=1, temperature=1e-3) == pytest.approx([3.5, 2.5, 2.0])


@pytest.mark.parametrize(("reach", "temperature"), [(-1, 1.0), (1, 0.0), (1, math.nan)])
def test_senseless_settings_are_refused(reach: int, temperature: float) -> None:
    with pytest.raises(ShapeError, match="above 0"):
        place(torch.zeros(3, 4), ALL, (1, 1), reach=reach, temperature=temperature)
