"""Patch grids: cells, boxes and centres in source pixels, worked by hand."""

import pytest
import torch

from patchatlas.errors import ShapeError
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.grid import PatchGrid


def test_cells_of_a_plain_grid():
    grid = PatchGrid.on(Frame.whole((32, 48)), (16, 16))
    assert grid.shape == (2, 3)
    assert grid.centres().tolist() == [[8, 8], [24, 8], [40, 8], [8, 24], [24, 24], [40, 24]]
    assert grid.boxes()[4].tolist() == [16, 16, 32, 32]
    assert grid.cells_of(torch.tensor([[8.0, 24.0], [16.0, 0.0]])).tolist() == [[0.5, 1.5], [1.0, 0.0]]


def test_cells_know_their_source_through_resize_and_crop():
    # 100 x 80 picture (w x h) at half size, cut at row 4, column 2: patch (1, 2) begins at column 2 + 2 * 8, times 2.
    grid = PatchGrid.on(Frame.whole((80, 100)).resize((40, 50)).crop((4, 2), (32, 40)), (8, 8))
    assert grid.boxes()[1 * 5 + 2].tolist() == [36, 24, 52, 40]
    assert grid.centres()[1 * 5 + 2].tolist() == [44, 32]


def test_mirrored_grid_counts_from_the_right():
    grid = PatchGrid.on(Frame.whole((16, 48)).flip(1), (16, 16))
    assert grid.centres().tolist() == [[40, 8], [24, 8], [8, 8]]
    assert grid.boxes()[0].tolist() == [32, 0, 48, 16]


def test_stride_and_offset():
    grid = PatchGrid(Frame.whole((20, 30)), (8, 8), (4, 4), (2, 1), (3, 5))
    assert grid.centres()[0].tolist() == [5, 6]
    assert grid.centres()[-1].tolist() == [21, 14]
    assert grid.cells_of(grid.centres())[7].tolist() == [2.5, 1.5]


def test_volume_grid_runs_z_first_and_points_x_first():
    grid = PatchGrid.on(Frame.whole((4, 8, 12)), (2, 4, 4))
    assert grid.shape == (2, 2, 3)
    assert grid.centres()[1].tolist() == [6, 2, 1]
    assert grid.centres()[3].tolist() == [2, 6, 1]
    assert grid.centres()[6].tolist() == [2, 2, 3]
    assert grid.boxes()[6].tolist() == [0, 0, 2, 4, 4, 4]


def test_real_part_of_padded_cells():
    grid = PatchGrid.on(Frame.whole((20, 24)).pad((0, 0), (12, 8)), (16, 16))
    assert grid.real_part().tolist() == [[1, 0.5], [0.25, 0.125]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: PatchGrid.on(Frame.whole((230, 224)), (16, 16)),
            "side 230 .* not a multiple of the patch 16.* resize it to 224 or pad it to 240",
        ),
        (lambda: PatchGrid.on(Frame.whole((5, 224)), (16, 16)), "to 16"),
        (lambda: PatchGrid.on(Frame.whole((224, 224)), (2, 16, 16)), "2-D frame"),
        (lambda: PatchGrid(Frame.whole((20, 30)), (8, 8), (4, 4), (0, 0), (5, 5)), "do not fit"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ShapeError, match=message):
        make()


def test_json_round_trip():
    grid = PatchGrid.on(Frame.whole((37, 41)).resize((32, 48)), (16, 16))
    assert PatchGrid.from_json(grid.to_json()) == grid
