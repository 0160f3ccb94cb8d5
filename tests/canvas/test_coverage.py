"""Coverage without looking at tiles: running sums of a few points a tile, against tiles of ones."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchatlas.canvas import coverage as coverage_module
from patchatlas.canvas.coverage import Even, count_tiles, even_sum
from patchatlas.canvas.plan import CanvasPlan
from tests.canvas import oracle
from tests.canvas.scans import INTERPOLATIONS, generator, random_positions


def by_matrix(plan, positions, weights, size, interpolation):
    ones = weights.reshape(-1, *[1] * (1 + len(size))).expand(-1, 1, *size)
    return oracle.place_by_matrix(ones, positions, plan, interpolation)[0]


@pytest.mark.parametrize("size", [(4,), (3, 5), (2, 3, 4)])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("way", ["whole", "in bands", "compiled"])
def test_it_is_the_sum_of_tiles_of_ones(size, interpolation, way, monkeypatch):
    """On a canvas that cuts some of them off."""
    if way == "in bands":
        monkeypatch.setattr(coverage_module, "_AT_A_TIME", 30)
    positions = random_positions(1, n=30, ndim=len(size))
    weights = torch.rand(30, dtype=torch.float64, generator=generator(2))
    plan = CanvasPlan((-1, 0, 1)[: len(size)], (9, 11, 5)[: len(size)])
    tiles = Even(positions.flip(1), weights, size)
    found = even_sum(plan, tiles, interpolation, torch.float64, compiled=way == "compiled")
    wanted = by_matrix(plan, positions, weights, size, interpolation)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-13)


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.floats(-20, 20), st.floats(-20, 20)), min_size=1, max_size=6),
    st.sampled_from(["nearest", "linear"]),
    st.booleans(),
)
def test_nothing_is_left_outside_the_tiles(rows, interpolation, compiled):
    """Not even rounding noise: 0 is 0, and what is covered shows."""
    positions = torch.tensor(rows, dtype=torch.float64)
    plan = CanvasPlan((-25, -25), (60, 60))
    found = even_sum(plan, Even(positions.flip(1), None, (3, 5)), interpolation, torch.float64, compiled=compiled)
    wanted = by_matrix(plan, positions, torch.ones(len(rows)).double(), (3, 5), interpolation)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1.1e-6)  # less than a millionth of a tile counts as none
    assert (found >= 0).all()
    assert not found[wanted == 0].any()
    assert found[wanted > 2e-6].all()


@pytest.mark.parametrize("compiled", [False, True])
def test_faint_tiles_stay_visible_beside_strong_ones(compiled):
    positions = torch.tensor([[0.5, 0.5], [20.5, 0.5]], dtype=torch.float64)
    weights = torch.tensor([1e3, 1e-3], dtype=torch.float64)
    plan = CanvasPlan((0, 0), (5, 30))
    found = even_sum(plan, Even(positions.flip(1), weights, (3, 3)), "linear", torch.float64, compiled=compiled)
    torch.testing.assert_close(found, by_matrix(plan, positions, weights, (3, 3), "linear"), rtol=1e-9, atol=1e-13)


def test_counts_by_hand():
    plan = CanvasPlan((0, 0), (3, 5))
    corners = torch.tensor([[0, 0], [0.5, 1], [-1, 3.5]], dtype=torch.float64)
    counts = count_tiles(plan, [Even(corners[:2], None, (1, 2)), Even(corners[2:], None, (2, 1))], "linear")
    assert counts.tolist() == [[1, 2, 1, 1, 1], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]]
    assert not counts.dtype.is_floating_point
