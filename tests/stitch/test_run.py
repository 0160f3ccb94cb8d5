"""The job end to end on simulated scans: canvas against the known object, misfit, orientations, whole folders."""

import json
import runpy
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from patchatlas.canvas.place import place
from patchatlas.canvas.windows import hann
from patchatlas.errors import FormatError, InputError, ShapeError, UsageError
from patchatlas.stitch.compat import reassemble
from patchatlas.stitch.misfit import misfit
from patchatlas.stitch.output import read_stitch, write_stitch
from patchatlas.stitch.run import check_compat, oriented_views, stitch, stitch_like_ptychopinn
from patchatlas.stitch.simulate import make_object, make_probe, scan_path, simulate

EXAMPLE = Path(__file__).parents[2] / "examples" / "stitch_cycle.py"


@pytest.fixture(scope="module")
def scan():
    rng = np.random.default_rng(11)
    image = make_object((120, 140), rng)
    at = scan_path("random", 60, object_hw=(120, 140), side=32, generator=rng)
    return simulate(image, make_probe(32), at, generator=rng, noise=False)


class TestStitch:
    def test_whole_positions_give_the_object_exactly(self, scan):
        at = scan.positions.round()
        tiles = torch.stack([scan.object[y : y + 32, x : x + 32] for x, y in at.int().tolist()])[:, None]
        made = stitch(tiles, at, window=hann((32, 32)))
        x, y = map(int, made.origin_xy)
        assert (x, y) == tuple(int(v) for v in at.amin(dim=0))
        h, w = made.coverage.shape
        lit = made.coverage > 0
        torch.testing.assert_close(made.values[0][lit], scan.object[y : y + h, x : x + w][lit], atol=1e-6, rtol=0)
        assert float(made.misfit.map.nan_to_num().max()) < 1e-9
        assert bool(torch.isnan(made.misfit.map[~lit]).all())

    def test_positions_between_pixels(self, scan):
        made = stitch(scan.tiles[:, None], scan.positions, interpolation="cubic")
        x, y = map(int, made.origin_xy)
        h, w = made.coverage.shape
        lit = made.coverage >= 1
        apart = (made.values[0] - scan.object[y : y + h, x : x + w])[lit]
        assert float(apart.abs().square().mean().sqrt()) < 0.01

    def test_channels_and_real_tiles(self, scan):
        tiles = torch.stack([scan.tiles.abs(), scan.tiles.angle()], dim=1)
        both = stitch(tiles, scan.positions)
        assert both.values.shape[0] == 2
        torch.testing.assert_close(both.values[1:], stitch(tiles[:, 1:], scan.positions).values)

    def test_ptychopinn_frame(self, scan):
        made = stitch_like_ptychopinn(scan.tiles[:, None], scan.positions, crop=20)
        known = reassemble(scan.tiles, scan.positions + 16, crop=20)
        torch.testing.assert_close(made.values[0], known.value)
        assert made.origin_xy == known.origin_xy
        assert made.tiles.shape[2:] == (20, 20)
        torch.testing.assert_close(made.positions, scan.positions + 6)
        # Tiles agree, so what they are compared with lies where they do.
        assert float(made.misfit.tiles.nanmean()) < 0.05
        with pytest.raises(ShapeError, match="one channel"):
            stitch_like_ptychopinn(torch.cat([scan.tiles[:, None]] * 2, dim=1), scan.positions)

    def test_ptychopinn_frame_has_its_own_rule(self):
        check_compat(None, interpolation="cubic", window="hann")
        check_compat("ptychopinn", interpolation="linear", window="uniform")
        with pytest.raises(UsageError, match="given --interp cubic"):
            check_compat("ptychopinn", interpolation="cubic", window="uniform")


class TestMisfit:
    def test_by_hand(self):
        """Two tiles of 1 x 2 that share a pixel, with 1 and 3 there; the mean of all values is 2."""
        tiles = torch.tensor([[4.0, 1.0], [3.0, 0.0]])[:, None, None]
        at = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
        found = misfit(tiles, at, place(tiles, at))
        # Shared pixel: canvas 2, so both are 1 off, and 1 off the mean: (1 + 1) / (1 + 1).
        np.testing.assert_allclose(found.map, [[np.nan, 1, np.nan]])
        np.testing.assert_allclose(found.tiles, [1, 1])

    def test_a_wrong_tile_stands_out(self, scan):
        tiles = scan.tiles[:, None].clone()
        tiles[5] = tiles[6]
        found = misfit(tiles, scan.positions, place(tiles, scan.positions))
        assert int(found.tiles.nan_to_num().argmax()) == 5
        x, y = (scan.positions[5] - scan.positions.amin(dim=0).floor()).int().tolist()
        inside = found.map[y : y + 32, x : x + 32].nanmean()
        assert float(inside) > 2 * float(found.map.nanmean())

    def test_pixels_without_a_value_have_none(self, scan):
        tiles = scan.tiles[:, None]
        canvas = place(tiles, scan.positions, interpolation="fourier", window=hann((32, 32)))
        rim = (canvas.counts >= 2) & ~canvas.covered
        assert int(rim.sum()) > 50
        found = misfit(tiles, scan.positions, canvas, window=hann((32, 32)))
        assert bool(found.map[rim].isnan().all())
        assert float(found.map.nanmedian()) < 1e-5

    def test_tiles_that_share_nothing(self):
        at = torch.tensor([[0.0, 0.0], [50.0, 0.0]], dtype=torch.float64)
        tiles = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        assert bool(misfit(tiles, at, place(tiles, at)).tiles.isnan().all())


def test_only_the_right_orientation_agrees(scan):
    views = oriented_views(scan.tiles[:, None], scan.positions)
    assert [view.orientation.name for view in views][:2] == ["+x +y", "+x -y"]
    residuals = [view.residual for view in views]
    assert views[0].orientation.as_given
    assert residuals[0] < 0.01
    assert min(residuals[1:]) > 0.5
    assert all(view.values.shape[1:] == view.covered.shape for view in views)


class TestOutput:
    arrays = {"object": np.ones((3, 4), np.complex64), "coverage": np.ones((3, 4), np.float32)}  # noqa: RUF012
    pictures = {"amplitude": np.zeros((3, 4, 3), np.uint8)}  # noqa: RUF012
    report = {"arrays": {"object": [], "coverage": []}, "package": "1"}  # noqa: RUF012

    def write(self, folder, **changed):
        parts = {"arrays": self.arrays, "pictures": self.pictures, "report": self.report, "with_hdf5": False, **changed}
        write_stitch(folder, **parts)

    def test_round_trip(self, tmp_path):
        self.write(tmp_path / "out", with_hdf5=True)
        arrays, report = read_stitch(tmp_path / "out")
        np.testing.assert_array_equal(arrays["object"], self.arrays["object"])
        assert (report["format"], report["version"]) == ("patchatlas.stitch", 1)
        with h5py.File(tmp_path / "out" / "stitch.h5") as file:
            np.testing.assert_array_equal(file["object"], self.arrays["object"])
            assert json.loads(file.attrs["report"]) == report
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_a_former_result_is_replaced_and_nothing_else(self, tmp_path):
        self.write(tmp_path / "out", with_hdf5=True)
        self.write(tmp_path / "out")
        assert not (tmp_path / "out" / "stitch.h5").exists()
        (tmp_path / "empty").mkdir()
        self.write(tmp_path / "empty")
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.tex").write_text("x")
        with pytest.raises(InputError, match="holds other files"):
            self.write(tmp_path / "mine")
        (tmp_path / "mine" / "report.json").write_text("{}")
        with pytest.raises(FormatError, match="not of the format"):
            self.write(tmp_path / "mine")
        assert (tmp_path / "mine" / "thesis.tex").read_text() == "x"
        with pytest.raises(InputError, match="it is a file"):
            self.write(tmp_path / "mine" / "thesis.tex")
        with pytest.raises(InputError, match="create it first"):
            self.write(tmp_path / "no" / "out")

    def test_nothing_is_left_when_anything_fails(self, tmp_path):
        self.write(tmp_path / "out")
        before = sorted(path.name for path in (tmp_path / "out").iterdir())
        with pytest.raises(ValueError, match="Out of range float"):
            self.write(tmp_path / "out", report={**self.report, "bad": float("nan")})
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_other_reports_are_refused(self, tmp_path):
        with pytest.raises(InputError, match="has no report"):
            read_stitch(tmp_path)
        self.write(tmp_path / "out")
        path = tmp_path / "out" / "report.json"
        path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
        with pytest.raises(FormatError, match="version 2"):
            read_stitch(tmp_path / "out")
        path.write_text("not json")
        with pytest.raises(FormatError, match="is no JSON"):
            read_stitch(tmp_path / "out")


@pytest.mark.slow
def test_whole_cycle(tmp_path, capsys):
    """Simulate 1000 and 512 positions, learn, stitch, diagnose, compare: the example, trained for a shorter time."""
    example = runpy.run_path(str(EXAMPLE))
    summary = example["main"](tmp_path / "cycle", epochs=16)
    assert summary["verdict"] == "ok"
    assert summary["phase_correlation"] > 0.9
    assert summary["amplitude_correlation"] > 0.85
    assert json.loads((tmp_path / "cycle" / "summary.json").read_text()) == summary
    assert np.load(tmp_path / "cycle" / "predicted.npy").shape == (512, 1, 32, 32)
    assert "patchatlas stitch run" in capsys.readouterr().out
