"""Crops as pictures: which way up, where the boxes are, and what the bars count."""

import re

import numpy as np
import pytest
import torch

from patchatlas.viz.crops import (
    COLOURS,
    FOREGROUND,
    GAP,
    Outline,
    Slice,
    beside,
    draw,
    draw_crop,
    histogram,
    label_places,
    sheet,
    slice_of,
)


def volume() -> torch.Tensor:
    """A bright voxel at the head, the front and the right of the body."""
    values = torch.zeros(1, 8, 8, 8)
    values[0, 7, 7, 7] = 1
    return values


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_head_front_and_right_are_up_or_left(axis: int) -> None:
    picture = draw(slice_of(volume(), axis, 7, (1.0, 1.0, 1.0)), 16)
    assert picture.shape == (16, 16, 3)
    rows, columns = np.nonzero(picture[..., 0] > 128)
    assert rows.max() < 3
    assert columns.max() < 3


def test_pixels_are_square_whatever_the_spacing() -> None:
    thick = slice_of(torch.zeros(1, 4, 8, 8), 1, 0, (3.0, 1.0, 1.0))
    assert draw(thick, 24).shape == (24, 16, 3)


def test_outlines_lie_on_their_crop_and_only_in_slices_that_meet_it() -> None:
    plane = slice_of(volume(), 0, 2, (1.0, 1.0, 1.0))
    crop = Outline((0, 4, 0), (4, 4, 2), "", COLOURS[0], 1)
    picture = draw(plane, 80, [crop])
    rows, columns = np.nonzero((picture == COLOURS[0]).all(axis=-1))
    assert (rows.min(), rows.max()) == (0, 39)  # y from 4 to 8 is the upper half, mirrored
    assert (columns.min(), columns.max()) == (60, 79)  # x from 0 to 2 is the right quarter
    other = Outline((3, 4, 0), (4, 4, 2), "", COLOURS[0], 1)
    assert not (draw(plane, 80, [other]) == COLOURS[0]).all(axis=-1).any()


def test_labels_of_near_corners_stand_apart() -> None:
    size = (20.0, 10.0)
    boxes = [(5.0, 5.0, 90.0, 90.0), (6.0, 7.0, 91.0, 92.0), (5.0, 5.0, 90.0, 90.0), *[(4.0, 4.0, 30.0, 16.0)] * 3]
    places = label_places(boxes, [size] * len(boxes), (100, 100))
    assert places[:3] == [(5.0, 5.0), (71.0, 7.0), (5.0, 80.0)]
    for k, (x, y) in enumerate(places):
        assert 0 <= x <= 80
        assert 0 <= y <= 90
        for a, b in places[:k]:
            assert abs(x - a) >= 20 or abs(y - b) >= 10
    full = label_places([(0.0, 0.0, 20.0, 10.0)] * 2, [size] * 2, (10, 20))
    assert full == [(0.0, 0.0)] * 2  # no room at all


def test_both_labels_of_a_pair_are_seen() -> None:
    plane = slice_of(torch.zeros(1, 40, 40, 40), 0, 20, (1.0, 1.0, 1.0))

    def written(*numbers: int) -> int:
        """Pixels that the labels of some crops at one place change."""
        pictures = [
            draw(plane, 400, [Outline((0, 2, 2), (40, 30, 30), label * n, COLOURS[0], 1) for n in numbers])
            for label in ("G", "")
        ]
        return int((pictures[0] != pictures[1]).any(axis=-1).sum())

    assert written(1, 2) >= 0.98 * (written(1) + written(2)) > 200  # strokes of 2 pixels may touch


def test_the_edge_of_the_foreground_follows_its_cells() -> None:
    cells = np.zeros((2, 2), dtype=np.float64)
    cells[0, 1] = 1  # low y, high x: the lower left of the picture
    plane = Slice(torch.zeros(1, 8, 8), (1, 2), (0, 0), (1.0, 1.0), foreground=cells, cell=(4, 4))
    edge = (draw(plane, 16) == FOREGROUND).all(axis=-1)
    rows, columns = np.nonzero(edge)
    assert (rows.min(), columns.max()) == (8, 7)
    assert not edge[10:14, 2:6].any()


def test_photographs_are_not_mirrored() -> None:
    pixels = torch.zeros(3, 8, 8)
    pixels[0, 0, 0] = 1
    picture = draw(Slice(pixels, (0, 1), None, (1.0, 1.0)), 8)
    assert picture[0, 0].tolist() == [255, 0, 0]
    assert draw_crop(pixels, (), 8).shape == (8, 8, 3)


def test_rows_and_sheets() -> None:
    one, other = np.full((10, 20, 3), 9, np.uint8), np.full((6, 8, 3), 7, np.uint8)
    row = beside([one, other])
    assert row.shape == (10, 28 + GAP, 3)
    assert (row[:10, :20] == 9).all()
    assert (row[:6, 20 + GAP :] == 7).all()
    whole = sheet([one, other, one], ["a", "b", "c"], columns=2)
    assert whole.shape[1] == 28 + GAP
    assert draw_crop(torch.zeros(1, 4, 4, 4), (1.0, 1.0, 1.0), 10).shape == (10, 30 + 2 * GAP, 3)


def test_bars_count_and_marks_stand_where_they_should() -> None:
    text = histogram([0.05, 0.05, 0.95, 1.0], caption="a < b", marks=[(0.5, "least")], bins=10)
    counts = [int(count) for count in re.findall(r"<title>[^:]*: (\d+)</title>", text)]
    assert counts == [2, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    assert 'x1="210.0"' in text
    assert "a &lt; b" in text
    assert "<b" not in text
    assert "least" in histogram([], caption="none", marks=[(0.9, "least")])
