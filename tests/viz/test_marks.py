"""Crosses and ellipses are where they were asked to be, and may run over the edge."""

import math

import numpy as np
import pytest

from patchatlas.viz.marks import GREEN, RIM, WHITE, at_least, cross, ellipse, ring


def blank(height: int = 60, width: int = 80) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def is_colour(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (picture == np.array(colour)).all(-1)


@pytest.mark.parametrize("xy", [(30.0, 20.0), (30.5, 20.5), (30.99, 20.99)])
def test_the_cross_is_centred_on_the_pixel_of_its_point(xy: tuple[float, float]) -> None:
    picture = blank()
    cross(picture, xy, arm=9, width=3)
    rows, columns = np.nonzero(is_colour(picture, GREEN))
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (21, 39, 11, 29)
    assert is_colour(picture, GREEN)[20, 30]
    assert is_colour(picture, GREEN)[20].sum() == 19
    assert is_colour(picture, GREEN)[11].sum() == 3
    assert is_colour(picture, RIM)[9, 30] or is_colour(picture, RIM)[10, 30]


def test_the_gap_is_left_free() -> None:
    picture = blank()
    cross(picture, (30.5, 20.5), arm=9, width=1, gap=4)
    assert (picture[18:23, 28:33] == 128).all()
    assert is_colour(picture, GREEN)[20, [21, 26, 34, 39]].all()


@pytest.mark.parametrize("xy", [(0.0, 0.0), (79.9, 59.9), (-30.0, 20.0), (200.0, 300.0)])
def test_marks_at_and_over_the_edge(xy: tuple[float, float]) -> None:
    picture = blank()
    cross(picture, xy, arm=9)
    ring(picture, xy, 12.0)
    assert picture.shape == (60, 80, 3)


def test_a_ring_is_round_and_in_its_place() -> None:
    picture = blank()
    ring(picture, (40.0, 30.0), 15.0, width=3.0)
    white = is_colour(picture, WHITE)
    rows, columns = np.nonzero(white)
    radii = np.hypot(columns + 0.5 - 40, rows + 0.5 - 30)
    assert radii.min() > 15 - 1.5
    assert radii.max() < 15 + 1.5
    angles = np.degrees(np.arctan2(rows + 0.5 - 30, columns + 0.5 - 40)) % 360
    assert len(np.unique(angles // 10)) == 36
    np.testing.assert_array_equal(white, white[::-1])
    np.testing.assert_array_equal(white, white[:, ::-1])


def test_an_ellipse_lies_along_its_axes() -> None:
    """Half axes 20 and 8, the long one turned by 30 degrees, y down."""
    picture = blank()
    axes = np.array([[math.cos(math.pi / 6), -0.5], [0.5, math.cos(math.pi / 6)]])
    ellipse(picture, (40.0, 30.0), axes @ np.diag([400.0, 64.0]) @ axes.T, width=2.0)
    white = is_colour(picture, WHITE)
    for along, length in ((axes[:, 0], 20), (-axes[:, 0], 20), (axes[:, 1], 8), (-axes[:, 1], 8)):
        column, row = np.floor(np.array([40.0, 30.0]) + length * along).astype(int)
        assert white[row - 1 : row + 2, column - 1 : column + 2].any()
    rows, columns = np.nonzero(white)
    at = np.stack([columns + 0.5 - 40, rows + 0.5 - 30]).T @ axes
    level = np.hypot(at[:, 0] / 20, at[:, 1] / 8)
    assert level.min() > 0.8
    assert level.max() < 1.2


def test_small_ellipses_are_drawn_larger() -> None:
    np.testing.assert_allclose(at_least(np.diag([100.0, 1.0]), 5.0), np.diag([100.0, 25.0]))
    np.testing.assert_allclose(at_least(np.zeros((2, 2)), 5.0), np.diag([25.0, 25.0]))
