"""Tiles read in portions: the same canvas as all at once, each tile read once, and never more than was allowed."""

import h5py
import numpy as np
import pytest
import torch
import zarr

from patchatlas.canvas.place import place
from patchatlas.canvas.plan import CanvasPlan
from patchatlas.canvas.stream import place_stream, reader
from patchatlas.canvas.windows import hann
from patchatlas.errors import InputError, ShapeError
from tests.canvas.scans import generator, random_positions, random_tiles


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
@pytest.mark.parametrize("memory", [1, 3 * 2 * 5 * 7 * 16, 1 << 20])
def test_portions_give_what_one_call_gives(interpolation, memory):
    tiles, positions = random_tiles(1, n=8), random_positions(1, n=8)
    weights = torch.rand(8, generator=generator(1)) + 0.1
    options = {"interpolation": interpolation, "window": hann((5, 7)), "weights": weights, "fill": 2 - 3j}
    asked, told = [], []

    def read(rows: torch.Tensor) -> torch.Tensor:
        asked.append(rows.tolist())
        return tiles[rows]

    whole = place(tiles, positions, **options)
    canvas = place_stream(
        read,
        positions,
        (5, 7),
        channels=2,
        dtype=torch.complex128,
        memory=memory,
        progress=lambda *state: told.append(state),
        **options,
    )
    torch.testing.assert_close(canvas.value(), whole.value())
    torch.testing.assert_close(canvas.coverage, whole.coverage)
    assert [row for rows in asked for row in rows] == list(range(8))
    assert {len(rows) for rows in asked[:-1]} <= {1 if memory == 1 else 3}
    assert told[-1] == (8, 8)
    assert len(told) == len(asked)


def test_refusals_come_before_anything_is_read():
    def read(_: torch.Tensor) -> torch.Tensor:
        raise AssertionError

    positions = random_positions(2)
    with pytest.raises(ShapeError, match="reach outside"):
        place_stream(read, positions, (5, 7), plan=CanvasPlan((0, 0), (4, 4)))
    with pytest.raises(ShapeError, match="weights"):
        place_stream(read, positions, (5, 7), weights=torch.ones(2))
    with pytest.raises(InputError, match="not finite"):
        place_stream(read, positions / 0, (5, 7))


@pytest.mark.parametrize("size", [(6, 6), (3, 3), (4, 5)])
def test_tiles_of_another_size_are_refused(size):
    tiles, positions = torch.ones(2, 1, *size), torch.zeros(2, 2)
    with pytest.raises(ShapeError, match=r"read gave .*; asked for 2 tiles of \(4, 4\) with 1 channels"):
        place_stream(tiles.__getitem__, positions, (4, 4), dtype=torch.float32, crop=True)
    with pytest.raises(ShapeError, match=r"read gave \(1, 1, 4, 4\); asked for 2"):
        place_stream(lambda _: torch.ones(1, 1, 4, 4), positions, (4, 4), dtype=torch.float32)


class Noted:
    """Rows of an array, with a note of each slice."""

    def __init__(self, array):
        self.array, self.shape, self.slices = array, array.shape, []

    def __getitem__(self, rows):
        self.slices.append((rows.start, rows.stop))
        return self.array[rows]


def test_runs_of_rows_are_read_in_one_slice():
    stored = Noted(np.arange(60.0).reshape(10, 2, 3))
    tiles = reader(stored)(torch.tensor([0, 1, 2, 5, 8, 9]))
    assert stored.slices == [(0, 3), (5, 6), (8, 10)]
    assert torch.equal(tiles, torch.from_numpy(stored.array[[0, 1, 2, 5, 8, 9]])[:, None])


@pytest.mark.parametrize("kind", ["npy", "hdf5", "zarr", "big-endian"])
def test_tiles_of_files(tmp_path, kind):
    tiles = random_tiles(3, dtype=torch.complex64)
    array = tiles.numpy()
    rows = torch.tensor([0, 2, 3])
    if kind == "npy":
        np.save(tmp_path / "t.npy", array)
        stored = np.load(tmp_path / "t.npy", mmap_mode="r")
    elif kind == "zarr":
        stored = zarr.create_array(tmp_path / "t.zarr", data=array)
    elif kind == "big-endian":
        stored = array.astype(">c8")
    else:
        with h5py.File(tmp_path / "t.h5", "w") as file:
            file["tiles"] = array
        with h5py.File(tmp_path / "t.h5") as file:
            assert torch.equal(reader(file["tiles"])(rows), tiles[rows])
        return
    read = reader(stored)(rows)
    assert torch.equal(read, tiles[rows])
    read[0] = 0  # a copy of its own, whatever the file allows
    with pytest.raises(ShapeError, match=r"\(n, c, \*tile\)"):
        reader(stored, ndim=1)
