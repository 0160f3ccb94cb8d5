"""Tiles from files of their own: kinds of files, what stays on disk, and where their channels are."""

import hashlib

import h5py
import numpy as np
import pytest
import torch

from patchatlas.errors import FormatError, UsageError
from patchatlas.io.scans.tiles import read_tiles

X = np.arange(3.0)


class TestFiles:
    tiles = (np.arange(48) + 1j).reshape(3, 4, 4)

    def test_kinds_of_files(self, tmp_path):
        np.save(tmp_path / "a.npy", self.tiles)
        np.savez(tmp_path / "a.npz", tiles=self.tiles[..., None], note=np.arange(3))
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["deep/tiles"] = self.tiles[:, None]
            file["deep/more"] = X
        for name in ("a.npy", "a.npz", "a.h5"):
            read, digest = read_tiles(tmp_path / name)
            np.testing.assert_array_equal(read, self.tiles[:, None])
            assert digest == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()

    def test_numbers_in_one_piece_stay_in_the_file(self, tmp_path):
        tiles = np.arange(3 * 4 * 5, dtype=np.complex64).reshape(3, 4, 5)
        np.save(tmp_path / "a.npy", tiles)
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["tiles"] = tiles
        with h5py.File(tmp_path / "packed.h5", "w") as file:
            file.create_dataset("tiles", data=tiles, compression="gzip")
        with h5py.File(tmp_path / "turned.h5", "w") as file:
            file["tiles"] = tiles.real.astype(">f4")
        with h5py.File(tmp_path / "headed.h5", "w", userblock_size=512) as file:
            file["tiles"] = tiles
        for name, mapped in (("a.npy", True), ("a.h5", True), ("packed.h5", False), ("turned.h5", False)):
            found, _ = read_tiles(tmp_path / name)
            assert isinstance(found.base, np.memmap) == mapped
            np.testing.assert_array_equal(found[:, 0], tiles)
        np.testing.assert_array_equal(read_tiles(tmp_path / "headed.h5")[0][:, 0], tiles)
        found, _ = read_tiles(tmp_path / "a.npy")
        found[:] = 0  # in memory only
        np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), tiles)

    def test_a_cut_npy_is_refused(self, tmp_path):
        np.save(tmp_path / "a.npy", np.ones((3, 4, 5)))
        (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-8])
        with pytest.raises(FormatError, match="cut short"):
            read_tiles(tmp_path / "a.npy")

    def test_several_that_could_be_meant(self, tmp_path):
        np.savez(tmp_path / "a.npz", one=self.tiles, two=2 * self.tiles)
        with pytest.raises(UsageError, match=r"--tiles-key: one \(3, 4, 4\), two \(3, 4, 4\)"):
            read_tiles(tmp_path / "a.npz")
        np.testing.assert_array_equal(read_tiles(tmp_path / "a.npz", key="two")[0], 2 * self.tiles[:, None])
        with pytest.raises(UsageError, match="no array 'three'"):
            read_tiles(tmp_path / "a.npz", key="three")

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.zeros((0, 4, 4)), "there are no tiles"),
            (np.zeros((4, 4)), "tiles must be numbers"),
            (np.full((2, 4, 4), "a"), "tiles must be numbers"),
            (np.array([[[np.nan]], [[0.0]]]), "1 of 2 tiles hold NaN or infinity, first tile 0"),
        ],
    )
    def test_bad(self, tmp_path, array, message):
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(FormatError, match=message):
            read_tiles(tmp_path / "a.npy")

    def test_durations_are_no_numbers(self, tmp_path):
        np.save(tmp_path / "a.npy", np.zeros((2, 4, 4), dtype="m8[s]"))
        with pytest.raises(FormatError, match="tiles must be numbers"):
            read_tiles(tmp_path / "a.npy")


class TestChannels:
    def read(self, tmp_path, shape, **options):
        np.save(tmp_path / "a.npy", np.arange(np.prod(shape), dtype=np.float32).reshape(shape))
        return read_tiles(tmp_path / "a.npy", **options)[0]

    @pytest.mark.parametrize(
        ("shape", "frame_hw"),
        [
            ((3, 32, 32, 2), None),
            ((3, 32, 32, 2), (32, 32)),
            ((3, 16, 32, 3), (16, 32)),
            ((3, 32, 48, 8), None),
            ((3, 32, 32, 32), (32, 32)),  # either
            ((3, 16, 16, 32), (16, 16)),
        ],
    )
    def test_channels_that_seem_to_be_last_are_asked_for(self, tmp_path, shape, frame_hw):
        with pytest.raises(UsageError, match=r"pass --channels-axis first\|last"):
            self.read(tmp_path, shape, frame_hw=frame_hw)

    @pytest.mark.parametrize(
        ("shape", "frame_hw", "axis", "want"),
        [
            ((3, 32, 32, 2), (32, 32), "last", (3, 2, 32, 32)),
            ((3, 16, 16, 32), (16, 16), "last", (3, 32, 16, 16)),
            ((3, 32, 32, 2), None, "first", (3, 32, 32, 2)),
            ((3, 2, 32, 32), (32, 32), None, (3, 2, 32, 32)),
            ((3, 384, 14, 14), None, None, (3, 384, 14, 14)),
            ((3, 2, 32, 20), None, None, (3, 2, 32, 20)),
            ((3, 32, 32), (32, 32), None, (3, 1, 32, 32)),
            ((3, 32, 32, 1), (32, 32), None, (3, 1, 32, 32)),
            ((3, 1, 32, 1), None, "first", (3, 1, 32, 1)),
        ],
    )
    def test_channels_that_are_said_or_plain(self, tmp_path, shape, frame_hw, axis, want):
        found = self.read(tmp_path, shape, frame_hw=frame_hw, channels_axis=axis)
        raw = np.arange(np.prod(shape)).reshape(shape)
        raw = raw[:, None] if len(shape) == 3 else raw
        moved = len(shape) == 4 and (axis == "last" or (axis is None and shape[-1] == 1))
        np.testing.assert_array_equal(found, np.moveaxis(raw, -1, 1) if moved else raw)
        assert found.shape == want

    @pytest.mark.parametrize("shape", [(3, 64, 64), (3, 1, 64, 64), (3, 16, 32)])
    def test_tiles_of_another_size_than_the_frames_are_refused_unless_allowed(self, tmp_path, shape):
        with pytest.raises(FormatError, match=r"the scan's frames are 32 x 32; .*--any-size"):
            self.read(tmp_path, shape, frame_hw=(32, 32))
        assert self.read(tmp_path, shape, frame_hw=(32, 32), any_size=True).shape[-2:] == shape[-2:]


NATIVE = np.arange(48, dtype=np.float64).reshape(3, 4, 4)


class TestTypes:
    @pytest.mark.parametrize("kind", [">f4", ">f8", ">c8", ">c16", ">i2", ">u2", ">u8", "g", "G"])
    def test_other_byte_orders_and_long_doubles_become_what_torch_takes(self, tmp_path, kind):
        made = NATIVE.astype(kind)
        np.save(tmp_path / "a.npy", made)
        np.savez(tmp_path / "a.npz", tiles=made)
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["tiles"] = made
        for name in ("a.npy", "a.npz", "a.h5"):
            found, _ = read_tiles(tmp_path / name)
            np.testing.assert_array_equal(torch.from_numpy(found)[:, 0].to(torch.complex128).real.numpy(), NATIVE)
            assert found.dtype.kind == made.dtype.kind
