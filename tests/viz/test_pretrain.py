"""Curves and slices of a run."""

import math

import torch

from patchatlas.viz.pretrain import FOOT, HEAD, HEIGHT, LEFT, MOST_POINTS, WIDTH, curve, slices


def test_a_line_runs_from_corner_to_corner():
    drawn = curve({"loss": [(0.0, 0.0), (10.0, 1.0)]}, caption="Loss <here>")
    first, last = drawn.split('points="')[1].split('"')[0].split()
    assert first.startswith(f"{LEFT:.1f},")
    assert last == f"{WIDTH - 6:.1f},{HEAD:.1f}"
    assert "Loss &lt;here&gt;" in drawn
    assert "loss: 1 at step 10" in drawn


def test_numbers_that_are_not_finite_are_left_out():
    drawn = curve({"a": [(0.0, 1.0), (1.0, math.nan), (2.0, math.inf), (3.0, 2.0)]}, caption="c")
    assert len(drawn.split('points="')[1].split('"')[0].split()) == 2
    assert "nothing was logged" in curve({"a": [(0.0, math.nan)]}, caption="c")


def test_a_number_that_never_changes_lies_on_the_ground():
    drawn = curve({"flat": [(0.0, 0.0), (1.0, 0.0)]}, caption="c")
    assert ">0</text>" in drawn
    assert ">1</text>" in drawn
    assert "-0.5" not in drawn
    assert f",{HEIGHT - FOOT}.0" in drawn


def test_long_lines_are_thinned():
    drawn = curve({"a": [(float(x), x / 2) for x in range(10 * MOST_POINTS + 7)]}, caption="c")
    points = drawn.split('points="')[1].split('"')[0].split()
    assert MOST_POINTS / 2 < len(points) <= MOST_POINTS


def test_three_slices_of_a_volume_side_by_side():
    volume = torch.zeros(3, 8, 16, 12)
    volume[0, 4] = 1  # the middle axial slice is red
    picture = slices(volume, (1.0, 1.0, 1.0), 32)
    assert picture.shape == (32, 24 + 32 + 32 + 2 * 6, 3)
    assert (picture[:, :24] == (255, 0, 0)).all()
    assert slices(torch.zeros(3, 8, 16), (1.0, 1.0), 32).shape == (16, 32, 3)


def test_a_single_point_is_drawn_as_a_dot():
    drawn = curve({"rank": [(99.0, 0.4)], "loss": [(0.0, 0.0), (10.0, 1.0)]}, caption="c")
    assert drawn.count("<circle") == 1
    assert drawn.count("<polyline") == 1
    assert "rank: 0.4 at step 99" in drawn
    alone = curve({"rank": [(99.0, 0.4)]}, caption="c")
    assert f'cx="{LEFT:.1f}" cy="{HEIGHT - FOOT:.1f}"' in alone
