"""A canvas on disk, read in bands: what is seen of it is what the canvas in memory shows."""

import pytest
import torch

from patchatlas.canvas.store import open_zarr
from patchatlas.stamp import Stamp
from patchatlas.stitch import large
from patchatlas.stitch.diagnosis import diagnose
from patchatlas.stitch.large import stitch_to_zarr, survey
from patchatlas.stitch.run import oriented_views, stitch
from tests.stitch.diagnosis_cases import cut, make_object, scan

SIDE = 24
STAMP = Stamp((("unit", "px"),))


@pytest.fixture(scope="module")
def tiles_and_positions():
    positions = scan("random", count=150)
    return cut(make_object(160), positions, SIDE).to(torch.complex64), positions


def on_disk(folder, tiles, positions, **options):
    stitch_to_zarr(folder / "c.zarr", tiles, positions, stamp=STAMP, memory=1 << 18, **options)
    return survey(folder / "c.zarr", positions, (SIDE, SIDE), **options)


def test_survey_is_what_memory_shows(tmp_path, monkeypatch, tiles_and_positions):
    monkeypatch.setattr(large, "SHOWN_SIDE", 60)
    tiles, positions = tiles_and_positions
    made = stitch(tiles, positions)
    seen = on_disk(tmp_path, tiles, positions)
    rows, columns = made.coverage.shape
    assert seen.step == -(-max(rows, columns) // 60)
    torch.testing.assert_close(seen.values, made.values[:, :: seen.step, :: seen.step], atol=1e-6, rtol=0)
    torch.testing.assert_close(seen.coverage, made.coverage[:: seen.step, :: seen.step], atol=1e-6, rtol=0)
    torch.testing.assert_close(seen.covered, made.covered[:: seen.step, :: seen.step])
    lit = made.coverage[made.covered]
    assert (seen.least, seen.most) == pytest.approx((float(lit.min()), float(lit.max())), abs=1e-6)
    assert seen.covered_part == pytest.approx(float(made.covered.float().mean()))
    assert seen.box.lit == seen.box.predicted == (0, 0, columns, rows)
    x, y = (int(p - o) for p, o in zip(seen.part.origin, made.origin_xy, strict=True))
    torch.testing.assert_close(seen.part.values, made.values[:, y : y + 60, x : x + 60], atol=1e-6, rtol=0)
    assert x > 10
    assert y > 10


@pytest.mark.parametrize("interpolation", ["linear", "fourier"])
def test_part_and_box_are_diagnosed(tmp_path, monkeypatch, tiles_and_positions, interpolation):
    monkeypatch.setattr(large, "SHOWN_SIDE", 60)
    tiles, positions = tiles_and_positions
    seen = on_disk(tmp_path, tiles, positions, interpolation=interpolation)
    report = diagnose(tiles, positions, seen.part, box=seen.box)
    assert report.ok, report.sentence
    assert report.picture.agreement > 0.99
    assert report.box == seen.box
    assert diagnose(tiles, positions + 0.5, seen.part, box=seen.box).verdict == "half_pixel"
    assert diagnose(tiles, positions.flip(1), seen.part, box=seen.box).verdict == "transposed"


def test_views_of_a_large_canvas_are_of_its_middle(monkeypatch, tiles_and_positions):
    monkeypatch.setattr("patchatlas.stitch.run.SHOWN_PIXELS", 5000)
    tiles, positions = tiles_and_positions
    views = oriented_views(tiles, positions)
    assert len(views) == 8
    assert all(view.covered.numel() < 160 * 160 / 2 for view in views)
    assert views[0].residual == min(view.residual for view in views)


def test_stamp_goes_with_the_canvas(tmp_path, tiles_and_positions):
    on_disk(tmp_path, *tiles_and_positions)
    _, plan, stamp = open_zarr(tmp_path / "c.zarr")
    assert dict(stamp.facts)["unit"] == "px"
    assert plan.origin == tuple(int(v) for v in stitch(*tiles_and_positions).origin_xy[::-1])
