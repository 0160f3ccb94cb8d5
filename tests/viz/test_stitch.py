"""Maps of a canvas: colours at the ends of their scale, one colour for what is not covered, sheets with all parts."""

import math

import numpy as np
import pytest

from patchatlas.viz.stitch import (
    CHOSEN,
    CYCLIC,
    DIVERGING,
    GREYS,
    HEAT,
    UNCOVERED,
    Bar,
    Map,
    View,
    contact_sheet,
    coverage_bar,
    overview,
    phase_bar,
    value_bar,
)

RAMP = np.linspace(0, 1, 12).reshape(3, 4)
ALL = np.ones((3, 4), dtype=bool)


@pytest.mark.parametrize("colours", [GREYS, DIVERGING, CYCLIC, HEAT])
def test_colours_at_the_ends_and_beyond(colours):
    bar = Bar(-1.0, 3.0, colours, "")
    painted = bar.paint(np.array([[-9.0, -1.0, 1.0, 3.0, 9.0]]))[0]
    assert [tuple(int(v) for v in painted[n]) for n in (0, 1, 3, 4)] == [
        colours[0],
        colours[0],
        colours[-1],
        colours[-1],
    ]
    middle = np.mean([colours[(len(colours) - 1) // 2], colours[len(colours) // 2]], axis=0)
    np.testing.assert_allclose(painted[2], middle, atol=1)
    assert Bar(2.0, 2.0, colours, "").paint(np.full((1, 1), 2.0)).shape == (1, 1, 3)


def test_no_value_has_the_colour_of_the_uncovered():
    every = np.linspace(0, 1, 4001)[None]
    for colours in (GREYS, DIVERGING, CYCLIC, HEAT):
        painted = Bar(0.0, 1.0, colours, "").paint(every)[0].astype(int)
        assert np.abs(painted - UNCOVERED).sum(axis=1).min() > 0


def test_a_map_has_a_pixel_a_pixel():
    covered = ALL.copy()
    covered[1, 2] = False
    painted = Map("a", RAMP, covered, Bar(0.0, 1.0, GREYS, "")).paint()
    assert painted.shape == (3, 4, 3)
    assert tuple(int(v) for v in painted[1, 2]) == UNCOVERED
    np.testing.assert_array_equal(painted[covered][:, 0], np.rint(255 * RAMP[covered]))


def test_scales():
    odd = np.where(RAMP == 1, 1000.0, RAMP)
    assert value_bar(odd, RAMP < 1).high < 1  # what is not covered does not count
    assert value_bar(RAMP, ~ALL).low == 0.0
    assert coverage_bar(7 * RAMP).high == 7
    small, round_about = phase_bar(RAMP - 0.3, ALL), phase_bar(3 * RAMP, ALL)
    assert small.low == -small.high
    assert 0.6 < small.high < 0.7
    assert (small.colours, round_about.colours) == (DIVERGING, CYCLIC)
    assert (round_about.low, round_about.high) == (-math.pi, math.pi)
    assert phase_bar(RAMP, ~ALL).high == 1


def test_sheets():
    maps = [Map(str(n), RAMP, ALL, Bar(0.0, 1.0, GREYS, "scale")) for n in range(3)]
    sheet = overview(maps, lines=["one", "two"], side=80)
    taller = overview(maps, lines=["one", "two", "three"], side=80)
    assert sheet.shape[1] == taller.shape[1]
    assert sheet.shape[0] < taller.shape[0]
    views = [View(f"{n}", RAMP, ALL, 0.1 * n, used=n == 1) for n in range(8)]
    drawn = contact_sheet(views, title="all", side=60)
    green = (drawn == CHOSEN).all(axis=2)
    columns = np.flatnonzero(green.sum(axis=0) > 50)
    # The frame stands about the second of four columns.
    assert drawn.shape[1] / 4 < columns.min() < columns.max() < drawn.shape[1] / 2 + 10
