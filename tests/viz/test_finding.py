"""The whole drawing: the cross on the pixel, rings and words, and no shape of picture that it cannot take."""

from typing import Any

import numpy as np
import pytest
import torch

from patchatlas.arrays import ImageU8
from patchatlas.geometry.buckets import fit
from patchatlas.geometry.grid import PatchGrid
from patchatlas.viz.finding import draw_finding, draw_mark
from patchatlas.viz.heatmap import LONGEST, SHORTEST, Scale, view_of
from patchatlas.viz.marks import GREEN
from patchatlas.viz.panel import NARROWEST, STATE_COLOURS


def noise(height: int, width: int) -> ImageU8:
    pixels: ImageU8 = np.random.default_rng(0).integers(0, 200, (height, width, 3), dtype=np.uint8)
    return pixels


def drawn(target: ImageU8, **changes: Any) -> ImageU8:
    h, w = target.shape[:2]
    grid = PatchGrid.on(fit((h, w), long_side=320, patch=(8, 8)), (8, 8))
    asked: dict[str, Any] = {
        "similarity_map": torch.zeros(grid.shape),
        "grid": grid,
        "scored": grid.real_part() > 0.5,
        "source_xy": (w / 3, h / 3),
        "target_xy": (w / 2, h / 4),
        "covariance": ((9.0, 0.0), (0.0, 4.0)),
        "state": "found",
        "title": "c4b1d0a2e0f14d3b9a3c5e6f7a8b9c0d",
        "lines": ["one line", "and another that is so long that it has to be broken at the narrowest of all panels"],
        "scale": Scale(),
        "scale_caption": "cosine",
    } | changes
    return draw_finding(target, target, **asked)


def green(picture: ImageU8, height: int) -> np.ndarray:
    """Where the photo's part of a drawing is green."""
    return (picture[:height] == np.array(GREEN)).all(-1)


@pytest.mark.parametrize("xy", [(400.0, 150.0), (400.9, 150.9), (0.0, 0.0), (799.99, 599.99)])
def test_the_cross_is_on_the_pixel_of_the_answer(xy: tuple[float, float]) -> None:
    """A target of 800 x 600 is drawn at its own size, so its pixels are the drawing's."""
    found = green(drawn(noise(600, 800), target_xy=xy), 600)
    column, row = int(xy[0]), int(xy[1])
    assert found[row].sum() == max(found.sum(axis=1))
    assert found[:, column].sum() == max(found.sum(axis=0))
    assert found[row, column]


@pytest.mark.parametrize(
    "size_hw", [(72, 96), (96, 72), (100, 1600), (1600, 100), (300, 4800), (2400, 1600), (8, 128), (40, 40)]
)
def test_any_shape_of_picture(size_hw: tuple[int, int]) -> None:
    h, w = size_hw
    picture = drawn(noise(h, w), state="uncertain", runners_up=[(1.0, 1.0), (w - 1.0, h - 1.0)])
    view = view_of(size_hw)
    assert picture.shape[1] == max(NARROWEST, view.size[1])
    assert view.size[0] + 150 < picture.shape[0] < view.size[0] + 500
    assert SHORTEST <= max(view.size) <= LONGEST


def test_the_state_is_said_in_its_colour() -> None:
    """In the panel always; at the cross unless the state is `found`."""
    for state, colour in STATE_COLOURS.items():
        picture = drawn(noise(600, 800), state=state)
        coloured = (picture == np.array(colour)).all(-1)
        assert coloured[600:].sum() > 50
        assert (coloured[:600].sum() > 20) == (state != "found")
        for other in STATE_COLOURS.keys() - {state}:
            assert (picture == np.array(STATE_COLOURS[other])).all(-1).sum() < 20


def test_runners_up_are_rings_with_numbers() -> None:
    target = noise(600, 800)
    without = drawn(target)
    ringed = drawn(target, runners_up=[(600.0, 400.0), (100.0, 500.0)])
    rows, columns = np.nonzero((without != ringed).any(-1))
    near = [np.hypot(columns - x, rows - y) < 30 for x, y in ((600, 400), (100, 500))]
    assert (near[0] | near[1]).all()
    assert near[0].sum() > 100
    assert near[1].sum() > 100


def test_the_ellipse_has_its_size() -> None:
    """Standard deviations 30 and 20 px: the drawing differs from that of a point out to 60 and 40 px."""
    target = noise(600, 800)
    point = drawn(target, covariance=((0.0, 0.0), (0.0, 0.0)), target_xy=(400.0, 300.0))
    wide = drawn(target, covariance=((900.0, 0.0), (0.0, 400.0)), target_xy=(400.0, 300.0))
    rows, columns = np.nonzero((point != wide).any(-1))
    assert abs(columns.max() - 460) <= 3
    assert abs(columns.min() - 340) <= 3
    assert abs(rows.max() - 340) <= 3
    assert abs(rows.min() - 260) <= 3


def test_the_ellipse_keeps_its_size_in_a_smaller_drawing() -> None:
    """A target of 3200 x 2400 px is drawn at half its size: 120 and 80 px out become 60 and 40."""
    target = noise(2400, 3200)
    point = drawn(target, covariance=((0.0, 0.0), (0.0, 0.0)), target_xy=(1600.0, 1200.0))
    wide = drawn(target, covariance=((3600.0, 0.0), (0.0, 1600.0)), target_xy=(1600.0, 1200.0))
    rows, columns = np.nonzero((point != wide).any(-1))
    assert abs(columns.max() - 860) <= 3
    assert abs(columns.min() - 740) <= 3
    assert abs(rows.max() - 640) <= 3
    assert abs(rows.min() - 560) <= 3


def test_close_ups_show_the_mark_and_the_answer() -> None:
    """Each is the photo about its point: a lone bright spot is in the middle of one of them and not of the other."""
    source, target = np.zeros((600, 800, 3), np.uint8), np.zeros((600, 800, 3), np.uint8)
    source[100:103, 200:203] = (0, 0, 255)
    below = draw_finding(
        target,
        source,
        similarity_map=torch.zeros(30, 40),
        grid=PatchGrid.on(fit((600, 800), long_side=800, patch=(20, 20)), (20, 20)),
        source_xy=(201.5, 101.5),
        target_xy=(700.0, 500.0),
        covariance=((1.0, 0.0), (0.0, 1.0)),
        state="found",
        title="",
        lines=[],
        scale=Scale(),
        scale_caption="",
    )[600:, : 2 * (13 + 9 * 14)]
    blue = below[..., 2].astype(int) - below[..., 0] > 100
    rows, columns = np.nonzero(blue)
    em, gap = 14, 13
    assert abs((columns + 0.5).mean() - (gap + 9 * em / 2)) < 0.6
    assert abs((rows + 0.5).mean() - (gap + 9 * em / 2)) < 0.6


def test_the_source_keeps_its_colours_but_for_the_cross() -> None:
    source = noise(600, 800)
    picture = draw_mark(source, (400.5, 300.5))
    far = np.ones((600, 800), bool)
    far[250:350, 350:450] = False
    np.testing.assert_array_equal(picture[far], source[far])
    assert green(picture, 600)[300, 420]
    np.testing.assert_array_equal(picture[298:303, 398:403], source[298:303, 398:403])
