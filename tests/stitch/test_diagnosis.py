"""Every fault, planted, gets its own name; healthy scans get none."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from patchatlas.canvas.place import place
from patchatlas.canvas.plan import CanvasPlan, plan_canvas
from patchatlas.canvas.windows import gaussian, hann
from patchatlas.stitch.compat import reassemble
from patchatlas.stitch.diagnosis import Limits, Picture, diagnose
from tests.stitch.diagnosis_cases import cut, make_object, measured, measured_tiles, scan, stitched

SIDE = 24
COUNT = 100
PATHS = ["raster", "spiral", "fermat", "random", "row", "single"]


@pytest.fixture(scope="module")
def healthy():
    """Tiles, their positions, and the right canvas."""
    positions = scan("random", count=COUNT)
    tiles = cut(make_object(160), positions, SIDE)
    return tiles, positions, place(tiles, positions)


def seed(number=0):
    return torch.Generator().manual_seed(number)


# No false alarms.


@pytest.mark.parametrize("kind", ["complex", "real", "weak"])
@pytest.mark.parametrize("feature", [0.5, 2.0, 40.0])
@pytest.mark.parametrize("path", PATHS)
def test_healthy_scans_are_ok(path, kind, feature):
    positions = scan(path)
    tiles = cut(make_object(160, kind, feature), positions, SIDE)
    report = diagnose(tiles, positions, stitched(tiles, positions))
    assert report.ok, report.sentence
    assert report.faults == ()
    assert report.advice == ""


@pytest.mark.parametrize("name", ["siemens", "near-field"])
def test_measured_scans_are_ok(name):
    positions = measured(name)
    tiles = measured_tiles(name)
    report = diagnose(tiles, positions, stitched(tiles, positions))
    assert report.ok, report.sentence
    assert report.orientation.given < 0.001


@pytest.mark.parametrize("name", ["siemens", "near-field"])
@pytest.mark.parametrize("signs", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
@pytest.mark.parametrize("swapped", [False, True])
def test_measured_scans_tell_the_other_seven_orientations(name, signs, swapped):
    positions = measured(name)
    tiles = measured_tiles(name)
    claimed = (positions.flip(1) if swapped else positions) * torch.tensor(signs)
    verdict = diagnose(tiles, claimed).verdict
    assert verdict == ("transposed" if swapped else "ok" if signs == (1, 1) else "mirrored")


def test_other_ways_of_placing_are_ok(healthy):
    tiles, positions, _ = healthy
    for options in (
        {"interpolation": "nearest"},
        {"interpolation": "cubic"},
        {"window": hann((SIDE, SIDE))},
        {"window": gaussian((SIDE, SIDE))},
        {"weights": torch.rand(COUNT, generator=seed()) + 0.1},
        {"fill": 7.0},
    ):
        report = diagnose(tiles, positions, stitched(tiles, positions, **options))
        assert report.ok, (options, report.sentence)


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "cubic", "fourier"])
@pytest.mark.parametrize("window", [hann, gaussian])
@pytest.mark.parametrize("path", ["random", "single"])
def test_a_picture_is_compared_with_tiles_placed_as_it_was(path, window, interpolation):
    positions = scan(path, count=COUNT)
    tiles = cut(make_object(160), positions, SIDE)
    weights = window((SIDE, SIDE))
    made = place(tiles, positions, window=weights, interpolation=interpolation)
    report = diagnose(tiles, positions, Picture.of(made, window=weights))
    assert report.ok, report.sentence
    assert report.picture.agreement > 0.9999


def test_noise_and_other_precision_are_ok(healthy):
    tiles, positions, _ = healthy
    noisy = (tiles + 0.15 * torch.randn(tiles.shape, generator=seed(), dtype=tiles.dtype)).to(torch.complex64)
    report = diagnose(noisy, positions.float().numpy(), stitched(noisy, positions, window=hann((SIDE, SIDE))))
    assert report.ok, report.sentence
    assert 0.01 < report.orientation.given < 0.2


def test_pictures_without_origin_or_coverage_are_ok(healthy):
    tiles, positions, canvas = healthy
    for picture in (Picture(canvas.value()), Picture(canvas.value(), canvas.coverage), Picture(canvas.value().abs())):
        report = diagnose(tiles, positions, picture)
        assert report.ok, report.sentence


def test_the_ptychopinn_frame_is_ok():
    positions = scan("fermat", size=160)
    tiles = cut(make_object(160), positions, SIDE).to(torch.complex64)
    theirs = reassemble(tiles[:, 0], positions + SIDE // 2, crop=20)
    corners = positions + SIDE // 2 - 10  # of the cropped tiles
    picture = Picture(theirs.value[None], theirs.ones, theirs.origin_xy)
    report = diagnose(tiles[:, :, 2:22, 2:22], corners, picture)
    assert report.ok, report.sentence
    assert report.picture.agreement > 0.999
    mirrored = reassemble(tiles[:, 0], positions + SIDE // 2, crop=20, xla=False)
    picture = Picture(mirrored.value[None], mirrored.ones, mirrored.origin_xy)
    assert diagnose(tiles[:, :, 2:22, 2:22], corners, picture).verdict == "mirrored"


def test_what_cannot_be_told_is_said_and_no_alarm():
    apart = torch.tensor([[0.0, 0.0], [100.3, 7.7], [41.5, 60.2]], dtype=torch.float64)
    tiles = torch.rand(3, 1, 8, 8, generator=seed())
    report = diagnose(tiles, apart, stitched(tiles, apart))
    assert report.ok, report.sentence
    assert "no two of which overlap" in report.sentence
    constant = torch.full((50, 1, 8, 8), 0.7 + 0.1j)
    positions = scan("random", count=50, size=60, side=8)
    report = diagnose(constant, positions, stitched(constant, positions))
    assert report.ok, report.sentence
    assert "look the same wherever they lie" in report.sentence


def test_repeated_exposures_are_no_recycled_positions(healthy):
    tiles, positions, _ = healthy
    report = diagnose(tiles.repeat(2, 1, 1, 1), positions.repeat(2, 1))
    assert report.ok, report.sentence
    assert (report.spread.unique, report.spread.count) == (COUNT, 2 * COUNT)


def test_lines_and_volumes():
    generator = np.random.default_rng(1)
    line = np.convolve(generator.standard_normal(400), np.hanning(9), "valid")
    at = torch.from_numpy(generator.integers(0, 360, (40, 1)).astype(float))
    tiles = torch.from_numpy(np.stack([line[int(x) : int(x) + 30] for (x,) in at.numpy()]))[:, None]
    assert diagnose(tiles, at, stitched(tiles, at)).ok
    assert diagnose(tiles, -at).verdict == "mirrored"
    volume = generator.standard_normal((30, 32, 34))
    at = torch.from_numpy(generator.integers(0, 20, (60, 3)).astype(float))
    tiles = torch.from_numpy(np.stack([volume[int(z) :, int(y) :, int(x) :][:9, :10, :11] for x, y, z in at.numpy()]))[
        :, None
    ]
    assert diagnose(tiles, at, stitched(tiles, at)).ok
    report = diagnose(tiles, at[:, [1, 2, 0]])
    assert report.verdict == "transposed"
    assert len(report.orientation.by_orientation) == 48


# The eight root causes of PtychoPINN's collapse and its relatives, planted.


def test_cause_1_sum_over_the_wrong_axis_shows_one_tile(healthy):
    tiles, positions, canvas = healthy
    # Each tile summed over its single channel, its middle only, and the first of the stack shown.
    middle = torch.zeros(SIDE, SIDE)
    middle[6:18, 6:18] = 1
    first = place(tiles[:1] * middle, positions[:1], plan=canvas.plan)
    report = diagnose(tiles, positions, Picture(first.value(), origin=stitched(tiles, positions).origin))
    assert report.verdict == "one_tile"
    assert report.box.lit_size == (13, 13)
    assert "it is tile 0" in report.sentence
    whole = place(tiles[40:41], positions[40:41], plan=canvas.plan)
    report = diagnose(tiles, positions, Picture.of(whole))
    assert report.verdict == "one_tile"
    assert "it is tile 40" in report.sentence


def test_cause_2_error_swallowed_into_a_mean(healthy):
    tiles, positions, _ = healthy
    report = diagnose(tiles, positions, Picture(tiles.mean(dim=0)))
    assert report.verdict == "averaged"
    assert "mean of all" in report.sentence


@pytest.mark.parametrize(
    ("rows", "words"),
    [(np.arange(COUNT) % 25, "start again after row 24"), (np.arange(COUNT) // 4, "each 4 times in a row")],
)
def test_cause_3_recycled_offsets(healthy, rows, words):
    tiles, positions, _ = healthy
    report = diagnose(tiles, positions[torch.from_numpy(rows)])
    assert report.verdict == "recycled"
    assert "only 25 different positions" in report.sentence
    assert words in report.sentence


@pytest.mark.parametrize("transposed", [False, True])
def test_cause_4_tiles_laid_side_by_side(healthy, transposed):
    tiles, positions, _ = healthy
    grid = tiles[:, 0].reshape(10, 10, SIDE, SIDE)
    grid = grid.transpose(0, 1) if transposed else grid
    checkerboard = grid.permute(0, 2, 1, 3).reshape(1, 10 * SIDE, 10 * SIDE)
    for origin in (None, (0.0, 0.0)):
        report = diagnose(tiles, positions, Picture(checkerboard, origin=origin))
        assert report.verdict == "tiled"
        assert ("column by column" if transposed else "row by row") in report.sentence


@pytest.mark.parametrize(
    ("signs", "words"), [((-1, -1), "x and y"), ((-1, 1), "sign of x f"), ((1, -1), "sign of y f")]
)
def test_cause_5_sign_flipped(healthy, signs, words):
    tiles, positions, _ = healthy
    wrong = positions * torch.tensor(signs)
    report = diagnose(tiles, wrong, stitched(tiles, wrong))
    assert report.verdict == "mirrored"
    assert words in report.sentence
    only_picture = diagnose(tiles, positions, stitched(tiles, wrong))
    assert only_picture.verdict == "mirrored"
    assert only_picture.orientation.best == "as given"
    assert words in only_picture.sentence


@pytest.mark.parametrize("signs", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_cause_6_axes_swapped(healthy, signs):
    tiles, positions, _ = healthy
    wrong = positions.flip(1) * torch.tensor(signs)
    report = diagnose(tiles, wrong, stitched(tiles, wrong))
    assert report.verdict == "transposed"
    assert "axes swapped" in report.sentence
    only_picture = diagnose(tiles, positions, stitched(tiles, wrong))
    assert only_picture.verdict == "transposed"
    assert only_picture.orientation.best == "as given"


def test_cause_7_whole_numerator_over_a_central_count():
    positions = scan("raster", count=400)  # in steps of 6.5 px, so that the middles leave no gaps
    tiles = cut(make_object(160), positions, SIDE)
    canvas = place(tiles, positions)
    middle = torch.zeros(SIDE, SIDE)
    middle[6:18, 6:18] = 1
    count = place(torch.ones(400, 1, SIDE, SIDE), positions, window=middle, plan=canvas.plan).weight
    picture = Picture(canvas.sum / (count + 0.001), canvas.coverage, stitched(tiles, positions).origin)
    report = diagnose(tiles, positions, picture)
    assert report.verdict == "blown_up"
    assert report.picture.brightness > 500
    assert "% of them where coverage is below its median" in report.sentence
    assert float(report.sentence.split(" % of them")[0].split()[-1]) > 90  # the periphery


def test_cause_8_centre_of_mass_of_the_last_file(healthy):
    tiles, positions, _ = healthy
    right = stitched(tiles, positions)
    first, last = positions[:60], positions[60:]
    moved = last.mean(dim=0) + 5 - torch.cat([first, last]).mean(dim=0)
    origin = tuple(a + float(b) for a, b in zip(right.origin, moved, strict=True))
    report = diagnose(tiles, positions, dataclasses.replace(right, origin=origin))
    assert report.verdict == "displaced"


# More of the list.


def test_all_tiles_on_one_spot(healthy):
    tiles, positions, canvas = healthy
    assert diagnose(tiles, positions[:1].expand(COUNT, 2)).verdict == "one_spot"
    assert diagnose(tiles, positions * 1e-8).verdict == "one_spot"  # metres
    report = diagnose(tiles, positions / 160)  # parts of the object
    assert report.verdict == "one_spot"
    ignored = place(tiles, torch.full((COUNT, 2), 50.0, dtype=torch.float64), plan=canvas.plan)
    report = diagnose(tiles, positions, Picture.of(ignored))
    assert report.verdict == "one_spot"
    assert "mean of all tiles" in report.sentence


@pytest.mark.parametrize(
    ("change", "verdict", "words"),
    [
        (lambda p: p[:25], "misshaped", "25 positions for 100 tiles"),
        (lambda p: p[:1], "misshaped", "1 positions for 100 tiles"),
        (lambda p: p[:, None, None], "misshaped", "PtychoPINN"),
        (lambda p: p.T, "misshaped", "transpose"),
        (lambda p: p.flatten(), "misshaped", "alternate"),
        (lambda p: p.reshape(25, 1, 4, 2).transpose(2, 3), "misshaped", "grouped"),
        (lambda p: torch.cat([p, p[:, :1]], dim=1), "misshaped", "(x, y)"),
        (lambda p: torch.where(torch.arange(COUNT)[:, None] == 3, torch.nan, p), "not_finite", "1 of 100 positions"),
        (lambda p: p * 1e12, "not_finite", "100 of 100 positions"),
    ],
)
def test_mis_shaped_positions_are_named_not_raised(healthy, change, verdict, words):
    tiles, positions, _ = healthy
    report = diagnose(tiles, change(positions))
    assert report.verdict == verdict
    assert words in report.sentence
    assert report.spread is None
    assert report.advice


def test_tiles_that_are_not_finite(healthy):
    tiles, positions, _ = healthy
    broken = tiles.clone()
    broken[7, 0, 0, 0] = complex("nan")
    report = diagnose(broken, positions)
    assert report.verdict == "not_finite"
    assert "1 of 100 tiles" in report.sentence


def test_rows_shuffled(healthy):
    tiles, positions, _ = healthy
    report = diagnose(tiles, positions[torch.randperm(COUNT, generator=seed(1))])
    assert report.verdict == "shuffled"
    assert len(report.orientation.by_orientation) == 8


def test_strays_are_listed(healthy):
    tiles, positions, _ = healthy
    wrong = positions.clone()
    wrong[[3, 50, 77]] = positions[[50, 77, 3]]
    report = diagnose(tiles, wrong)
    assert report.verdict == "strays"
    assert sorted(report.orientation.strays) == [3, 50, 77]


def test_positions_that_jitter_are_loose_not_shuffled(healthy):
    tiles, positions, _ = healthy
    jitter = torch.randn(COUNT, 2, generator=seed(2), dtype=torch.float64)
    assert diagnose(tiles, positions + 0.25 * jitter).ok
    assert diagnose(tiles, positions + 2 * jitter).verdict == "loose"


def test_one_tile_for_all(healthy):
    tiles, positions, _ = healthy
    assert diagnose(tiles[:1].expand(COUNT, 1, SIDE, SIDE), positions).verdict == "same_tile"


@pytest.mark.parametrize(
    ("by", "verdict"), [(0.5, "half_pixel"), (-0.5, "half_pixel"), (1.0, "displaced"), (6.0, "displaced")]
)
@pytest.mark.parametrize("axis", [0, 1])
def test_half_a_pixel_and_more(healthy, by, verdict, axis):
    tiles, positions, _ = healthy
    plan = plan_canvas(positions, (SIDE, SIDE), margin=8)
    moved = positions.clone()
    moved[:, axis] += by
    report = diagnose(tiles, positions, Picture.of(place(tiles, moved, plan=plan)))
    assert report.verdict == verdict
    if by < 6:
        assert report.picture.displacement[axis] == pytest.approx(by, abs=0.05)
        assert report.picture.displacement[1 - axis] == pytest.approx(0, abs=0.05)


def test_a_floor_instead_of_a_fraction_is_half_a_pixel(healthy):
    tiles, positions, _ = healthy
    assert diagnose(tiles, positions, stitched(tiles, positions.floor())).verdict == "half_pixel"


def test_tiles_missing_from_the_canvas(healthy):
    tiles, positions, canvas = healthy
    part = place(tiles[:90], positions[:90], plan=canvas.plan)
    report = diagnose(tiles, positions, Picture.of(part))
    assert report.verdict == "dropped"
    assert "90 tiles, not 100" in report.sentence
    # A bounds test that loses a ring, seen from the coverage alone.
    inside = ((positions > 20) & (positions < 110)).all(dim=1)
    ring = place(tiles[inside], positions[inside], plan=canvas.plan)
    report = diagnose(tiles, positions, dataclasses.replace(Picture.of(ring), placed=None))
    assert report.verdict == "dropped"
    nothing = Picture(torch.zeros_like(canvas.value()), torch.zeros_like(canvas.coverage), Picture.of(canvas).origin)
    assert diagnose(tiles, positions, nothing).verdict == "dropped"


def test_a_picture_of_something_else(healthy):
    tiles, positions, _ = healthy
    other = cut(make_object(160, seed=5), positions, SIDE)
    assert diagnose(tiles, positions, Picture.of(place(other, positions))).verdict == "unlike"


def test_window_of_a_large_scan_is_compared_in_part(healthy):
    tiles, positions, canvas = healthy
    small = Limits(reference_pixels=40 * SIDE * SIDE, sample=40)
    report = diagnose(tiles, positions, Picture.of(canvas), limits=small)
    assert report.ok, report.sentence
    assert report.orientation.compared <= 40
    assert 100 < report.picture.compared_pixels < 0.7 * canvas.plan.pixels
    elsewhere = dataclasses.replace(Picture.of(canvas), origin=(5000.0, 5000.0))
    assert diagnose(tiles, positions, elsewhere, limits=small).verdict == "displaced"
    plan = CanvasPlan(tuple(o - 4 for o in canvas.plan.origin), tuple(n + 8 for n in canvas.plan.size))
    half = place(tiles, positions + 0.5, plan=plan)
    assert diagnose(tiles, positions, Picture.of(half), limits=small).verdict == "half_pixel"


# The report.


def test_report_is_json_with_every_check(healthy):
    tiles, positions, canvas = healthy
    for report in (
        diagnose(tiles, positions, Picture.of(canvas)),
        diagnose(tiles, positions.flip(1)),
        diagnose(tiles, positions[:3]),
        diagnose(tiles[:1], positions[:1]),
    ):
        stored = json.loads(json.dumps(report.to_json(), allow_nan=False))
        assert stored["format"] == "patchatlas.stitch-report"
        assert stored["verdict"] == report.verdict
        assert stored["sentence"] == report.sentence
        assert "\n" not in report.sentence
        assert stored["tiles"] == len(tiles) or stored["tiles"] == 1
        assert set(stored) >= {"contract", "spread", "box", "coverage", "orientation", "picture", "limits", "faults"}


def test_the_same_input_gives_the_same_report(healthy):
    tiles, positions, canvas = healthy
    first, second = (diagnose(tiles, positions, Picture.of(canvas)).to_json() for _ in range(2))
    assert first == second
