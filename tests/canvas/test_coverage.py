"""Coverage without looking at tiles: running sums of a few points a tile, against tiles of ones."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchatlas.canvas import coverage as coverage_module
from patchatlas.canvas.contract import in_array_order
from patchatlas.canvas.coverage import Even, count_tiles, even_sum
from patchatlas.canvas.place import place
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
    positions = in_array_order(torch.tensor(rows, dtype=torch.float64), (3, 5)).flip(1)
    plan = CanvasPlan((-25, -25), (60, 60))
    found = even_sum(plan, Even(positions.flip(1), None, (3, 5)), interpolation, torch.float64, compiled=compiled)
    wanted = by_matrix(plan, positions, torch.ones(len(rows)).double(), (3, 5), interpolation)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-13)
    assert (found >= 0).all()
    assert not found[wanted == 0].any()
    assert found[wanted > 0].all()


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


SLIVERS = {
    "one axis": ([[0, 0], [3, 2], [6, 4.0000005]], None),
    "the other side": ([[0, 0], [3, 2], [5.9999999, 4]], None),
    "a corner": ([[0, 0], [3, 2], [6.0000003, 4.0000002]], None),
    "the smallest corner": ([[0, 0], [3, 2], [6 + 1e-8, 4 - 1e-8]], None),
    "rounding": ([[0, 0], [3, 2], [6 + 1e-12, 4 - 3e-13]], None),
    "a faint tile beside a strong one": ([[0, 0], [3, 2], [12, 9]], [1.0, 1.0, 1e-12]),
    "a faint tile between pixels": ([[0, 0], [3, 2], [12.25, 9.5]], [1e6, 1.0, 1e-9]),
}


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("case", SLIVERS)
def test_all_paths_see_the_same_slivers(case, interpolation):
    """What a tile touches however little has a value, and the same whichever way its weight was summed."""
    rows, given = SLIVERS[case]
    positions = torch.tensor(rows, dtype=torch.float64)
    weights = None if given is None else torch.tensor(given, dtype=torch.float64)
    tiles = torch.rand(3, 1, 6, 6, generator=generator(1)) + 0.5
    wanted = by_matrix(
        place(tiles, positions, interpolation=interpolation).plan,
        (positions * 1e8).round() / 1e8,  # rounding is taken off, see `in_array_order`
        torch.ones(3).double() if weights is None else weights,
        (6, 6),
        interpolation,
    )
    backends = ["torch"] if interpolation == "cubic" else ["torch", "numba"]
    canvases = [
        place(some, positions, interpolation=interpolation, weights=weights, window=window, backend=backend)
        for backend in backends
        for window in (None, torch.ones(6, 6))
        for some in (tiles, tiles.clone().requires_grad_())
        if not (backend == "numba" and some.requires_grad)
    ]
    if interpolation != "cubic":
        torch.testing.assert_close(canvases[0].weight, wanted.float(), rtol=1e-5, atol=1e-36)
        assert torch.equal(canvases[0].covered, wanted > 0)
    for other in canvases[1:]:
        assert torch.equal(other.covered, canvases[0].covered)
        torch.testing.assert_close(other.value().detach(), canvases[0].value(), rtol=1e-5, atol=1e-6)
