"""Sums over boxes of cells against counting voxels one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchatlas.errors import ShapeError
from patchatlas.pretrain.crops.table import SummedTable
from tests.pretrain.crops.memory import count_cells


def table(mask: np.ndarray, cell: tuple[int, ...]) -> SummedTable:
    """The table of a mask."""
    return SummedTable.of(count_cells(mask, cell), cell, mask.shape)


def test_boxes_by_hand() -> None:
    counts = np.array([[1, 2, 3], [4, 5, 6]])
    sums = SummedTable.of(counts, (4, 4), (8, 12))
    np.testing.assert_array_equal(sums.boxes((1, 1)), counts)
    np.testing.assert_array_equal(sums.boxes((2, 2)), [[12, 16]])
    np.testing.assert_array_equal(sums.boxes((1, 3)), [[6], [15]])
    assert sums.box((0, 1), (2, 2)) == 16
    assert sums.ratio((0, 1), (2, 2)) == 16 / 64
    np.testing.assert_array_equal(sums.counts(), counts)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(*[st.integers(1, 17)] * 3),
    cell=st.tuples(*[st.integers(1, 5)] * 3),
    cells=st.tuples(*[st.integers(1, 6)] * 3),
)
def test_boxes_equal_counted_voxels(
    seed: int, size: tuple[int, ...], cell: tuple[int, ...], cells: tuple[int, ...]
) -> None:
    mask = np.random.default_rng(seed).random(size) < 0.4
    sums = table(mask, cell)
    boxes = sums.boxes(cells)
    assert boxes.shape == sums.positions(cells)
    for at in np.ndindex(boxes.shape):
        part = mask[tuple(slice(p * c, (p + n) * c) for p, c, n in zip(at, cell, cells, strict=True))]
        assert boxes[at] == sums.box(at, cells) == part.sum()
        assert sums.voxels(cells) == part.size
        assert sums.part(at, cells).boxes(cells).item() == part.sum()
        assert sums.part(at, cells).size == part.shape


def test_crops_lie_inside_unless_the_volume_is_too_short() -> None:
    sums = table(np.ones((10, 10, 3), dtype=bool), (4, 4, 4))
    assert sums.positions((1, 2, 1)) == (2, 1, 1)  # the third cell of a side of 10 reaches beyond it
    assert sums.voxels((1, 2, 1)) == 4 * 8 * 3
    assert sums.positions((3, 5, 1)) == (1, 1, 1)
    assert sums.voxels((3, 5, 1)) == 10 * 10 * 3


def test_counts_beyond_32_bits_are_exact() -> None:
    sums = SummedTable.of(np.full((2, 3), 4_000_000_000, np.uint32), (70_000, 70_000), (140_000, 210_000))
    assert sums.boxes((2, 3)).item() == 24_000_000_000


def test_refuses_counts_of_another_volume() -> None:
    with pytest.raises(ShapeError, match=r"needs|has \(3, 2\) cells"):
        SummedTable.of(np.zeros((2, 2), np.int64), (4, 4), (9, 8))
