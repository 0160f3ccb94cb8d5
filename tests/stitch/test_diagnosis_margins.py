"""How far healthy and broken scans lie from the thresholds, and the parts of the diagnosis by hand-worked numbers."""

import math

import numpy as np
import pytest
import torch

from patchatlas.canvas.place import place
from patchatlas.errors import ShapeError
from patchatlas.stitch.diagnosis import Limits, bounding_box, overlap_residual, position_spread
from patchatlas.stitch.diagnosis.clusters import clusters
from patchatlas.stitch.diagnosis.coverage import coverage_stats
from patchatlas.stitch.diagnosis.match import correlation, displacement, find
from patchatlas.stitch.diagnosis.orientation import Orientation, orientations
from patchatlas.stitch.diagnosis.overlap import overlap
from tests.stitch.diagnosis_cases import cut, make_object, scan

LIMITS = Limits()


def seed(number=0):
    return torch.Generator().manual_seed(number)


# D5 and D6.


@pytest.mark.parametrize("kind", ["complex", "real", "weak"])
@pytest.mark.parametrize(("feature", "most", "least"), [(0.5, 0.04, 0.5), (2.0, 0.001, 0.5), (40.0, 1e-5, 0.03)])
@pytest.mark.parametrize("path", ["raster", "fermat"])
def test_right_and_wrong_orientations_lie_far_from_the_limits(path, kind, feature, most, least):
    positions = scan(path)
    tiles = cut(make_object(160, kind, feature), positions, 24)
    residuals = {way.name: overlap_residual(tiles, way(positions)) for way in orientations(2)}
    assert residuals.pop("+x +y") < most
    assert len(residuals) == 7
    # On a raster, one flipped sign leaves half of the overlaps right: those along the rows.
    assert min(residuals.values()) > least
    assert most / least < LIMITS.turned / 5
    assert least > LIMITS.turned_least
    assert most < LIMITS.loose / 5


def test_residual_of_two_numbers_by_hand():
    # Two tiles on one pixel each way: values 1 and 3, and 2 and 2; their common mean 2 comes off.
    tiles = torch.tensor([[[1.0, 2.0]], [[3.0, 2.0]]])
    found = overlap(tiles, torch.zeros(2, 1, dtype=torch.float64))
    # Variance 2/(2-1) * 1 at the first pixel, 0 at the second; power E|p|^2 = 1 and 0.
    assert (found.disagreement, found.power, found.shared) == (2.0, 1.0, 2)
    assert overlap_residual(tiles, torch.zeros(2, 1, dtype=torch.float64)) == 2.0


@pytest.mark.parametrize("many", [2, 3, 10, 50])
def test_unrelated_tiles_give_one_whatever_the_coverage(many):
    tiles = torch.randn(many, 1, 32, 32, generator=seed(many), dtype=torch.complex64)
    assert overlap_residual(tiles, torch.zeros(many, 2, dtype=torch.float64)) == pytest.approx(1, abs=0.05)


def test_a_bright_object_hides_nothing():
    positions = scan("random")
    tiles = cut(make_object(160, "real"), positions, 24)
    plain = overlap_residual(tiles, positions.flip(1))
    assert overlap_residual(tiles + 1e3, positions.flip(1)) == pytest.approx(plain, abs=1e-6)


def test_residual_of_tiles_apart_or_constant_is_not_a_number():
    apart = torch.tensor([[0.0, 0.0], [50.0, 0.0]], dtype=torch.float64)
    assert math.isnan(overlap_residual(torch.rand(2, 1, 8, 8), apart))
    assert math.isnan(overlap_residual(torch.full((2, 1, 8, 8), 0.3), apart * 0.01))


def test_orientations_by_hand():
    assert [len(list(orientations(ndim))) for ndim in (1, 2, 3)] == [2, 8, 48]
    positions = torch.tensor([[3.0, 5.0]], dtype=torch.float64)
    turned = Orientation((1, 0), (1, -1))
    assert turned(positions).tolist() == [[5.0, -3.0]]
    assert turned.name == "+y -x"
    assert turned.words == "axes swapped and sign of x flipped"
    assert len({tuple(way(positions)[0].tolist()) for way in orientations(2)}) == 8


def test_clusters_are_neighbours_and_bounded():
    positions = torch.from_numpy(np.random.default_rng(0).uniform(0, 2000, (3000, 2)))
    groups = clusters(positions, (32, 32), limit=80, count=4)
    assert [len(group) for group in groups] == [20, 20, 20, 20]
    for group in groups:
        distance = torch.cdist(positions[group], positions[group])
        assert float(distance.max()) < 300
    assert len(clusters(positions[:80] / 100, (32, 32), limit=80, count=4)) == 1
    # Positions far apart: no canvas could hold a cluster, so none is asked for.
    far = torch.tensor([[0.0, 0.0], [1e9, 0.0], [5.0, 0.0]], dtype=torch.float64)
    for group in clusters(far, (32, 32), limit=80, count=4):
        assert float((far[group].amax(dim=0) - far[group].amin(dim=0)).max()) < 1e4


# D2.


def test_spread_by_hand():
    positions = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0002], [30.0, 0.0]], dtype=torch.float64)
    found = position_spread(torch.rand(4, 1, 10, 12, generator=seed()), positions, limits=LIMITS)
    assert (found.count, found.unique, found.rank) == (4, 3, 2)
    assert (found.low, found.high, found.reach) == ((0.0, 0.0), (30.0, 4.0002), 30.0)
    assert found.std[0] == pytest.approx(np.std([0, 3, 3, 30]))
    assert found.neighbour == pytest.approx(2e-4)
    line = torch.tensor([[0.0, 1.0], [2.0, 1.0], [6.0, 1.0]], dtype=torch.float64)
    found = position_spread(torch.rand(3, 1, 4, 4, generator=seed()), line, limits=LIMITS)
    assert (found.rank, found.neighbour, found.neighbour_in_tiles) == (1, 2.0, 0.5)


# D3.


def grid():
    """Nine tiles of 4 x 6 (rows x columns), from (10, 20), in steps of (5, 3): a box of 16 x 10."""
    x, y = np.meshgrid(10 + 5 * np.arange(3.0), 20 + 3 * np.arange(3.0))
    return torch.from_numpy(np.stack([x.ravel(), y.ravel()], axis=1))


def test_box_by_hand():
    picture = torch.zeros(1, 40, 50)
    picture[:, 20:30, 10:26] = 1
    box = bounding_box(picture, grid(), (4, 6), origin=(0, 0))
    assert box.predicted == (10, 20, 26, 30)
    assert box.lit == (10, 20, 26, 30)
    assert (box.ratio, box.fault, box.size) == (1.0, None, (50, 40))
    # Seen from a saved picture alone: 8 bits, three colours, no origin.
    colours = torch.full((3, 40, 50), 128, dtype=torch.uint8)
    colours[:, 5:15, 2:18] = 30
    box = bounding_box(colours, grid(), (4, 6))
    assert (box.lit, box.predicted, box.fault) == ((2, 5, 18, 15), (2, 5, 18, 15), None)


@pytest.mark.parametrize(
    ("lit", "verdict", "words"),
    [
        ((slice(20, 24), slice(10, 16)), "one_tile", "6 x 4"),
        ((slice(20, 30), slice(10, 19)), "dropped", "56 %"),
        ((slice(20, 30), slice(14, 30)), "displaced", "(+4, +0)"),
        ((slice(2, 38), slice(2, 48)), "unlike", "larger"),
        ((slice(0, 0), slice(0, 0)), "dropped", "nothing is lit"),
    ],
)
def test_boxes_that_differ_are_named(lit, verdict, words):
    picture = torch.full((1, 40, 50), 0.25 + 0.5j)
    picture[:, *lit] = 2
    box = bounding_box(picture, grid(), (4, 6), origin=(0.0, 0.0))
    assert box.fault.verdict == verdict
    assert words in box.fault.sentence


def test_collapse_is_seen_from_a_saved_picture_alone():
    positions = scan("random")
    tiles = cut(make_object(160), positions, 24)
    plan = place(tiles, positions).plan
    for values in (place(tiles[:1], positions[:1], plan=plan).value(), place(tiles, positions).value()):
        shown = (255 * values.abs() / values.abs().max()).to(torch.uint8)
        fault = bounding_box(shown.repeat(3, 1, 1), positions, (24, 24)).fault
        assert (fault.verdict if fault else None) == ("one_tile" if values.eq(0).float().mean() > 0.9 else None)


def test_background_comes_from_the_coverage_where_there_is_one():
    picture = torch.zeros(1, 40, 50)  # phase 0 everywhere
    coverage = torch.zeros(40, 50)
    coverage[20:30, 10:26] = 1
    box = bounding_box(picture, grid(), (4, 6), origin=(0, 0), coverage=coverage)
    assert (box.lit, box.fault, box.from_coverage) == ((10, 20, 26, 30), None, True)
    nothing = picture.clone()
    nothing[:, coverage == 0] = torch.nan
    assert bounding_box(nothing, grid(), (4, 6), origin=(0, 0)).fault is None


def test_a_picture_without_background_is_lit_everywhere():
    picture = torch.rand(1, 10, 16, generator=seed())
    box = bounding_box(picture, grid(), (4, 6))
    assert (box.lit, box.fault) == ((0, 0, 16, 10), None)


def test_box_refuses_what_does_not_fit():
    with pytest.raises(ShapeError, match="does not fit tiles of"):
        bounding_box(torch.zeros(3, 4, 5, 6), grid(), (4, 6))


# D4.


def test_coverage_by_hand():
    positions = torch.tensor([[0.0, 0.0], [2.0, 0.0], [20.0, 20.0]], dtype=torch.float64)
    coverage = torch.zeros(6, 8)
    coverage[:4, :4] += 1
    coverage[:4, 2:6] += 1
    found = coverage_stats(coverage, positions, (4, 4), origin=(0, 0))
    assert (found.least, found.median, found.most) == (1.0, 1.0, 2.0)
    assert found.mean == pytest.approx(32 / 24)
    assert found.expected_mean == pytest.approx(48 / 24)
    assert found.lit_part == 0.5
    assert found.dropped == (2,)
    assert found.fault.verdict == "dropped"
    assert "1 of 3 tiles are missing from the canvas: rows 2" in found.fault.sentence
    assert coverage_stats(coverage, positions[:2], (4, 4), origin=(0, 0)).fault is None
    assert coverage_stats(coverage, positions, (4, 4), origin=None).dropped == ()


# The picture's place.


def test_find_gives_back_where_a_piece_was_cut():
    picture = torch.randn(2, 40, 50, generator=seed())
    everywhere = torch.ones(40, 50, dtype=torch.bool)
    piece = 3 * picture[:, 7:27, 11:33] + 5
    score, at = find(piece, torch.ones(20, 22, dtype=torch.bool), picture, everywhere)
    assert at == (7, 11)
    assert score == pytest.approx(1, abs=0.03)
    # Half outside, and half of the piece masked.
    over = torch.zeros(2, 20, 22)
    over[:, 4:] = picture[:, :16, :22]
    mask = torch.zeros(20, 22, dtype=torch.bool)
    mask[4:] = True
    score, at = find(over, mask, picture, everywhere)
    assert at == (-4, 0)
    assert score == pytest.approx(1, abs=0.05)


def test_displacement_is_found_to_a_fraction():
    thing = make_object(64, "real", 3.0)
    still = torch.tensor([[8.0, 8.0]], dtype=torch.float64)
    held = torch.ones(40, 40, dtype=torch.bool)
    reference = cut(thing, still, 40)[0]
    for d_row, d_column in ((0.5, 0.0), (0.0, -0.3), (0.2, 0.4)):
        moved = cut(thing, still - torch.tensor([[d_column, d_row]]), 40)[0]
        found = displacement(moved, reference, held)
        torch.testing.assert_close(found, torch.tensor([d_row, d_column], dtype=torch.float64), atol=0.03, rtol=0)
    flat = torch.zeros(1, 40, 40)
    assert displacement(flat, flat, held).tolist() == [0.0, 0.0]


def test_correlation_by_hand():
    a = torch.tensor([[1.0, 2.0, 3.0, 99.0]])
    mask = torch.tensor([True, True, True, False])
    assert correlation(a, 2 * a + 1, mask) == pytest.approx(1)
    assert correlation(a, -a, mask) == pytest.approx(-1)
    assert correlation(a, torch.zeros_like(a), mask) == 0
