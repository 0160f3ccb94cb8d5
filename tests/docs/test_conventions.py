"""The page on coordinates: its example gives the numbers it prints, and OpenCV counts as it says."""

import doctest
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from patchatlas.io.landmarks import continuous_point

PAGE = Path(__file__).parents[2] / "docs" / "conventions.md"


def test_the_worked_example() -> None:
    blocks = re.findall(r"^```pycon\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)
    example = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, PAGE.name, str(PAGE), 0)
    results = doctest.DocTestRunner().run(example)
    assert (results.failed, results.attempted) == (0, 18)


def test_opencv_puts_the_centre_of_a_pixel_half_a_pixel_before_ours() -> None:
    picture = np.zeros((30, 40), np.uint8)
    picture[20, 10] = 1
    moments = cv2.moments(picture)
    theirs = np.array([moments["m10"], moments["m01"]]) / moments["m00"]
    np.testing.assert_array_equal(theirs, np.array(continuous_point(10, 20)) - 0.5)


@pytest.mark.parametrize(("x", "y"), [(10, 20), (0, 0)])
def test_opencv_warps_by_its_own_rule(x: int, y: int) -> None:
    """A magnification by 3 about our origin is 3 * theirs + 1 in OpenCV's numbers: 3 * (u + 0.5) - 0.5."""
    picture = np.zeros((30, 40), np.float32)
    picture[y, x] = 1
    grown = cv2.warpAffine(picture, np.array([[3.0, 0, 1], [0, 3, 1]]), (120, 90), flags=cv2.INTER_NEAREST)
    rows, columns = np.nonzero(grown)
    assert (columns.min(), columns.max() + 1, rows.min(), rows.max() + 1) == (3 * x, 3 * x + 3, 3 * y, 3 * y + 3)
