"""Shares of patches against averaging the voxels themselves."""

import numpy as np
import pytest

from patchatlas.pretrain.crops.table import SummedTable
from patchatlas.pretrain.crops.tokens import token_shares
from tests.pretrain.crops.memory import count_cells


def shares(mask: np.ndarray, cell: int, *args: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Of a mask with cubic cells."""
    sides = (cell,) * mask.ndim
    return token_shares(SummedTable.of(count_cells(mask, sides), sides, mask.shape), *args)


@pytest.mark.parametrize("cell", [1, 2, 4])
def test_patches_of_whole_cells_are_exact(cell: int) -> None:
    mask = np.random.default_rng(0).random((16, 16, 16)) < 0.3
    start, cells = (4 // cell, 0, 8 // cell), (8 // cell,) * 3
    foreground, inside = shares(mask, cell, start, cells, (2, 2, 2))
    part = mask[4:12, 0:8, 8:16].reshape(2, 4, 2, 4, 2, 4)
    np.testing.assert_array_equal(foreground, part.mean(axis=(1, 3, 5)))
    assert (inside == 1).all()


def test_parts_of_cells_by_hand() -> None:
    # Three cells of 2 voxels become two patches of 3: each takes one cell and half of the middle one.
    mask = np.array([[1, 1, 1, 0, 0, 0]], dtype=bool)
    sums = SummedTable.of(count_cells(mask, (1, 2)), (1, 2), mask.shape)
    foreground, inside = token_shares(sums, (0, 0), (1, 3), (1, 2))
    np.testing.assert_allclose(foreground, [[2.5 / 3, 0.5 / 3]])
    np.testing.assert_array_equal(inside, [[1, 1]])


def test_the_mean_of_patches_is_the_ratio_of_the_crop() -> None:
    mask = np.random.default_rng(1).random((20, 22, 18)) < 0.4
    sums = SummedTable.of(count_cells(mask, (2, 2, 2)), (2, 2, 2), mask.shape)
    for start, cells, grid in [((1, 2, 3), (6, 6, 6), (4, 4, 4)), ((0, 0, 0), (10, 11, 9), (3, 5, 2))]:
        foreground, _ = token_shares(sums, start, cells, grid)
        assert foreground.mean() == pytest.approx(sums.ratio(start, cells), abs=1e-12)


def test_padding_holds_no_voxel() -> None:
    mask = np.ones((5, 8, 8), dtype=bool)
    foreground, inside = shares(mask, 4, (0, 0, 0), (4, 2, 2), (4, 2, 2))
    np.testing.assert_array_equal(inside[:, 0, 0], [1, 0.25, 0, 0])
    np.testing.assert_array_equal(foreground[:, 0, 0], [1, 1, 0, 0])
