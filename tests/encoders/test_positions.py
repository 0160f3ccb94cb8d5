"""Resampling of learned position tables: untouched at home, exact on ramps, axes never swapped, refusals."""

import pytest
import torch

from patchatlas.encoders.positions import resample_table
from patchatlas.errors import ShapeError

RULES = [{"offset": 0.1, "antialias": False}, {"offset": 0.0, "antialias": True}]


@pytest.mark.parametrize("rule", RULES)
def test_the_native_grid_is_untouched(rule):
    table = torch.randn(4, 4, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(resample_table(table, (4, 4), **rule), table.flatten(0, 1))


@pytest.mark.parametrize("rule", RULES)
def test_as_many_cells_in_another_shape_are_resampled(rule):
    table = torch.randn(4, 4, 3, generator=torch.Generator().manual_seed(0))
    moved = resample_table(table, (2, 8), **rule)
    assert moved.shape == (16, 3)
    assert not torch.allclose(moved, table.flatten(0, 1), atol=0.1)


@pytest.mark.parametrize("rule", RULES)
def test_rows_stay_rows(rule):
    """A table that grows along its rows only stays flat along its columns."""
    table = torch.arange(8.0).view(8, 1, 1).expand(8, 8, 1)
    moved = resample_table(table, (12, 5), **rule).view(12, 5)
    torch.testing.assert_close(moved, moved[:, :1].expand(12, 5))
    assert (moved[1:, 0] > moved[:-1, 0]).all()


def test_a_ramp_keeps_its_centres_in_3d():
    """Cell centres at 0.5, 1.5, ...; twice as many cells lie at half of that, away from the border."""
    table = (torch.arange(6.0) + 0.5).view(6, 1, 1, 1).expand(6, 2, 3, 1)
    moved = resample_table(table, (12, 2, 3), offset=0.0, antialias=False).view(12, 2, 3)
    expected = (torch.arange(12.0) + 0.5) / 2
    torch.testing.assert_close(moved[1:-1, 0, 0], expected[1:-1])


def test_3d_refuses_the_rules_of_pictures():
    with pytest.raises(ShapeError, match="exact size"):
        resample_table(torch.zeros(2, 2, 2, 1), (3, 3, 3), offset=0.1, antialias=False)


def test_another_number_of_axes_is_refused():
    with pytest.raises(ShapeError, match="2 axes cannot serve a grid of 3"):
        resample_table(torch.zeros(2, 2, 1), (3, 3, 3), offset=0.0, antialias=False)
