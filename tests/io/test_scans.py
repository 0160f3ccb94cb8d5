"""Scan files of each kind: numbers and facts as they are meant, and what is open or damaged is said."""

import hashlib
import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from patchatlas.errors import FormatError, InputError, MissingExtraError, UsageError
from patchatlas.io.scans import hdf5
from patchatlas.io.scans.read import read_scan
from patchatlas.io.scans.scan import Declared
from patchatlas.stitch.positions import corners

REAL = Path(__file__).parents[1] / "data" / "ptycho"
EXPECTED = json.loads((REAL / "expected.json").read_text(encoding="utf-8"))

X, Y = np.array([10.0, 30.5, 20.25]), np.array([100.0, 105.0, 120.75])


def facts(scan):
    return scan.unit, scan.order, scan.sign, scan.anchor


def ptychopinn(path, *, key="diffraction", frames=(3, 8, 8), **more):
    arrays = {"xcoords": X, "ycoords": Y, key: np.arange(np.prod(frames), dtype=np.float32).reshape(frames)}
    arrays.update(probeGuess=np.ones((8, 8), np.complex64), objectGuess=np.ones((200, 90), np.complex64), **more)
    np.savez(path, **arrays)
    return path


class TestPtychoPinn:
    @pytest.mark.parametrize("key", ["diffraction", "diff3d"])
    def test_both_generations(self, tmp_path, key):
        path = ptychopinn(tmp_path / "a.npz", key=key)
        scan = read_scan(path, frames=True)
        np.testing.assert_array_equal(scan.positions, np.stack([X, Y], axis=1))
        assert facts(scan) == ("px", "xy", "plus", "centre")
        assert scan.frame_hw == (8, 8)
        assert scan.diffraction.shape == (3, 8, 8)
        assert scan.diffraction[1, 0, 0] == 64
        assert (scan.probe.shape, scan.object.shape, scan.tiles) == ((1, 8, 8), (200, 90), None)
        assert scan.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert scan.sources["anchor"] == "the rule of PtychoPINN NPZ"

    def test_frames_are_loaded_only_when_asked_for(self, tmp_path):
        scan = read_scan(ptychopinn(tmp_path / "a.npz"))
        assert (scan.diffraction, scan.frame_hw) == (None, (8, 8))

    def test_frames_counted_last(self, tmp_path):
        scan = read_scan(ptychopinn(tmp_path / "a.npz", key="diff3d", frames=(8, 6, 3)), frames=True)
        assert scan.frame_hw == (8, 6)
        assert scan.diffraction.shape == (3, 8, 6)
        np.testing.assert_array_equal(scan.diffraction[1].reshape(-1), np.arange(48) * 3 + 1)
        assert scan.notes == ("diff3d counts its frames along the last axis",)

    def test_frames_that_could_be_counted_either_way(self, tmp_path):
        path = ptychopinn(tmp_path / "a.npz", key="diff3d", frames=(3, 3, 3))
        with pytest.raises(UsageError, match=r"pass --frames-axis first\|last"):
            read_scan(path)
        first = read_scan(path, Declared(frames_axis="first"), frames=True).diffraction
        last = read_scan(path, Declared(frames_axis="last"), frames=True).diffraction
        np.testing.assert_array_equal(first, np.moveaxis(last, 0, -1))
        ptychopinn(path, key="diffraction", frames=(3, 3, 3))  # the contract of this key: first
        np.testing.assert_array_equal(read_scan(path, frames=True).diffraction, first)

    @pytest.mark.parametrize("last", [(), (1,)])
    def test_patches(self, tmp_path, last):
        patches = (np.arange(3 * 64) + 1j).reshape(3, 8, 8, *last)
        np.testing.assert_array_equal(
            read_scan(ptychopinn(tmp_path / "a.npz", Y=patches)).tiles, patches.reshape(3, 8, 8)
        )

    def test_groups_of_patches_are_refused(self, tmp_path):
        path = ptychopinn(tmp_path / "a.npz", Y=np.ones((3, 8, 8, 4), np.complex64))
        with pytest.raises(FormatError, match=r"Y has the shape \(3, 8, 8, 4\)"):
            read_scan(path)

    def test_no_patches_but_none_pickled(self, tmp_path):
        """`np.savez(Y=None)`, as PtychoPINN does, writes a Python object."""
        scan = read_scan(ptychopinn(tmp_path / "a.npz", Y=np.array(None, dtype=object)))
        assert scan.tiles is None
        assert "never unpickled" in scan.notes[0]

    def test_coordinates_as_objects_are_refused(self, tmp_path):
        np.savez(tmp_path / "a.npz", xcoords=X.astype(object), ycoords=Y)
        with pytest.raises(FormatError, match=r"'xcoords' holds Python objects.*save it again as numbers"):
            read_scan(tmp_path / "a.npz")

    def test_metres_are_not_taken_for_pixels(self, tmp_path):
        path = tmp_path / "slac.npz"
        np.savez(path, xcoords=X * 1e-7, ycoords=Y * 1e-7)
        with pytest.raises(UsageError, match=r"does not say the unit.*--unit px\|m"):
            read_scan(path)
        scan = read_scan(path, Declared(unit="m", pixel_size=1e-7))
        np.testing.assert_allclose(corners(scan, (8, 8)).numpy(), np.stack([X, Y], axis=1) - 4, rtol=1e-12)

    def test_grouped_files_are_named(self, tmp_path):
        np.savez(tmp_path / "a.npz", coords_offsets=np.zeros((2, 1, 2, 1)), coords_relative=np.zeros((2, 1, 2, 4)))
        with pytest.raises(FormatError, match="grouped PtychoPINN file"):
            read_scan(tmp_path / "a.npz")


class TestTike:
    def test_made(self, tmp_path):
        scan = np.stack([Y, X], axis=1)[None]
        np.savez(tmp_path / "a.npz", scan=scan, data=np.zeros((1, 3, 4, 6)), probe=np.ones((1, 1, 2, 1, 4, 6)) * 1j)
        read = read_scan(tmp_path / "a.npz", frames=True)
        assert facts(read) == ("px", "yx", "plus", "corner")
        assert (read.frame_hw, read.diffraction.shape, read.probe.shape) == ((4, 6), (3, 4, 6), (2, 4, 6))
        np.testing.assert_array_equal(corners(read, (4, 6)).numpy(), np.stack([X, Y], axis=1))

    def test_several_views_are_refused(self, tmp_path):
        np.savez(tmp_path / "a.npz", scan=np.zeros((2, 3, 2)), data=np.zeros((2, 3, 4, 4)))
        with pytest.raises(FormatError, match="one view"):
            read_scan(tmp_path / "a.npz")

    def test_real(self):
        path = REAL / "siemens-star-small.npz.bz2"
        known = EXPECTED[path.name]
        scan = read_scan(path, frames=True)
        assert scan.sha256 == known["sha256"]
        assert (scan.format, facts(scan), len(scan)) == ("tike NPZ", ("px", "yx", "plus", "corner"), 516)
        np.testing.assert_array_equal(scan.positions[:3], known["scan_first3_row_col_px"])
        np.testing.assert_allclose(scan.positions.mean(axis=0), known["scan_mean"], rtol=1e-6)
        at = corners(scan, scan.frame_hw).numpy()
        np.testing.assert_array_equal(at.min(axis=0), known["scan_min"][::-1])
        np.testing.assert_array_equal(at.max(axis=0), known["scan_max"][::-1])
        assert scan.diffraction.shape == (516, 128, 128)
        assert float(scan.diffraction.sum(dtype=np.float64)) == known["data_sum"]
        assert (scan.probe.shape, scan.probe.dtype) == ((1, 128, 128), np.complex64)


MODES = np.arange(3 * 8 * 8).reshape(3, 8, 8) * (1 + 1j)


class TestProbes:
    """One rule for all formats: all modes are kept, and a note says that there are several."""

    def told(self, path, name, probe):
        if name == "ptychopinn":
            np.savez(path, xcoords=X, ycoords=Y, probeGuess=probe)
        elif name == "tike":
            np.savez(path, scan=np.stack([Y, X], axis=1), probe=probe)
        else:
            np.savez(path, probe_position_x_m=X, probe_position_y_m=Y, object_pixel_width_m=1.0, probe=probe)
        return read_scan(path, Declared(pixel_size=1.0))

    @pytest.mark.parametrize("lead", [(3,), (1, 3)])
    @pytest.mark.parametrize("name", ["ptychopinn", "tike", "ptychodus"])
    def test_all_modes_are_kept_and_noted(self, tmp_path, name, lead):
        scan = self.told(tmp_path / "a.npz", name, MODES.reshape(*lead, 8, 8))
        np.testing.assert_array_equal(scan.probe, MODES)
        assert "the probe has 3 modes; where it weighs tiles, their intensities are summed" in scan.notes

    @pytest.mark.parametrize("name", ["ptychopinn", "tike", "ptychodus"])
    def test_one_mode_needs_no_note(self, tmp_path, name):
        for probe in (MODES[0], MODES[:1]):
            scan = self.told(tmp_path / "a.npz", name, probe)
            np.testing.assert_array_equal(scan.probe, MODES[:1])
            assert scan.notes == ()

    @pytest.mark.parametrize("name", ["ptychopinn", "tike", "ptychodus"])
    @pytest.mark.parametrize("probe", [np.ones(8), np.array([["a", "b"]]), np.zeros((0, 8, 8))])
    def test_what_is_no_probe_is_noted(self, tmp_path, name, probe):
        scan = self.told(tmp_path / "a.npz", name, probe)
        assert scan.probe is None
        assert any("is no probe" in note for note in scan.notes)

    def test_pickled_probes_are_noted(self, tmp_path):
        scan = self.told(tmp_path / "a.npz", "ptychopinn", np.array(None, dtype=object))
        assert scan.probe is None
        assert "probeGuess holds Python objects, which are never unpickled" in scan.notes[0]

    def test_coherent_parts_of_a_ptychodus_probe_are_not_modes(self, tmp_path):
        scan = self.told(tmp_path / "a.npz", "ptychodus", np.stack([MODES, 7 * MODES]))
        np.testing.assert_array_equal(scan.probe, MODES)
        assert "the first of 2 coherent (OPR) parts of the probe is taken" in scan.notes


def product(path, *, layers=1):
    arrays = {"probe_position_indexes": [0, 1], "probe_position_x_m": [1e-6, 2e-6], "probe_position_y_m": [0.0, -3e-6]}
    image = np.full((layers, 20, 30), 2 + 0j)
    facts = {"center_x_m": 5e-7, "center_y_m": -1e-6, "pixel_width_m": 1e-7, "pixel_height_m": 2e-7}
    if path.suffix == ".npz":
        named = {f"object_{name}": value for name, value in facts.items()}
        np.savez(path, object=image, probe=np.ones((1, 2, 9, 8)) + 0j, **arrays, **named)
        return path
    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            file[name] = value
        file["probe"] = np.ones((1, 2, 9, 8)) + 0j
        file["object"] = image
        file["object"].attrs.update(facts)
    return path


class TestPtychodus:
    @pytest.mark.parametrize("suffix", ["npz", "h5"])
    def test_product(self, tmp_path, suffix):
        scan = read_scan(product(tmp_path / f"a.{suffix}", layers=2))
        assert facts(scan) == ("m", "xy", "plus", "middle")
        assert scan.pixel_size == (1e-7, 2e-7)
        assert (scan.probe.shape, scan.frame_hw) == ((2, 9, 8), (9, 8))
        np.testing.assert_array_equal(scan.object, np.full((20, 30), 4 + 0j))  # the layers' product
        # (1e-6 - 5e-7) / 1e-7 + 30 / 2 = 20, (0 + 1e-6) / 2e-7 + 20 / 2 = 15; then less half of 8 and of 9
        np.testing.assert_allclose(corners(scan, (9, 8)).numpy(), [[16, 10.5], [26, -4.5]])

    def test_pixels_of_no_size(self, tmp_path):
        path = product(tmp_path / "a.h5")
        with h5py.File(path, "r+") as file:
            file["object"].attrs["pixel_width_m"] = 0.0
        with pytest.raises(FormatError, match="no lengths"):
            read_scan(path)


def cxi(path, *, basis=((0, -1), (-1, 0), (0, 0)), translation=None):
    detector, source = "entry_1/instrument_1/detector_1", "entry_1/instrument_1/source_1"
    with h5py.File(path, "w") as file:
        at = np.array([[1e-6, 2e-6, 0], [3e-6, -1e-6, 0]]) if translation is None else translation
        file["entry_1/sample_1/geometry_1/translation"] = at
        file[f"{detector}/data"] = np.zeros((len(at), 50, 100), np.int32)
        file["entry_1/data_1/data"] = h5py.SoftLink(f"/{detector}/data")
        for name, value in (("distance", 2.0), ("x_pixel_size", 5e-5), ("y_pixel_size", 1e-4)):
            file[f"{detector}/{name}"] = value
        file[f"{source}/energy"] = 1.986445857e-15  # joule: a wavelength of 1e-10 m
        if basis is not None:
            file[f"{detector}/basis_vectors"] = np.array(basis) * 5e-5
    return path


class TestCxi:
    @pytest.mark.parametrize(
        ("down", "right", "sign"),
        [(-1, -1, "plus"), (1, 1, "minus"), (-1, 1, "minus-x"), (1, -1, "minus-y")],
    )
    def test_direction_follows_sample_and_detector(self, tmp_path, down, right, sign):
        scan = read_scan(cxi(tmp_path / "a.cxi", basis=((0, right), (down, 0), (0, 0))), Declared(pixel_size=1e-7))
        assert facts(scan) == ("m", "xy", sign, "corner")
        # The beam is at -t; a row goes along `down`, a column along `right`.
        t = np.array([[1e-6, 2e-6], [3e-6, -1e-6]])
        np.testing.assert_allclose(corners(scan, (50, 100)).numpy(), -t * [right, down] / 1e-7)

    def test_without_basis_vectors_the_direction_is_asked_for(self, tmp_path):
        path = cxi(tmp_path / "a.cxi", basis=None)
        with pytest.raises(UsageError, match=r"the sign of its positions.*--sign plus\|minus\|minus-x\|minus-y"):
            read_scan(path, Declared(pixel_size=1e-7))
        scan = read_scan(path, Declared(pixel_size=1e-7, sign="minus"))
        assert (scan.sign, scan.sources["sign"]) == ("minus", "the caller")

    def test_turned_detector_is_refused(self, tmp_path):
        with pytest.raises(FormatError, match="do not have rows along y"):
            read_scan(cxi(tmp_path / "a.cxi", basis=((1, 0), (0, 1), (0, 0))))

    def test_pixel_size_is_asked_for(self, tmp_path):
        path = cxi(tmp_path / "a.cxi")
        # 1e-10 m * 2 m / (100 * 5e-5 m) = 4e-8 m; down 50 * 1e-4 m is the same width
        with pytest.raises(UsageError, match=r"--pixel-size METRES, or --pixel-size far-field .* 4e-08 x 4e-08 m"):
            read_scan(path)
        np.testing.assert_allclose(read_scan(path, Declared(pixel_size="far-field")).pixel_size, (4e-8, 4e-8))

    def test_no_positions(self, tmp_path):
        path = cxi(tmp_path / "a.cxi")
        with h5py.File(path, "r+") as file:
            del file["entry_1/sample_1/geometry_1/translation"]
        with pytest.raises(FormatError, match="translation is in none of"):
            read_scan(path)

    def test_real(self):
        path = REAL / "PETRAIII_P25_Near_Field_Ptycho.cxi"
        known = EXPECTED[path.name]
        scan = read_scan(path, Declared(pixel_size=known["object_pixel_m"]), frames=True)
        assert (scan.sha256, len(scan), scan.sign) == (known["sha256"], 200, "plus")
        np.testing.assert_array_equal(scan.positions[:3], np.array(known["translation_first3_m"])[:, :2])
        at = corners(scan, scan.frame_hw).numpy()
        np.testing.assert_allclose(at[:3, ::-1], known["row_col_px_first3_as_cdtools_places_the_probe"], atol=1e-3)
        np.testing.assert_allclose(np.ptp(at, axis=0)[::-1], known["row_col_extent_px"], atol=1e-3)
        assert scan.frame_hw == (100, 100)
        assert int(scan.diffraction.sum(dtype=np.int64)) == known["data_sum"]

    def test_real_cut_short(self, tmp_path):
        whole = (REAL / "PETRAIII_P25_Near_Field_Ptycho.cxi").read_bytes()
        for part in (len(whole) // 2, 3000, 100):
            (tmp_path / "cut.cxi").write_bytes(whole[:part])
            with pytest.raises(FormatError, match="cut short"):
                read_scan(tmp_path / "cut.cxi")


def ptyd(path, *, meta, chunks=((0, 1), (10, 11), (2, 3))):
    with h5py.File(path, "w") as file:
        for name, value in meta.items():
            file[f"meta/{name}"] = value
        for number, rows in zip((0, 10, 2), chunks, strict=True):
            file[f"chunks/{number}/positions"] = np.array([[row * 1e-6, row * 1e-7] for row in rows])
            file[f"chunks/{number}/data"] = np.array(rows)[:, None, None] * np.ones((1, 20, 40), np.float32)
    return path


FAR = {"energy": 12.398419843, "distance": 2.0, "psize": 5e-5}  # keV: a wavelength of 1e-10 m


class TestPtyd:
    def test_chunks_in_the_order_of_their_numbers(self, tmp_path):
        scan = read_scan(ptyd(tmp_path / "a.ptyd", meta=FAR), Declared(pixel_size="far-field"), frames=True)
        assert facts(scan) == ("m", "yx", "plus", "centre")
        np.testing.assert_allclose(scan.positions[:, 0] * 1e6, [0, 1, 2, 3, 10, 11])
        np.testing.assert_array_equal(scan.diffraction[:, 0, 0], [0, 1, 2, 3, 10, 11])
        # 1e-10 * 2 / (40 * 5e-5) = 1e-7 across, 2e-7 down
        np.testing.assert_allclose(scan.pixel_size, (1e-7, 2e-7))
        np.testing.assert_allclose(corners(scan, (20, 40)).numpy()[1], (1e-7 / 1e-7 - 20, 1e-6 / 2e-7 - 10))

    @pytest.mark.parametrize(("propagation", "size"), [("farfield", (1e-7, 2e-7)), ("nearfield", (5e-5, 5e-5))])
    def test_propagation_settles_the_pixel_size(self, tmp_path, propagation, size):
        scan = read_scan(ptyd(tmp_path / "a.ptyd", meta={**FAR, "propagation": propagation}))
        np.testing.assert_allclose(scan.pixel_size, size)
        assert propagation in scan.sources["pixel_size"]

    def test_open_pixel_size(self, tmp_path):
        with pytest.raises(UsageError, match="--pixel-size"):
            read_scan(ptyd(tmp_path / "a.ptyd", meta=FAR))
        with pytest.raises(UsageError, match="cannot be worked out"):
            read_scan(ptyd(tmp_path / "a.ptyd", meta={}), Declared(pixel_size="far-field"))

    def test_link_that_leads_nowhere(self, tmp_path):
        path = ptyd(tmp_path / "a.ptyd", meta=FAR)
        with h5py.File(path, "r+") as file:
            del file["chunks/2/positions"]
            file["chunks/2/positions"] = h5py.ExternalLink("gone.ptyd", "/positions")
        with pytest.raises(FormatError, match="leads nowhere"):
            read_scan(path)


TABLE = Declared(unit="px", sign="plus", anchor="corner", columns=("sx", "sy"))


class TestTables:
    @pytest.mark.parametrize(
        "text",
        [
            "sy,sx,dose\n100,10,1\n105,30.5,1\n120.75,20.25,1\n",
            "# stage\nsy; sx; dose\n100; 10; 1\n105; 30.5; 1 # slow\n\n120.75; 20.25; 1\n",
            "sy sx dose\n100 10 1\n105 30.5 1\n120.75 20.25 1",
        ],
    )
    def test_text(self, tmp_path, text):
        (tmp_path / "a.csv").write_text(text)
        scan = read_scan(tmp_path / "a.csv", TABLE)
        np.testing.assert_array_equal(scan.positions, np.stack([X, Y], axis=1))
        assert (scan.order, scan.sources["order"]) == ("xy", "the caller: x is sx, y is sy")

    def test_numbered_columns_and_npy(self, tmp_path):
        (tmp_path / "a.txt").write_text("100 10\n105 30.5\n120.75 20.25\n")
        np.save(tmp_path / "a.npy", np.stack([Y, X], axis=1))
        declared = Declared(unit="px", sign="plus", anchor="corner", columns=("1", "0"))
        for name in ("a.txt", "a.npy"):
            np.testing.assert_array_equal(read_scan(tmp_path / name, declared).positions, np.stack([X, Y], axis=1))

    def test_npz_by_names(self, tmp_path):
        np.savez(tmp_path / "a.npz", sx=X, sy=Y)
        np.testing.assert_array_equal(read_scan(tmp_path / "a.npz", TABLE).positions, np.stack([X, Y], axis=1))

    def test_everything_is_asked_for(self, tmp_path):
        (tmp_path / "a.csv").write_text("sx,sy\n1,2\n")
        said = {}
        for fact, value in (("columns", ("sx", "sy")), ("unit", "px"), ("sign", "plus"), ("anchor", "corner")):
            with pytest.raises(UsageError, match=f"--{fact} "):
                read_scan(tmp_path / "a.csv", Declared(**said))
            said[fact] = value
        assert len(read_scan(tmp_path / "a.csv", Declared(**said))) == 1

    @pytest.mark.parametrize(
        ("text", "error", "message"),
        [
            ("sx,sy\n1,2\n3\n", FormatError, "line 3: 1 fields, where 2 are expected"),
            ("sx,sy\n1,2\n3,x\n", FormatError, "line 3: could not convert"),
            ("sx;sy\n1,5;2,5\n", FormatError, "line 2 has commas and semicolons; write decimals with a point"),
            ("sx,sy\n", FormatError, "no positions"),
            ("", FormatError, "is empty"),
            ("# nothing\n", FormatError, "no rows"),
            ("a,b\n1,2\n", UsageError, "no column 'sx'; it has a, b"),
            ("sx,sy\n1,nan\n2,3\n", FormatError, r"1 of 2 positions are NaN or infinite \(rows 0,"),
        ],
    )
    def test_bad(self, tmp_path, text, error, message):
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(error, match=message):
            read_scan(tmp_path / "a.csv", TABLE)

    def test_npy_of_another_kind(self, tmp_path):
        np.save(tmp_path / "a.npy", np.array([None, 1], dtype=object))
        with pytest.raises(FormatError, match="Python objects"):
            read_scan(tmp_path / "a.npy", TABLE)
        np.save(tmp_path / "a.npy", np.zeros((3, 2), complex))
        with pytest.raises(FormatError, match="positions are real numbers"):
            read_scan(tmp_path / "a.npy", TABLE)


class TestBadInput:
    def test_counts_that_differ(self, tmp_path):
        with pytest.raises(FormatError, match=r"3 positions for 5 frames; .* give 5 positions"):
            read_scan(ptychopinn(tmp_path / "a.npz", frames=(5, 8, 8)))
        with pytest.raises(FormatError, match="3 positions for 4 tiles"):
            read_scan(ptychopinn(tmp_path / "a.npz", Y=np.ones((4, 8, 8), np.complex64)))

    def test_one_position_for_many_tiles(self, tmp_path):
        np.savez(tmp_path / "a.npz", xcoords=X[:1], ycoords=Y[:1], diffraction=np.ones((64, 8, 8)))
        with pytest.raises(FormatError, match=r"1 positions for 64 frames; .* all on one spot"):
            read_scan(tmp_path / "a.npz")

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_positions_that_are_not_finite(self, tmp_path, bad):
        np.savez(tmp_path / "a.npz", xcoords=[1, bad, 2], ycoords=Y)
        with pytest.raises(FormatError, match=r"1 of 3 positions are NaN or infinite \(rows 1,"):
            read_scan(tmp_path / "a.npz")

    def test_empty_scan(self, tmp_path):
        np.savez(tmp_path / "a.npz", xcoords=X[:0], ycoords=Y[:0])
        with pytest.raises(FormatError, match="the scan is empty"):
            read_scan(tmp_path / "a.npz")

    @pytest.mark.parametrize(("bad", "kind"), [(np.array(["a", "b", "c"]), "<U1"), (X + 1j, "complex128")])
    def test_positions_that_are_no_real_numbers(self, tmp_path, bad, kind):
        np.savez(tmp_path / "p.npz", xcoords=bad, ycoords=Y)
        np.savez(tmp_path / "t.npz", scan=np.stack([bad, bad], axis=1), probe=np.ones((8, 8)))
        np.savez(tmp_path / "d.npz", probe_position_x_m=bad, probe_position_y_m=bad)
        for name in "ptd":
            with pytest.raises(FormatError, match=f"must be real numbers, and is {kind}"):
                read_scan(tmp_path / f"{name}.npz")
        with pytest.raises(FormatError, match="must be real numbers"):
            read_scan(tmp_path / "p.npz", Declared(columns=("xcoords", "ycoords")))

    def test_file_that_is_not_there(self, tmp_path):
        with pytest.raises(InputError, match="there is no file"):
            read_scan(tmp_path / "a.npz")

    def test_unknown_layouts_list_what_is_there(self, tmp_path):
        np.savez(tmp_path / "a.npz", px=X, py=Y)
        with pytest.raises(FormatError, match=r"it has px, py\. .*--columns"):
            read_scan(tmp_path / "a.npz")
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["ppX"] = X
        with pytest.raises(FormatError, match=r"it has ppX at its root"):
            read_scan(tmp_path / "a.h5")

    def test_words_that_are_none(self, tmp_path):
        path = ptychopinn(tmp_path / "a.npz")
        with pytest.raises(UsageError, match="--pixel-size -1"):
            read_scan(path, Declared(pixel_size=-1.0))

    def test_without_h5py(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "h5py", None)
        with pytest.raises(MissingExtraError, match=r"reading a.cxi needs h5py; .*patchatlas\[ptycho\]"):
            hdf5.h5py("reading a.cxi")
