"""Canvases in zarr: the same as in memory whatever the bands, complete or absent, and small in memory."""

import inspect
import json
import subprocess
import sys

import pytest
import torch
import zarr

from patchatlas.canvas.outofcore import place_to_zarr
from patchatlas.canvas.place import place
from patchatlas.canvas.plan import CanvasPlan
from patchatlas.canvas.store import FORMAT, open_zarr
from patchatlas.canvas.windows import hann
from patchatlas.errors import FormatError, InputError, ResourceError, ShapeError, StampError, UsageError
from patchatlas.stamp import Stamp
from tests.canvas.scans import generator, random_positions, random_tiles


def placed(path, tiles, positions, **options):
    plan = place_to_zarr(
        path, tiles.__getitem__, positions, tiles.shape[2:], channels=tiles.shape[1], dtype=tiles.dtype, **options
    )
    group = zarr.open_group(path, mode="r")
    return plan, torch.from_numpy(group["value"][:]), torch.from_numpy(group["coverage"][:]), dict(group.attrs)


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "cubic", "fourier"])
@pytest.mark.parametrize("memory", [15_000, 35_000, 1 << 24])
@pytest.mark.parametrize("kind", ["plain", "window", "weights", "window and weights"])
def test_bands_give_what_memory_gives(tmp_path, interpolation, memory, kind):
    """Also where tiles are of very different weights, and a millionth of a pixel from a whole one."""
    tiles, positions = random_tiles(1, n=40), random_positions(1, n=40, spread=30.0)
    positions[::4] = positions[::4].round() + 4e-7
    options = {"interpolation": interpolation, "fill": 2 - 3j}
    if "window" in kind:
        options["window"] = hann((5, 7))
    if "weights" in kind:
        options["weights"] = 10.0 ** (-8 * torch.rand(40, dtype=torch.float64, generator=generator(1)))
    whole = place(tiles, positions, **options)
    plan, value, coverage, about = placed(tmp_path / "c.zarr", tiles, positions, memory=memory, **options)
    assert plan == whole.plan
    assert (whole.value() == 2 - 3j).any()
    torch.testing.assert_close(coverage, whole.coverage)
    assert torch.equal(torch.from_numpy(zarr.open_group(tmp_path / "c.zarr", mode="r")["covered"][:]), whole.covered)
    assert torch.equal(value == 2 - 3j, whole.value() == 2 - 3j)
    torch.testing.assert_close(value, whole.value())
    assert about["format"] == FORMAT
    assert about["origin"] == list(plan.origin)
    assert [file.name for file in tmp_path.iterdir()] == ["c.zarr"]


@pytest.mark.parametrize("size", [(6,), (3, 4, 5)])
def test_lines_and_volumes(tmp_path, size):
    tiles = random_tiles(2, n=12, channels=1, size=size, dtype=torch.float32)
    positions = random_positions(2, n=12, ndim=len(size))
    whole = place(tiles, positions)
    _, value, coverage, _ = placed(tmp_path / "c.zarr", tiles, positions, memory=20_000)
    torch.testing.assert_close(value, whole.value())
    torch.testing.assert_close(coverage, whole.coverage)


def test_every_band_is_written_once_and_empty_ones_are_not(tmp_path):
    tiles = torch.ones(2, 1, 4, 4)
    positions = torch.tensor([[0.0, 0.0], [3.0, 92.5]])
    asked, bands = [], []

    def read(rows: torch.Tensor) -> torch.Tensor:
        asked.append(rows.tolist())
        return tiles[rows]

    plan = place_to_zarr(
        tmp_path / "c.zarr",
        read,
        positions,
        (4, 4),
        dtype=torch.float32,
        memory=2000,
        fill=-1.0,
        progress=lambda done, of: bands.append((done, of)),
    )
    assert plan == CanvasPlan((0, 0), (97, 7))
    assert asked == [[0], [1]]
    assert bands == [(done, len(bands)) for done in range(1, len(bands) + 1)]
    assert len(bands) > 4
    stored = sorted(file.name for file in (tmp_path / "c.zarr" / "coverage" / "c").rglob("*") if file.is_file())
    assert len(stored) < len(bands)
    assert zarr.open_group(tmp_path / "c.zarr", mode="r")["value"][0, 50, 3] == -1


def test_a_tile_on_the_border_of_two_bands_is_read_for_both(tmp_path):
    tiles = random_tiles(3, n=1, channels=1, size=(8, 4), dtype=torch.float32)
    positions = torch.tensor([[0.5, 0.5]])
    asked = []

    def read(rows: torch.Tensor) -> torch.Tensor:
        asked.append(rows.tolist())
        return tiles[rows]

    place_to_zarr(tmp_path / "c.zarr", read, positions, (8, 4), dtype=torch.float32, memory=700)
    assert asked == [[0], [0]]
    value = torch.from_numpy(zarr.open_group(tmp_path / "c.zarr", mode="r")["value"][:])
    torch.testing.assert_close(value, place(tiles, positions).value())


def test_nothing_is_left_when_reading_fails(tmp_path):
    def read(_: torch.Tensor) -> torch.Tensor:
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="gone"):
        place_to_zarr(tmp_path / "c.zarr", read, random_positions(4), (5, 7))
    assert list(tmp_path.iterdir()) == []


def test_refusals(tmp_path):
    tiles, positions = random_tiles(5), random_positions(5)
    with pytest.raises(ResourceError, match="allow at least"):
        placed(tmp_path / "c.zarr", tiles, positions, memory=100)
    with pytest.raises(ShapeError, match="weights"):
        placed(tmp_path / "c.zarr", tiles, positions, weights=torch.ones(3))
    with pytest.raises(ShapeError, match="outside the canvas"):
        placed(tmp_path / "c.zarr", tiles, positions, plan=CanvasPlan((0, 0), (3, 3)))
    with pytest.raises(InputError, match="does not exist"):
        placed(tmp_path / "no" / "c.zarr", tiles, positions)
    (tmp_path / "c.zarr").mkdir()
    with pytest.raises(InputError, match=r"c\.zarr exists; remove it"):
        placed(tmp_path / "c.zarr", tiles, positions)
    assert list((tmp_path / "c.zarr").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": torch.float32, "fill": 1j}, "is complex, the canvas is real"),
        ({"dtype": torch.bfloat16}, "not in torch.bfloat16"),
        ({"interpolation": "bilinear"}, "'bilinear' is not nearest, linear, cubic or fourier"),
        ({"channels": 0}, "0 channels"),
        ({"interpolation": "cubic", "backend": "numba"}, "not by cubic"),
    ],
)
def test_options_are_refused_before_anything_is_read_or_made(tmp_path, options, message):
    def read(_: torch.Tensor) -> torch.Tensor:
        raise AssertionError

    with pytest.raises((UsageError, ShapeError), match=message):
        inspect.unwrap(place_to_zarr)(tmp_path / "c.zarr", read, random_positions(5), (5, 7), **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [(6, 6), (3, 3), (4, 5)])
def test_tiles_of_another_size_are_refused(tmp_path, size):
    tiles = torch.ones(2, 1, *size)
    with pytest.raises(ShapeError, match=r"read gave .*; asked for 2 tiles of \(4, 4\) with 1 channels"):
        place_to_zarr(tmp_path / "c.zarr", tiles.__getitem__, torch.zeros(2, 2), (4, 4), dtype=torch.float32)
    assert list(tmp_path.iterdir()) == []


def test_a_stamp_cannot_say_what_is_not_so(tmp_path):
    tiles, positions = random_tiles(6, n=3), random_positions(6, n=3)
    placed(tmp_path / "same.zarr", tiles, positions, stamp=Stamp((("interpolation", "linear"), ("tiles", 3))))
    wrong = Stamp((("interpolation", "cubic"), ("scan", "a"), ("tiles", 999)))
    with pytest.raises(StampError, match=r"interpolation: 'linear' here, 'cubic' given; tiles: 3 here, 999 given"):
        placed(tmp_path / "c.zarr", tiles, positions, stamp=wrong)
    assert not (tmp_path / "c.zarr").exists()


@pytest.mark.parametrize("window", [None, torch.ones(16, 16)])
@pytest.mark.parametrize("interpolation", ["nearest", "linear", "cubic", "fourier"])
def test_the_memory_is_kept(tmp_path, interpolation, window):
    """Three quarters are the canvas's; zarr copies values on their way out, so torch must hold less than that."""
    side, memory = 1500, 16 << 20
    positions = torch.rand(60, 2, dtype=torch.float64, generator=generator(8)) * (side - 17)
    read = random_tiles(8, n=60, channels=1, size=(16, 16), dtype=torch.complex64).__getitem__
    for name in ("warm", "measured"):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            place_to_zarr(
                tmp_path / name, read, positions, (16, 16), interpolation=interpolation, window=window, memory=memory
            )
    profile.export_chrome_trace(str(tmp_path / "trace.json"))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    held = [event["args"]["Total Allocated"] for event in events if event.get("name") == "[memory]"]
    assert len(held) > 10
    assert 0.3 * memory < max(held) - held[0] < 0.6 * memory


def test_the_stamp_is_what_changes_the_numbers(tmp_path):
    tiles, positions = random_tiles(6), random_positions(6)
    given = Stamp((("scan_sha256", "abc"),))
    plan, *_ = placed(tmp_path / "a.zarr", tiles, positions, stamp=given)
    group, found_plan, stamp = open_zarr(tmp_path / "a.zarr")
    assert found_plan == plan
    assert group["value"].shape == (2, *plan.size)
    assert dict(stamp.facts)["scan_sha256"] == "abc"
    assert dict(stamp.facts)["canvas_origin"] == plan.origin
    assert open_zarr(tmp_path / "a.zarr", expect=stamp)[2] == stamp

    changed = {
        "interpolation": {"interpolation": "nearest", "plan": plan},
        "fill": {"fill": 1.0},
        "tile_window_sha256": {"window": hann((5, 7))},
        "tile_weights_sha256": {"weights": torch.ones(5)},
        "scan_sha256": {"stamp": Stamp((("scan_sha256", "abd"),))},
    }
    for fact, options in changed.items():
        placed(tmp_path / f"{fact}.zarr", tiles, positions, **{"stamp": given, **options})
        with pytest.raises(StampError, match=rf"\({fact}: [^;]*\)"):
            open_zarr(tmp_path / f"{fact}.zarr", expect=stamp)
    placed(tmp_path / "memory.zarr", tiles, positions, stamp=given, memory=10_000, backend="torch")
    assert open_zarr(tmp_path / "memory.zarr", expect=stamp)


def test_other_groups_are_refused(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        open_zarr(tmp_path / "c.zarr")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="no zarr group"):
        open_zarr(tmp_path / "empty")
    placed(tmp_path / "c.zarr", random_tiles(7), random_positions(7))
    group = zarr.open_group(tmp_path / "c.zarr")
    group.attrs["version"] = 2
    with pytest.raises(FormatError, match=r"patchatlas\.canvas version 2; this program reads"):
        open_zarr(tmp_path / "c.zarr")
    group.attrs["version"] = 1
    group.attrs["stamp"] = {**group.attrs["stamp"], "digest": "0"}
    with pytest.raises(FormatError, match="changed by hand"):
        open_zarr(tmp_path / "c.zarr")


LARGE = """
import resource, sys, torch
from patchatlas.canvas.outofcore import place_to_zarr
torch.set_num_threads(1)
side, n = 20_000, 4_000
positions = torch.rand(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * (side - 257)
positions[0], positions[1] = 0, side - 257 + 0.5
ramp = torch.linspace(1, 2, 256 * 256).reshape(1, 256, 256).to(torch.complex64)
read = lambda rows: ramp * rows.reshape(-1, 1, 1, 1)
plan = place_to_zarr(sys.argv[1], read, positions, (256, 256))
assert plan.size == (20_000, 20_000), plan
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_a_canvas_of_20000_squared_stays_below_a_gigabyte(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LARGE, str(tmp_path / "c.zarr")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    peak_kib = int(done.stdout)  # Linux counts in KiB
    assert peak_kib < 1_000_000_000 / 1024
