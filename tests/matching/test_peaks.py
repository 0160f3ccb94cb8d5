"""Peaks of small maps, worked by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchatlas.errors import ShapeError
from patchatlas.geometry.buckets import fit
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.grid import PatchGrid
from patchatlas.matching import peaks
from patchatlas.matching.peaks import scored_cells
from tests.matching import peaks_reference as reference

Cell = tuple[int, ...]


def find_peaks(similarity: torch.Tensor, scored: torch.Tensor, *, radius: float, count: int) -> list[Cell]:
    """Of a single map, as plain cells."""
    found = peaks.find_peaks(similarity[None], scored, radius=radius, count=count)
    values = [float(similarity[tuple(cell)]) for cell in found.cells[0][found.present[0]]]
    assert found.values[0][found.present[0]].tolist() == values
    return [tuple(cell) for cell in found.cells[0][found.present[0]].tolist()]


def refine(similarity: torch.Tensor, scored: torch.Tensor, cell: Cell) -> tuple[float, ...]:
    """Of a single map and cell."""
    return tuple(peaks.refine(similarity[None], scored, torch.tensor([[cell]]))[0, 0].tolist())


def covariance(similarity: torch.Tensor, scored: torch.Tensor, at: tuple[float, ...], *, reach: int) -> torch.Tensor:
    """Of a single map."""
    return shape_about(similarity, scored, at, reach=reach)[0]


def shape_about(
    similarity: torch.Tensor, scored: torch.Tensor, at: tuple[float, ...], *, reach: int
) -> tuple[torch.Tensor, float]:
    """Covariance and entropy of a single map."""
    shape = peaks.shape_about(similarity[None], scored, torch.tensor([at], dtype=torch.float64), reach=reach)
    return shape.covariance[0], float(shape.entropy)


def everywhere(similarity: torch.Tensor) -> torch.Tensor:
    return torch.ones(similarity.shape, dtype=torch.bool)


HILLS = torch.tensor(
    [
        [0.1, 0.2, 0.3, 0.1, 0.8],
        [0.2, 0.9, 0.7, 0.1, 0.1],
        [0.1, 0.6, 0.4, 0.1, 0.5],
    ]
)


@pytest.mark.parametrize(
    ("radius", "count", "expected"),
    [
        (0.0, 3, [(1, 1), (0, 4), (1, 2)]),
        (1.0, 4, [(1, 1), (0, 4), (2, 4), (2, 2)]),  # the diagonal neighbour is 1.41 away
        (1.5, 3, [(1, 1), (0, 4), (2, 4)]),
        (2.5, 9, [(1, 1), (0, 4)]),
        (9.0, 9, [(1, 1)]),
        (1.5, 1, [(1, 1)]),
    ],
)
def test_peaks_are_taken_best_first_outside_the_radius_of_the_better(
    radius: float, count: int, expected: list[tuple[int, int]]
) -> None:
    assert find_peaks(HILLS, everywhere(HILLS), radius=radius, count=count) == expected


def test_only_scored_cells_are_peaks() -> None:
    scored = everywhere(HILLS)
    scored[1, 1] = False
    assert find_peaks(HILLS, scored, radius=1.0, count=2) == [(0, 4), (1, 2)]


def test_of_equals_the_first_is_taken() -> None:
    assert find_peaks(torch.full((3, 4), -0.5), everywhere(torch.zeros(3, 4)), radius=0.0, count=2) == [(0, 0), (0, 1)]


def test_a_map_without_scored_cells_is_refused() -> None:
    with pytest.raises(ShapeError, match="larger image size"):
        find_peaks(HILLS, torch.zeros(3, 5, dtype=torch.bool), radius=1.0, count=1)


@given(dx=st.floats(-0.49, 0.49), dy=st.floats(-0.49, 0.49), wide=st.floats(0.05, 2), high=st.floats(0.05, 2))
def test_the_top_of_a_paraboloid_is_found_exactly(dx: float, dy: float, wide: float, high: float) -> None:
    rows, cols = torch.arange(5.0)[:, None] + 0.5, torch.arange(7.0) + 0.5
    hill = (1 - wide * (cols - 4.5 - dx) ** 2 - high * (rows - 2.5 - dy) ** 2).double()
    assert refine(hill, everywhere(hill), (2, 4)) == pytest.approx((4.5 + dx, 2.5 + dy), abs=1e-3)


@pytest.mark.parametrize(
    ("cell", "unscored", "expected"),
    [
        ((1, 1), [], (1.5 + 0.2777778, 1.5 + 0.2)),  # -0.5 / (2 * -0.9) along x, -0.4 / (2 * -1.0) along y
        ((0, 4), [], (4.5, 0.5)),  # a corner has no neighbours beyond
        ((1, 1), [(1, 2)], (1.5, 1.5 + 0.2)),
        ((1, 2), [], (2.5, 1.5 + 0.0714286)),  # its left neighbour is higher: no top along x
    ],
)
def test_refining_by_hand(
    cell: tuple[int, int], unscored: list[tuple[int, int]], expected: tuple[float, float]
) -> None:
    scored = everywhere(HILLS)
    for row, col in unscored:
        scored[row, col] = False
    assert refine(HILLS, scored, cell) == pytest.approx(expected, abs=1e-6)


def test_a_flat_top_stays_at_its_centre() -> None:
    assert refine(torch.zeros(3, 3), everywhere(torch.zeros(3, 3)), (1, 1)) == (1.5, 1.5)


def test_mass_of_one_cell_is_as_wide_as_the_cell() -> None:
    single = torch.zeros(9, 9)
    single[4, 6] = 1.0
    moments = covariance(single, everywhere(single), (6.5, 4.5), reach=5)
    assert moments.flatten().tolist() == pytest.approx([1 / 12, 0, 0, 1 / 12])


def test_mass_is_measured_about_the_point_x_first() -> None:
    ridge = torch.zeros(9, 9)
    ridge[4, 3:6] = 1.0  # a bar along x, of equal mass at -1, 0, 1: mean square 2/3
    moments = covariance(ridge, everywhere(ridge), (4.5, 4.5), reach=5)
    assert moments.flatten().tolist() == pytest.approx([2 / 3 + 1 / 12, 0, 0, 1 / 12])
    beside = covariance(ridge, everywhere(ridge), (4.5, 4.75), reach=5)  # a quarter below: 1/16 more along y
    assert beside.flatten().tolist() == pytest.approx([2 / 3 + 1 / 12, 0, 0, 1 / 16 + 1 / 12])


def test_a_slanting_peak_has_a_covariance_of_that_sign() -> None:
    falling = torch.eye(9)  # down to the right: x and y grow together
    assert covariance(falling, everywhere(falling), (4.5, 4.5), reach=2)[0, 1] == pytest.approx(2.0)
    assert covariance(falling.flip(1), everywhere(falling), (4.5, 4.5), reach=2)[0, 1] == pytest.approx(-2.0)


def test_mass_ends_at_the_reach_at_half_height_and_at_unscored_cells() -> None:
    peaks = torch.zeros(9, 9)
    peaks[4, 4], peaks[4, 6], peaks[4, 8], peaks[2, 4] = 1.0, 1.0, 1.0, 0.5
    scored = everywhere(peaks)
    assert covariance(peaks, scored, (4.5, 4.5), reach=1)[0, 0] == pytest.approx(1 / 12)
    assert covariance(peaks, scored, (4.5, 4.5), reach=3)[0, 0] == pytest.approx(4 / 2 + 1 / 12)
    assert covariance(peaks, scored, (4.5, 4.5), reach=3)[1, 1] == pytest.approx(1 / 12)
    scored[4, 6] = False
    assert covariance(peaks, scored, (4.5, 4.5), reach=3)[0, 0] == pytest.approx(1 / 12)


def test_a_flat_map_is_as_wide_as_the_window() -> None:
    flat = torch.zeros(9, 9)
    assert covariance(flat, everywhere(flat), (4.5, 4.5), reach=1)[0, 0] == pytest.approx(2 / 3 + 1 / 12)


@pytest.mark.parametrize(
    ("cells", "entropy"),
    [([(4, 4)], 0.0), ([(4, 4), (4, 5)], math.log(2) / math.log(9)), ([], 1.0)],
)
def test_entropy_tells_one_cell_from_many(cells: list[tuple[int, int]], entropy: float) -> None:
    """Of the nine cells within a reach of 1; an even map has the same mass in each."""
    similarity = torch.zeros(9, 9)
    for cell in cells:
        similarity[cell] = 1.0
    assert shape_about(similarity, everywhere(similarity), (4.5, 4.5), reach=1)[1] == pytest.approx(entropy)


def test_the_entropy_of_a_single_cell_is_none() -> None:
    assert shape_about(torch.ones(1, 1), everywhere(torch.ones(1, 1)), (0.5, 0.5), reach=1)[1] == 0


def test_a_spread_at_the_far_edge_of_the_map_is_defined() -> None:
    single = torch.zeros(3, 3)
    single[2, 2] = 1.0
    assert covariance(single, everywhere(single), (3.0, 3.0), reach=1)[0, 0] == pytest.approx(1 / 4 + 1 / 12)


def test_padding_is_not_scored() -> None:
    grid = PatchGrid.on(fit((23, 64), long_side=64, patch=(16, 16)), (16, 16))  # 23 rows, padded to 32
    assert scored_cells(grid).tolist() == [[True] * 4, [False] * 4]  # centres of the second row at 24
    grid = PatchGrid.on(fit((24, 64), long_side=64, patch=(16, 16)), (16, 16))
    assert scored_cells(grid).all()


def test_a_patch_centred_on_the_corner_is_scored() -> None:
    grid = PatchGrid.on(Frame.whole((32, 32)).crop((-8, -8), (48, 48)), (16, 16))
    assert scored_cells(grid).all()
    grid = PatchGrid.on(Frame.whole((32, 32)).crop((-9, -8), (48, 48)), (16, 16))
    assert scored_cells(grid).tolist() == [[False] * 3, [True] * 3, [True] * 3]


@given(
    seed=st.integers(0, 10_000),
    shape=st.sampled_from([(1, 1), (1, 7), (6, 1), (5, 8), (9, 6), (3, 4, 5), (1, 6, 4)]),
    radius=st.sampled_from([0.0, 1.0, 1.5, 2.0, 3.5]),
    hidden=st.floats(0, 0.6),
    levels=st.sampled_from([3, 1000]),
)
def test_many_maps_at_once_equal_one_cell_at_a_time(
    seed: int, shape: tuple[int, ...], radius: float, hidden: float, levels: int
) -> None:
    """Pictures and volumes, with ties, with unscored cells, with more peaks asked for than there are."""
    generator = torch.Generator().manual_seed(seed)
    similarity = torch.randint(levels, (3, *shape), generator=generator).float() / levels
    scored = torch.rand(shape, generator=generator) >= hidden
    scored[(0,) * len(shape)] = True
    found = peaks.find_peaks(similarity, scored, radius=radius, count=4)
    tops = peaks.refine(similarity, scored, found.cells)
    shapes = peaks.shape_about(similarity, scored, tops[:, 0], reach=2)
    for k in range(3):
        one, mask = similarity[k].double().numpy(), scored.numpy()
        expected = reference.find_peaks(one, mask, radius=radius, count=4)
        assert [tuple(c) for c in found.cells[k][found.present[k]].tolist()] == expected
        for m, cell in enumerate(expected):
            assert tuple(tops[k, m].tolist()) == pytest.approx(reference.refine(one, mask, cell))
        moments, entropy = reference.shape_about(one, mask, tuple(tops[k, 0].tolist()), reach=2)
        torch.testing.assert_close(shapes.covariance[k], torch.from_numpy(moments), rtol=1e-5, atol=1e-5)
        assert float(shapes.entropy[k]) == pytest.approx(entropy, abs=1e-5)
