"""The stitch commands: what they print and write, how they exit, and that bad input leaves nothing behind."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import zarr
from PIL import Image

from patchatlas.canvas.store import open_zarr
from patchatlas.cli import stitch_pictures
from patchatlas.cli.main import main
from patchatlas.io.images import read_image
from patchatlas.io.scans.read import read_scan
from patchatlas.stitch.output import read_stitch
from patchatlas.stitch.trace import read_trace

SIMULATE = ["--positions", "60", "--test-positions", "12", "--tile", "32", "--object", "140", "--path", "random"]


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    assert main(["stitch", "simulate", str(folder), *SIMULATE, "--jitter", "0.4"]) == 0
    return folder


def run(*args):
    return main(["stitch", *map(str, args)])


def told(capsys):
    return json.loads(capsys.readouterr().out)


def test_simulate_tells_its_files_and_repeats(scans, tmp_path, capsys):
    capsys.readouterr()
    assert run("simulate", tmp_path / "again", *SIMULATE, "--jitter", "0.4", "--format", "json") == 0
    files = told(capsys)["files"]
    assert [one["positions"] for one in files] == [60, 12]
    for name in ("train.npz", "test.npz"):
        assert (tmp_path / "again" / name).read_bytes() == (scans / name).read_bytes()
    train, test = (read_scan(scans / name) for name in ("train.npz", "test.npz"))
    np.testing.assert_array_equal(train.object, test.object)
    np.testing.assert_array_equal(train.probe, test.probe)


def test_simulate_seed_and_bad_input(scans, tmp_path, capsys):
    assert run("simulate", tmp_path / "other", *SIMULATE, "--jitter", "0.4", "--seed", "1") == 0
    assert (tmp_path / "other" / "train.npz").read_bytes() != (scans / "train.npz").read_bytes()
    assert run("simulate", tmp_path / "small", "--object", "80") == 2
    assert "do not fit" in capsys.readouterr().err
    assert not (tmp_path / "small").exists()
    assert run("simulate", tmp_path / "no" / "folder") == 4


def test_run_writes_arrays_pictures_and_report(scans, tmp_path, capsys):
    capsys.readouterr()
    out, trace = tmp_path / "out", tmp_path / "trace.jsonl"
    assert run("run", scans / "train.npz", "--output", out, "--hdf5", "--trace", trace, "--format", "json") == 0
    printed = told(capsys)
    arrays, report = read_stitch(out)
    assert {**report, "output": str(out)} == {"format": "patchatlas.stitch", "version": 1, **printed}
    assert report["diagnosis"]["verdict"] == "ok"
    assert report["scan"]["facts"]["anchor"] == {"value": "centre", "from": "the rule of PtychoPINN NPZ"}
    assert len(report["stamp"]["digest"]) == 64
    size = tuple(report["canvas"]["size_hw"])
    assert {name: array.shape for name, array in arrays.items()} == {
        "object": size,
        "coverage": size,
        "covered": size,
        "residual": size,
        "positions": (60, 2),
    }
    assert arrays["object"].dtype == np.complex64
    x, y = map(int, report["canvas"]["origin_xy"])
    truth = read_scan(scans / "train.npz").object[y : y + size[0], x : x + size[1]]
    lit = arrays["coverage"] > 0
    assert abs(np.corrcoef(np.angle(arrays["object"][lit]), np.angle(truth[lit]))[0, 1]) > 0.97
    assert report["pictures"] == [
        f"{name}.png" for name in ("amplitude", "phase", "coverage", "residual", "overview", "orientation")
    ]
    for name in ("amplitude", "phase", "coverage", "residual"):  # a pixel a pixel
        assert read_image(out / f"{name}.png").shape == (*size, 3)
    lines = read_trace(trace)
    assert [line["stage"] for line in lines] == [
        "stored positions",
        "tiles",
        "corners",
        "placed tiles",
        "placed corners",
        "coverage",
        "canvas",
    ]
    assert lines[2]["unique_rows"] == 60


def test_a_single_tile_and_tiles_apart(tmp_path, capsys):
    tiles = np.exp(1j * np.random.default_rng(0).random((3, 16, 16))).astype(np.complex64)
    for count, words in ((1, "1 tile, so nothing tells"), (3, "no two of which overlap")):
        x = 40.3 * np.arange(count)
        np.savez(tmp_path / "scan.npz", xcoords=x, ycoords=x, Y=tiles[:count])
        assert run("run", tmp_path / "scan.npz", "--output", tmp_path / "out") == 0
        out, err = capsys.readouterr()
        assert words in out
        assert err == ""


class TestZarr:
    def test_the_canvas_on_disk_is_the_one_in_memory(self, scans, tmp_path, capsys):
        np.save(tmp_path / "tiles.npy", read_scan(scans / "train.npz").tiles)
        args = [scans / "train.npz", "--tiles", tmp_path / "tiles.npy", "--window", "hann", "--output"]
        assert run("run", *args, tmp_path / "memory") == 0
        capsys.readouterr()
        trace = tmp_path / "trace.jsonl"
        options = ["--zarr", "--memory", "1", "--trace", trace, "--format", "json"]
        assert run("run", *args, tmp_path / "disk", *options) == 0
        printed = told(capsys)
        arrays, kept = read_stitch(tmp_path / "memory")
        held, report = read_stitch(tmp_path / "disk")
        assert {**report, "output": str(tmp_path / "disk")} == {
            "format": "patchatlas.stitch",
            "version": 1,
            **printed,
        }
        group, plan, stamp = open_zarr(tmp_path / "disk" / report["zarr"])
        np.testing.assert_allclose(group["value"][0], arrays["object"], atol=1e-6)
        np.testing.assert_allclose(group["coverage"][:], arrays["coverage"], rtol=1e-5, atol=1e-6)
        assert report["stamp"] == kept["stamp"]
        assert json.loads(stamp.to_json()).items() >= report["stamp"]["facts"].items()
        assert list(plan.origin) == report["canvas"]["origin_xy"][::-1]
        assert report["canvas"] == kept["canvas"]
        assert report["coverage"] == pytest.approx(kept["coverage"])
        assert report["diagnosis"]["verdict"] == "ok"
        assert report["diagnosis"]["picture"]["agreement"] > 0.999
        assert report["diagnosis"]["box"]["lit"] == kept["diagnosis"]["box"]["lit"]
        np.testing.assert_array_equal(held["positions"], arrays["positions"])
        assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == [
            "canvas.zarr",
            "orientation.png",
            "overview.png",
            "positions.npy",
            "report.json",
        ]
        assert [line["stage"] for line in read_trace(trace)][-2:] == ["coverage, reduced", "canvas, reduced"]

    @pytest.mark.parametrize("options", [["--interp", "fourier"], ["--interp", "cubic", "--window", "hann3"]])
    def test_pixels_without_a_value_are_the_same_as_in_memory(self, scans, tmp_path, monkeypatch, options):
        drawn = []
        draw = stitch_pictures.draw_maps
        monkeypatch.setattr(
            stitch_pictures,
            "draw_maps",
            lambda values, coverage, has_value, **more: (
                drawn.append(has_value.numpy()) or draw(values, coverage, has_value, **more)
            ),
        )
        for name, more in (("memory", []), ("disk", ["--zarr", "--memory", "1"])):
            assert run("run", scans / "train.npz", *options, *more, "--output", tmp_path / name) == 0
        arrays, kept = read_stitch(tmp_path / "memory")
        report = read_stitch(tmp_path / "disk")[1]
        covered = open_zarr(tmp_path / "disk" / "canvas.zarr")[0]["covered"][:]
        assert (arrays["coverage"] > 0).sum() > covered.sum() + 100  # or nothing is tested
        np.testing.assert_array_equal(covered, arrays["covered"])
        np.testing.assert_array_equal(drawn[1], drawn[0])
        assert report["coverage"] == pytest.approx(kept["coverage"], rel=1e-4)
        lit = arrays["coverage"][arrays["covered"]]
        assert kept["coverage"]["least"] == float(lit.min())
        assert kept["coverage"]["covered_part"] == pytest.approx(covered.mean())

    def test_a_wrong_sign_is_seen_and_leaves_nothing_when_it_is_an_error(self, scans, tmp_path, capsys):
        wrong = [scans / "train.npz", "--zarr", "--sign", "minus-x", "--output", tmp_path / "out"]
        assert run("run", *wrong, "--diagnose", "error") == 4
        out, _ = capsys.readouterr()
        assert "mirrored:" in out
        assert "nothing was written" in out
        assert list(tmp_path.iterdir()) == []
        assert run("run", *wrong) == 0
        assert "mirrored" in capsys.readouterr().err
        assert run("run", *wrong[:2], "--output", tmp_path / "out", "--diagnose", "off") == 0
        assert read_stitch(tmp_path / "out")[1]["diagnosis"] is None

    @pytest.mark.parametrize("options", [["--hdf5"], ["--compat", "ptychopinn"]])
    def test_what_needs_the_whole_canvas_is_refused(self, scans, tmp_path, capsys, options):
        assert run("run", scans / "test.npz", "--output", tmp_path / "out", "--zarr", *options) == 2
        assert "--zarr goes with neither" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_backends_agree_and_what_they_cannot_do_is_refused(scans, tmp_path, capsys, backend):
    args = [scans / "test.npz", "--output", tmp_path / "out", "--backend", backend]
    assert run("run", *args) == 0
    assert run("run", scans / "test.npz", "--output", tmp_path / "auto") == 0
    made, auto = (read_stitch(tmp_path / name)[0]["object"] for name in ("out", "auto"))
    np.testing.assert_allclose(made, auto, atol=1e-5)
    assert run("run", *args, "--interp", "cubic") == (2 if backend == "numba" else 0)
    assert run("run", *args, "--compat", "ptychopinn") == 2
    assert "leave --backend and --threads out" in capsys.readouterr().err


def test_run_repeats_its_bytes_and_replaces_a_former_result(scans, tmp_path):
    out = tmp_path / "out"
    assert run("run", scans / "test.npz", "--output", out) == 0
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    assert run("run", scans / "test.npz", "--output", out) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "options",
    [
        ["--interp", "bilinear", "--window", "hann"],
        ["--interp", "cubic", "--window", "gaussian"],
        ["--interp", "nearest", "--window", "probe"],
        ["--interp", "fourier", "--window", "hann"],
        ["--interp", "fourier"],
        ["--compat", "ptychopinn", "--crop", "16"],
    ],
)
def test_ways_to_run(scans, tmp_path, options):
    assert run("run", scans / "test.npz", "--output", tmp_path / "out", *options) == 0
    arrays, report = read_stitch(tmp_path / "out")
    x, y = (round(v) for v in report["canvas"]["origin_xy"])
    h, w = arrays["object"].shape
    known = np.pad(read_scan(scans / "test.npz").object, 50)[y + 50 : y + 50 + h, x + 50 : x + 50 + w]
    lit = arrays["coverage"] > 0.5
    assert abs(np.corrcoef(arrays["object"][lit], known[lit])[0, 1]) > 0.9
    facts = report["stamp"]["facts"]
    assert facts["interpolation"] == {"bilinear": "linear"}.get(options[1], options[1]).replace("ptychopinn", "linear")
    windows = {"linear": "uniform", "fourier": "hann3"}
    assert facts["window"] == (options[3] if "--window" in options else windows[facts["interpolation"]])
    assert facts["compat"] == ("ptychopinn" if "--compat" in options else "none")


def test_run_with_tiles_and_window_of_their_own(scans, tmp_path):
    scan = read_scan(scans / "test.npz")
    np.save(tmp_path / "tiles.npy", np.abs(scan.tiles).astype(np.float32))
    np.save(tmp_path / "window.npy", np.hanning(34)[1:-1, None] * np.hanning(34)[None, 1:-1])
    args = ["--tiles", tmp_path / "tiles.npy", "--window", tmp_path / "window.npy", "--output", tmp_path / "out"]
    assert run("run", scans / "test.npz", *args) == 0
    arrays, report = read_stitch(tmp_path / "out")
    assert arrays["object"].dtype == np.float32
    assert report["pictures"][0] == "value.png"
    assert {"scan_sha256", "tiles_sha256", "window_sha256"} <= set(report["stamp"]["facts"])


def test_tiles_with_channels_last_and_of_another_size_are_taken_when_it_is_said(scans, tmp_path):
    scan = read_scan(scans / "test.npz")
    middles = np.stack([scan.tiles.real, scan.tiles.imag], axis=-1)[:, 8:24, 8:24]
    np.save(tmp_path / "middles.npy", middles)
    args = ["--tiles", tmp_path / "middles.npy", "--channels-axis", "last", "--output", tmp_path / "out"]
    assert run("run", scans / "test.npz", *args) == 4
    assert run("run", scans / "test.npz", *args, "--any-size") == 0
    arrays, report = read_stitch(tmp_path / "out")
    assert (report["tiles"]["channels"], report["tiles"]["size_hw"]) == (2, [16, 16])
    assert report["stamp"]["facts"]["channels_axis"] == "last"
    np.testing.assert_array_equal(
        arrays["positions"] + 8,
        np.load(scans / "test.npz")["xcoords"][:, None] * [1, 0]
        + np.load(scans / "test.npz")["ycoords"][:, None] * [0, 1],
    )


def test_all_modes_of_a_probe_weigh_tiles(scans, tmp_path):
    """The window is the sum of the modes' intensities over its peak, and no less than a thousandth."""
    with np.load(scans / "test.npz") as held:
        arrays = dict(held)
    row, column = np.mgrid[:32, :32] + 1.0
    arrays["probeGuess"] = np.stack([row + 0j, 1j * column, row * column])
    np.savez(tmp_path / "modes.npz", **arrays)
    light = row**2 + column**2 + (row * column) ** 2
    np.save(tmp_path / "light.npy", np.maximum(light / light.max(), 1e-3))
    for name, window in (("a", "probe"), ("b", tmp_path / "light.npy")):
        assert run("run", tmp_path / "modes.npz", "--window", window, "--output", tmp_path / name) == 0
    a, b = (read_stitch(tmp_path / name) for name in "ab")
    np.testing.assert_allclose(a[0]["coverage"], b[0]["coverage"], rtol=1e-6)
    assert "the probe has 3 modes" in a[1]["scan"]["notes"][0]


@pytest.mark.parametrize("kind", [">c8", ">c16", "G"])
def test_foreign_number_types_are_no_bugs(scans, tmp_path, kind):
    with np.load(scans / "test.npz") as held:
        arrays = {name: held[name] for name in ("xcoords", "ycoords", "diffraction")}
        arrays |= {name: held[name].astype(kind) for name in ("Y", "probeGuess")}
    np.savez(tmp_path / "turned.npz", **arrays)
    np.save(tmp_path / "tiles.npy", arrays["Y"])
    np.save(tmp_path / "window.npy", np.ones((32, 32), dtype=">f8"))
    for options in (["--window", "probe"], ["--tiles", tmp_path / "tiles.npy", "--window", tmp_path / "window.npy"]):
        assert run("run", tmp_path / "turned.npz", "--output", tmp_path / "out", *options) == 0
        assert run("run", scans / "test.npz", "--output", tmp_path / "known", *options[-2:]) == 0
        made, known = (read_stitch(tmp_path / name)[0]["object"] for name in ("out", "known"))
        np.testing.assert_allclose(made, known, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--backend", "torch", "--window", "hann"],
        ["--interp", "cubic"],
        ["--interp", "fourier"],
        ["--zarr", "--interp", "cubic"],
    ],
)
def test_threads_change_nothing(scans, tmp_path, monkeypatch, options):
    asked, tell = [], torch.set_num_threads
    monkeypatch.setattr(torch, "set_num_threads", lambda count: (asked.append(count), tell(count)))
    for threads in (1, 4):
        out = ["--output", tmp_path / str(threads), "--threads", threads]
        assert run("run", scans / "train.npz", *options, *out) == 0
    assert 4 in asked
    assert torch.get_num_threads() == 1
    made = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "1", tmp_path / "4")
    ]
    for one in made:
        report = json.loads(one.pop(Path("report.json")))
        del report["config"]["output"]
        one["report"] = report
    assert made[0] == made[1]


def test_a_wrong_sign_is_a_warning_or_an_error(scans, tmp_path, capsys):
    wrong = [scans / "train.npz", "--sign", "minus-x", "--output", tmp_path / "out"]
    assert run("run", *wrong) == 0
    out, err = capsys.readouterr()
    assert "mirrored:" in out
    assert "mirrored" in err
    assert (tmp_path / "out" / "overview.png").exists()
    assert run("run", *wrong[:-1], tmp_path / "none", "--diagnose", "error") == 4
    assert "nothing was written" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()
    assert run("run", *wrong, "--diagnose", "off") == 0
    assert read_stitch(tmp_path / "out")[1]["diagnosis"] is None


def bad_inputs(folder):
    """Name: (arguments after the scan, arrays of the scan, exit code, part of the message)."""
    x, tiles = np.arange(4.0), np.ones((4, 8, 8), np.complex64)
    good = {"xcoords": x, "ycoords": x, "Y": tiles}
    np.save(folder / "five.npy", np.ones((5, 8, 8)))
    np.save(folder / "objects.npy", np.array([None]), allow_pickle=True)
    np.save(folder / "nan.npy", np.full((4, 8, 8), np.nan))
    np.save(folder / "large.npy", np.ones((4, 16, 16)))
    np.save(folder / "last.npy", np.ones((4, 8, 8, 2)))
    framed = {"xcoords": x, "ycoords": x, "diffraction": np.ones((4, 8, 8))}
    for name, value in (("zero", 0), ("tiny", 1e-300), ("minus", -1), ("infinite", np.inf)):
        np.save(folder / f"{name}.npy", np.full((8, 8), value, dtype=float))
    return {
        "nan positions": ([], {**good, "xcoords": x * np.nan}, 4, "NaN"),
        "counts": ([], {**good, "Y": tiles[:3]}, 4, "4 positions for 3 tiles"),
        "one position": ([], {"xcoords": x[:1], "ycoords": x[:1], "Y": tiles}, 4, "one position for many tiles"),
        "objects": ([], {**good, "xcoords": x.astype(object)}, 4, "Python objects"),
        "empty": ([], {"xcoords": x[:0], "ycoords": x[:0]}, 4, "empty"),
        "no tiles": ([], {"xcoords": x, "ycoords": x}, 2, "--tiles FILE"),
        "five tiles": (["--tiles", folder / "five.npy"], good, 4, "4 positions"),
        "pickled tiles": (["--tiles", folder / "objects.npy"], good, 4, "Python objects"),
        "nan tiles": (["--tiles", folder / "nan.npy"], good, 4, "NaN or infinity"),
        "unit": ([], {**good, "xcoords": x * 1e-7, "ycoords": x * 1e-7}, 2, "--unit px|m"),
        "window": (["--window", "triangle"], good, 2, "no window 'triangle'"),
        "probe": (["--window", "probe"], good, 2, "needs a probe"),
        "compat": (["--compat", "ptychopinn", "--interp", "cubic"], good, 2, "--interp cubic"),
        "crop": (["--compat", "ptychopinn", "--crop", "7"], good, 4, "even"),
        "pixel size": (["--pixel-size", "small"], good, 2, "is no length"),
        "large tiles": (["--tiles", folder / "large.npy"], framed, 4, "pass --any-size"),
        "large Y": ([], {**framed, "Y": np.ones((4, 16, 16))}, 4, "pass --any-size"),
        "channels last": (["--tiles", folder / "last.npy"], framed, 2, "--channels-axis first|last"),
        **{
            f"{name} window": (["--window", folder / f"{name}.npy"], good, 4, "some above 0")
            for name in ("zero", "tiny", "minus", "infinite")
        },
        "key": (["--tiles", folder / "five.npy", "--tiles-key", "a"], good, 2, "has no key"),
    }


BAD = (
    "nan positions, counts, one position, objects, empty, no tiles, five tiles, pickled tiles, nan tiles, unit, "
    "window, probe, compat, crop, pixel size, key, large tiles, large Y, channels last, zero window, tiny window, "
    "minus window, infinite window"
).split(", ")


@pytest.mark.parametrize("name", BAD)
def test_bad_input_says_what_and_leaves_nothing(tmp_path, capsys, name):
    args, arrays, code, message = bad_inputs(tmp_path)[name]
    np.savez(tmp_path / "scan.npz", **arrays)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert run("run", tmp_path / "scan.npz", "--output", tmp_path / "out", *args) == code
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_output_that_holds_other_files_is_left_alone(scans, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    assert run("run", scans / "test.npz", "--output", tmp_path / "out") == 4
    assert "holds other files" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


class TestDiagnose:
    def test_all_well(self, scans, tmp_path, capsys):
        report, sheet = tmp_path / "r.json", tmp_path / "o.png"
        assert run("diagnose", scans / "train.npz", "--report", report, "--orientations", sheet) == 0
        assert capsys.readouterr().out.startswith("ok: 60 tiles agree")
        assert json.loads(report.read_text())["verdict"] == "ok"
        assert read_image(sheet).shape[1] > 1000

    @pytest.mark.parametrize(
        ("flag", "verdict"), [(["--sign", "minus-y"], "mirrored"), (["--order", "yx"], "transposed")]
    )
    def test_wrong_axes_are_named(self, scans, capsys, flag, verdict):
        capsys.readouterr()
        assert run("diagnose", scans / "train.npz", *flag, "--format", "json") == 4
        data = told(capsys)
        assert data["verdict"] == verdict
        assert data["advice"]
        assert data["facts"][flag[0].removeprefix("--")] == {"value": flag[1], "from": "the caller"}

    def test_a_canvas_of_another_program(self, scans, tmp_path, capsys):
        assert run("run", scans / "train.npz", "--output", tmp_path / "out") == 0
        arrays, report = read_stitch(tmp_path / "out")
        x, y = report["canvas"]["origin_xy"]
        args = ["--stitched", tmp_path / "made.npy", "--origin", str(x), str(y)]
        np.save(tmp_path / "made.npy", arrays["object"])
        assert run("diagnose", scans / "train.npz", *args, "--coverage", tmp_path / "out" / "coverage.npy") == 0
        collapsed = np.zeros_like(arrays["object"])
        collapsed[:32, :32] = read_scan(scans / "train.npz").tiles[0]
        np.save(tmp_path / "made.npy", collapsed)
        capsys.readouterr()
        assert run("diagnose", scans / "train.npz", *args) == 4
        assert "one_tile" in capsys.readouterr().out

    def test_positions_only(self, tmp_path, capsys):
        at = np.stack(np.meshgrid(np.arange(5.0) * 9, np.arange(4.0) * 7), axis=-1).reshape(1, -1, 2)
        np.savez(tmp_path / "tike.npz", scan=at, data=np.ones((1, 20, 16, 16)))
        assert run("diagnose", tmp_path / "tike.npz") == 0
        assert "positions only" in capsys.readouterr().out
        np.savez(tmp_path / "tike.npz", scan=at * 0, data=np.ones((1, 20, 16, 16)))
        assert run("diagnose", tmp_path / "tike.npz") == 4
        assert "one_spot" in capsys.readouterr().out
        assert run("diagnose", tmp_path / "tike.npz", "--stitched", tmp_path / "a.npy") == 2

    def test_options_that_do_not_go_together(self, scans, tmp_path, capsys):
        assert run("diagnose", scans / "train.npz", "--origin", "1", "2") == 2
        assert "--stitched" in capsys.readouterr().err
        assert run("diagnose", scans / "train.npz", "--report", tmp_path / "no" / "r.json") == 4


class TestRootCauses:
    """What went wrong in PtychoPINN, each planted in files and told from them by `diagnose`."""

    @pytest.fixture
    def healthy(self, tmp_path):
        folder = tmp_path / "causes"
        options = ["--positions", 144, "--test-positions", 0, "--tile", 32, "--object", 150, "--path", "raster"]
        assert run("simulate", folder, *options) == 0
        assert run("run", folder / "train.npz", "--output", folder / "out") == 0
        return folder

    def told(self, healthy, capsys, *, scan=None, picture=None, origin=None, coverage=False):
        with np.load(healthy / "train.npz") as held:
            arrays = dict(held)
        if scan is not None:
            np.savez(healthy / "planted.npz", **(arrays | scan(arrays)))
        args = [healthy / ("train.npz" if scan is None else "planted.npz"), "--format", "json"]
        if picture is not None:
            np.save(healthy / "picture.npy", picture.astype(np.complex64))
            args += ["--stitched", healthy / "picture.npy"]
        if origin is not None:
            args += ["--origin", *origin]
        if coverage:
            args += ["--coverage", healthy / "out" / "coverage.npy"]
        capsys.readouterr()
        code = run("diagnose", *args)
        verdict = told(capsys)["verdict"]
        assert code == (0 if verdict == "ok" else 4)
        return verdict

    def test_each_by_its_name(self, healthy, capsys):
        arrays, report = read_stitch(healthy / "out")
        origin, right = report["canvas"]["origin_xy"], arrays["object"]
        tiles = read_scan(healthy / "train.npz").tiles
        h, w = right.shape
        one = np.zeros_like(right)
        x, y = (round(v) for v in arrays["positions"][0] - origin)
        one[y : y + 32, x : x + 32] = tiles[0][: h - y, : w - x]
        middle = np.zeros((32, 32))
        middle[8:24, 8:24] = 1
        np.save(healthy / "middle.npy", middle)
        counted = ["--window", healthy / "middle.npy", "--diagnose", "off"]
        assert run("run", healthy / "train.npz", "--output", healthy / "middle", *counted) == 0
        count = read_stitch(healthy / "middle")[0]["coverage"]
        few = np.arange(144) % 36
        last = arrays["positions"][100:].mean(axis=0) - arrays["positions"].mean(axis=0)
        side_by_side = tiles.reshape(12, 12, 32, 32).transpose(0, 2, 1, 3).reshape(384, 384)
        found = {
            "none": self.told(healthy, capsys, picture=right, origin=origin, coverage=True),
            "1 first of a stack that was never summed": self.told(healthy, capsys, picture=one, origin=origin),
            "2 error swallowed into a mean": self.told(healthy, capsys, picture=tiles.mean(axis=0)),
            "3 offsets recycled": self.told(
                healthy, capsys, scan=lambda a: {"xcoords": a["xcoords"][few], "ycoords": a["ycoords"][few]}
            ),
            "4 tiles laid side by side": self.told(healthy, capsys, picture=side_by_side),
            "5 sign": self.told(healthy, capsys, scan=lambda a: {"xcoords": -a["xcoords"], "ycoords": -a["ycoords"]}),
            "6 axes": self.told(healthy, capsys, scan=lambda a: {"xcoords": a["ycoords"], "ycoords": a["xcoords"]}),
            "7 whole sum over a central count": self.told(
                healthy, capsys, picture=right * arrays["coverage"] / (count + 0.001), origin=origin, coverage=True
            ),
            "8 centre of the last file": self.told(healthy, capsys, picture=right, origin=origin + last),
        }
        assert found == {
            "none": "ok",
            "1 first of a stack that was never summed": "one_tile",
            "2 error swallowed into a mean": "averaged",
            "3 offsets recycled": "recycled",
            "4 tiles laid side by side": "tiled",
            "5 sign": "mirrored",
            "6 axes": "transposed",
            "7 whole sum over a central count": "blown_up",
            "8 centre of the last file": "displaced",
        }


class TestBbox:
    @pytest.fixture
    def result(self, scans, tmp_path):
        assert run("run", scans / "train.npz", "--output", tmp_path / "out") == 0
        return tmp_path / "out"

    @pytest.mark.parametrize("name", ["amplitude.png", "phase.png", "coverage.png", "object.npy"])
    def test_a_right_picture(self, scans, result, capsys, name):
        capsys.readouterr()
        assert run("bbox", result / name, "--scan", scans / "train.npz", "--format", "json") == 0
        data = told(capsys)
        assert (data["verdict"], data["ratio"]) == ("ok", 1.0)

    @pytest.mark.parametrize("suffix", ["png", "tif", "npy"])
    def test_a_collapse_shows_from_the_picture_alone(self, scans, result, tmp_path, capsys, suffix):
        values = np.abs(read_stitch(result)[0]["object"])
        collapsed = np.zeros_like(values)
        collapsed[40:72, 50:82] = values[40:72, 50:82]
        path = tmp_path / f"collapsed.{suffix}"
        if suffix == "npy":
            np.save(path, collapsed)
        elif suffix == "tif":
            Image.fromarray(collapsed).save(path)  # 32-bit float
        else:
            Image.fromarray((255 * collapsed).astype(np.uint8)).save(path)
        capsys.readouterr()
        assert run("bbox", path, "--scan", scans / "train.npz") == 4
        assert capsys.readouterr().out.startswith("one_tile: the lit box is 32 x 32 px")

    def test_our_own_hdf5_npz_and_zarr_are_read(self, scans, tmp_path, capsys):
        assert run("run", scans / "train.npz", "--output", tmp_path / "a", "--hdf5") == 0
        assert run("run", scans / "train.npz", "--output", tmp_path / "b", "--zarr") == 0
        arrays = read_stitch(tmp_path / "a")[0]
        np.savez(tmp_path / "a.npz", **arrays)
        np.savez(tmp_path / "b.npz", mine=arrays["object"], places=arrays["positions"], note=np.ones(3))
        capsys.readouterr()
        for path, covered, placed in (
            ("a/stitch.h5", True, False),
            ("a.npz", True, False),
            ("b/canvas.zarr", True, True),
        ):
            assert run("bbox", tmp_path / path, "--scan", scans / "train.npz", "--format", "json") == 0
            data = told(capsys)
            assert (data["verdict"], data["ratio"]) == ("ok", 1.0)
            assert (data["from_coverage"], data["origin_known"]) == (covered, placed)
        args = [tmp_path / "b.npz", "--scan", scans / "train.npz"]
        assert run("bbox", *args) == 2
        assert "name one with --image-key: mine (" in capsys.readouterr().err
        assert run("bbox", *args, "--image-key", "mine") == 0
        assert run("bbox", *args, "--image-key", "none") == 2
        assert run("bbox", *args, "--image-key", "note") == 4
        assert run("bbox", tmp_path / "a" / "object.npy", *args[1:], "--image-key", "mine") == 2

    def test_a_collapse_in_hdf5_and_on_disk_shows(self, scans, tmp_path, capsys):
        assert run("run", scans / "train.npz", "--output", tmp_path / "a", "--hdf5") == 0
        assert run("run", scans / "train.npz", "--output", tmp_path / "b", "--zarr") == 0
        with h5py.File(tmp_path / "a" / "stitch.h5", "r+") as file:
            for name in ("object", "coverage"):
                values = file[name][:]
                file[name][:] = 0
                file[name][40:72, 50:82] = values[40:72, 50:82]
        group = zarr.open_group(tmp_path / "b" / "canvas.zarr")
        group["coverage"][:40] = 0
        for path, verdict in (("a/stitch.h5", "one_tile"), ("b/canvas.zarr", "dropped")):
            capsys.readouterr()
            assert run("bbox", tmp_path / path, "--scan", scans / "train.npz") == 4
            assert capsys.readouterr().out.startswith(verdict)
        assert run("bbox", tmp_path / "b" / "canvas.zarr", "--scan", scans / "train.npz", "--origin", 0, 0) == 2
        assert run("bbox", tmp_path / "b", "--scan", scans / "train.npz") == 4
        del group["covered"]
        assert run("bbox", tmp_path / "b" / "canvas.zarr", "--scan", scans / "train.npz") == 4

    def test_place_and_middle_of_tiles(self, scans, tmp_path, capsys):
        assert run("run", scans / "train.npz", "--output", tmp_path / "out", "--compat", "ptychopinn") == 0
        report = read_stitch(tmp_path / "out")[1]
        args = [tmp_path / "out" / "object.npy", "--scan", scans / "train.npz", "--tile", "20"]
        args += ["--coverage", tmp_path / "out" / "coverage.npy", "--origin"]
        x, y = report["canvas"]["origin_xy"]
        assert run("bbox", *args, x, y) == 0
        capsys.readouterr()
        assert run("bbox", *args, x + 9, y) == 4
        assert capsys.readouterr().out.startswith("displaced")

    def test_bad_input(self, scans, result, tmp_path, capsys):
        assert run("bbox", tmp_path / "no.png", "--scan", scans / "train.npz") == 4
        (tmp_path / "cut.png").write_bytes((result / "amplitude.png").read_bytes()[:200])
        assert run("bbox", tmp_path / "cut.png", "--scan", scans / "train.npz") == 4
        assert run("bbox", result / "amplitude.png", "--scan", scans / "train.npz", "--tile", "big") == 2
        np.save(tmp_path / "c.npy", np.ones((3, 3)))
        args = ["--scan", scans / "train.npz", "--coverage", tmp_path / "c.npy"]
        assert run("bbox", result / "amplitude.png", *args) == 4
        err = capsys.readouterr().err
        assert all(part in err for part in ("there is no file", "damaged or cut short", "is no size", "one a pixel"))


class TestRefine:
    def test_positions_come_back(self, scans, tmp_path, capsys):
        capsys.readouterr()
        assert run("refine", scans / "train.npz", tmp_path / "r.npz", "--format", "json") == 0
        data = told(capsys)
        assert data["residual_after"] < 0.05 * data["residual_before"]
        with np.load(scans / "train.npz") as truth, np.load(tmp_path / "r.npz") as found:
            known = np.stack([truth["xcoords_true"], truth["ycoords_true"]], axis=1)
            apart = found["stored"] - known  # in the scan's own terms: centres
            assert np.sqrt(np.mean((apart - apart.mean(axis=0)) ** 2)) < 0.05
            np.testing.assert_allclose(found["x"] + 16, found["stored"][:, 0])

    def test_tiles_that_agree_only_in_part_are_said(self, scans, tmp_path, capsys):
        tiles = read_scan(scans / "train.npz").tiles
        noise = np.random.default_rng(0).standard_normal((*tiles.shape, 2)) @ [1, 1j]
        np.save(tmp_path / "noisy.npy", (tiles + noise).astype(np.complex64))
        run("refine", scans / "train.npz", tmp_path / "r.npz", "--tiles", tmp_path / "noisy.npy")
        assert "still agree only in part" in capsys.readouterr().out

    def test_held_tiles_are_exit_3(self, scans, tmp_path, capsys):
        assert run("refine", scans / "train.npz", tmp_path / "r.npz", "--limit", "0.5") == 3
        assert "wanted to go farther" in capsys.readouterr().out

    def test_bad_output(self, scans, tmp_path):
        assert run("refine", scans / "train.npz", tmp_path / "r.csv") == 2
        assert run("refine", scans / "train.npz", tmp_path / "no" / "r.npz") == 4
