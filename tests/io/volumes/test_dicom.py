"""DICOM series: sorted by place, checked for gaps and strangers, decoded alike by both libraries."""

import os
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import RLELossless

from patchatlas.io.volumes.dicom import read_series
from patchatlas.io.volumes.reasons import VolumeError
from patchatlas.io.volumes.sources import find_volumes, read_volume
from patchatlas.io.volumes.volume import Declared
from tests.io.volumes.volume_files import SPACING_ZYX, example, write_series, write_slice


def reason_of(path: Path, declared: Declared | None = None) -> str:
    with pytest.raises(VolumeError) as raised:
        read_volume(path, declared)
    return raised.value.reason


@pytest.mark.parametrize("decoder", ["simpleitk", "pydicom"])
@pytest.mark.parametrize(("slope", "intercept"), [(1.0, -1024.0), (2.0, -1000.0), (0.5, -1024.0)])
def test_a_series_in_any_order_of_files(tmp_path, decoder, slope, intercept):
    paths = write_series(tmp_path, slope=slope, intercept=intercept)
    volume = read_series(sorted(paths), Declared(), decoder=decoder)
    np.testing.assert_array_equal(volume.values, example())
    assert volume.spacing_zyx == SPACING_ZYX
    # The first voxel of the file is that of the last column and row here: LPS (-10, -20, 30) is RAS (10, 20, 30).
    np.testing.assert_allclose(volume.affine @ (6.5, 5.5, 0.5, 1), (10, 20, 30, 1))


@pytest.mark.parametrize("decoder", ["simpleitk", "pydicom"])
@pytest.mark.parametrize("unsigned", [False, True])
def test_compressed_and_unsigned_pixels(tmp_path, decoder, unsigned):
    paths = write_series(tmp_path, PixelRepresentation=int(not unsigned))
    for path in paths:
        picture = pydicom.dcmread(path)
        picture.compress(RLELossless)
        picture.save_as(path)
    np.testing.assert_array_equal(read_series(paths, Declared(), decoder=decoder).values, example())


def test_damaged_compressed_pixels_are_told(tmp_path):
    paths = write_series(tmp_path)
    picture = pydicom.dcmread(paths[2])
    picture.compress(RLELossless)
    picture.save_as(paths[2])
    paths[2].write_bytes(paths[2].read_bytes()[:-60])
    assert reason_of(tmp_path) == "damaged"


def test_names_of_people_are_not_kept(tmp_path):
    write_series(tmp_path)
    assert "Real" not in str(read_volume(tmp_path).facts)


def test_a_sagittal_series(tmp_path):
    values = example()
    for x in range(values.shape[2]):  # rows grow to Inferior, columns to Posterior, slices to Right
        write_slice(
            tmp_path / f"{x}.dcm",
            values[::-1, ::-1, x],
            series="9",
            position=(-float(x), 0.0, 0.0),
            spacing_hw=(SPACING_ZYX[0], SPACING_ZYX[1]),
            orientation=(0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
        )
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.values, values)
    assert volume.spacing_zyx == SPACING_ZYX


def test_missing_slices_are_counted(tmp_path):
    paths = write_series(tmp_path)
    paths[2].unlink()
    with pytest.raises(VolumeError, match=r"1 slices are missing.* 3 mm apart .*after 33\.00 mm") as raised:
        read_volume(tmp_path)
    assert raised.value.reason == "missing_slices"


def test_uneven_slices(tmp_path):
    values = example()
    for z, at in enumerate((0.0, 3.0, 6.0, 7.5, 10.5)):
        write_slice(tmp_path / f"{z}.dcm", values[z], series="1", position=(0.0, 0.0, at))
    assert reason_of(tmp_path) == "uneven_slices"


def test_positions_that_are_rounded_are_even(tmp_path):
    values = example()
    for z, at in enumerate((0.0, 0.63, 1.25, 1.88, 2.5)):
        write_slice(tmp_path / f"{z}.dcm", values[z], series="1", position=(0.0, 0.0, at))
    assert read_volume(tmp_path).spacing_zyx[0] == pytest.approx(0.625)


def test_two_pictures_at_one_place(tmp_path):
    write_series(tmp_path)
    write_slice(tmp_path / "again.dcm", example()[0], series="1.2.3", position=(-10.0, -20.0, 30.0), number=99)
    assert reason_of(tmp_path) == "mixed_series"


def aside(folder: Path, shifts: list[float]) -> Path:
    """A series whose slices are moved along their rows, by mm; pixels are 1 mm there."""
    values = np.concatenate([example(), example() + 6])[: len(shifts)]
    for z, shift in enumerate(shifts):
        write_slice(folder / f"{z}.dcm", values[z], series="1", position=(shift, 0.0, 3.0 * z))
    return folder


@pytest.mark.parametrize(
    "shifts", [[0, 0, 40, 0, 0, 0], [0, 0, 0, 5, 5, 5], [0, 0, 0, 0, 0, 5], [0, 0, -0.6, 0, 0]], ids=str
)
def test_slices_aside_of_the_others(tmp_path, shifts):
    with pytest.raises(VolumeError, match=r"not stacked in one line: number [0-9] of") as raised:
        read_volume(aside(tmp_path, shifts))
    assert raised.value.reason == "uneven_slices"


def test_slices_hardly_aside_are_rounded_ones(tmp_path):
    assert read_volume(aside(tmp_path, [0, 0.3, 0, 0.3, 0])).values.shape == (5, 6, 7)


def test_distances_that_drift(tmp_path):
    at = np.cumsum([0.0] + [3.0] * 60 + [3.14] * 60)  # no two differ by 5 %, the middle one lies 60 x 0.07 mm off
    for z, where in enumerate(at):
        write_slice(tmp_path / f"{z:03d}.dcm", example()[z % 5], series="1", position=(0.0, 0.0, where))
    with pytest.raises(VolumeError, match=r"drifts: number 61 of 121 lies 4\.2 mm off"):
        read_volume(tmp_path)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"ImageOrientationPatient": ["2", "0", "0", "0", "2", "0"]}, "no_orientation"),
        ({"ImageOrientationPatient": ["0"] * 6}, "no_orientation"),
        ({"ImageOrientationPatient": ["1", "0", "0", "1", "0", "0"]}, "no_orientation"),
        ({"PixelSpacing": ["-2", "1"]}, "no_spacing"),
        ({"PixelSpacing": ["0", "1"]}, "no_spacing"),
        ({"RescaleType": "US"}, "wrong_units"),
    ],
    ids=str,
)
def test_places_and_sizes_that_are_none(tmp_path, tags, reason):
    write_series(tmp_path, **tags)
    assert reason_of(tmp_path) == reason


def test_names_that_are_not_utf8(tmp_path):
    """SimpleITK ends the process that gives it such a name."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller"))
    paths = write_series(folder)
    volume = read_volume(folder)
    assert volume.facts["decoder"] == "pydicom"
    np.testing.assert_array_equal(volume.values, example())
    with pytest.raises(VolumeError, match="rename"):
        read_series(paths, Declared(), decoder="simpleitk")


def test_every_picture_is_of_ct(tmp_path):
    paths = write_series(tmp_path)
    picture = pydicom.dcmread(sorted(paths)[-1])
    picture.Modality = "MR"
    picture.save_as(sorted(paths)[-1])
    assert reason_of(tmp_path) == "not_ct"


def test_a_series_without_identifier_has_a_name(tmp_path):
    write_series(tmp_path, SeriesInstanceUID=None)
    (source,) = find_volumes(tmp_path).sources
    assert source.name == "series without UID"


def test_dicom_without_its_header_is_said_to_be_so(tmp_path):
    path = write_series(tmp_path)[0]
    bare = tmp_path / "bare" / "a.dcm"
    bare.parent.mkdir()
    bare.write_bytes(path.read_bytes()[132:])
    (fault,) = find_volumes(bare.parent).faults
    assert fault.reason == "unsupported"
    assert "no DICOM part 10 header" in fault.message
    assert "copy it again" not in fault.message


@pytest.mark.parametrize(
    "other",
    [
        {"hu": example()[0, :-1]},
        {"hu": example()[0], "spacing_hw": (2.0, 1.5)},
        {"hu": example()[0], "orientation": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)},
    ],
    ids=["size", "spacing", "direction"],
)
def test_pictures_that_do_not_fit(tmp_path, other):
    write_series(tmp_path)
    hu = other.pop("hu")
    write_slice(tmp_path / "other.dcm", hu, series="1.2.3", position=(-10.0, -20.0, 45.0), **other)
    assert reason_of(tmp_path) == "mixed_series"


def test_two_series_in_a_folder_are_two_volumes(tmp_path):
    write_series(tmp_path / "a", series="1.2.3")
    write_series(tmp_path / "a", example() - 6, series="1.2.4", names="b{:03d}.dcm")
    found = find_volumes(tmp_path)
    assert [source.name for source in found.sources] == ["a/1.2.3", "a/1.2.4"]
    assert reason_of(tmp_path) == "mixed_series"


def test_a_tilted_gantry(tmp_path):
    values = example()
    for z in range(len(values)):
        write_slice(tmp_path / f"{z}.dcm", values[z], series="1", position=(0.0, 1.5 * z, 3.0 * z))
    assert reason_of(tmp_path) == "sheared"


def test_other_modalities_and_localizers(tmp_path):
    write_series(tmp_path / "mr", Modality="MR")
    assert reason_of(tmp_path / "mr") == "not_ct"
    np.testing.assert_array_equal(read_volume(tmp_path / "mr", Declared(units="any")).values, example())
    write_series(tmp_path / "scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    assert reason_of(tmp_path / "scout") == "not_ct"


def test_what_a_header_must_say(tmp_path):
    write_series(tmp_path / "a", ImagePositionPatient=None)
    assert reason_of(tmp_path / "a") == "no_orientation"
    write_series(tmp_path / "b", PixelSpacing=None)
    assert reason_of(tmp_path / "b") == "no_spacing"
    write_series(tmp_path / "c", NumberOfFrames="2")
    assert reason_of(tmp_path / "c") == "unsupported"
    write_series(tmp_path / "d", example()[:1])
    assert reason_of(tmp_path / "d") == "too_small"


def test_without_the_intercept_the_units_are_wrong(tmp_path):
    write_series(tmp_path, RescaleIntercept="0")
    assert reason_of(tmp_path) == "wrong_units"


def test_broken_files_are_named(tmp_path):
    paths = write_series(tmp_path / "cut")
    paths[1].write_bytes(paths[1].read_bytes()[:-60])
    found = find_volumes(tmp_path / "cut")
    (fault,) = found.faults
    assert (fault.source, fault.reason) == (paths[1].name, "truncated")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.dcm").write_text("no DICOM at all")
    (tmp_path / "text" / "b.dcm").touch()
    assert [fault.reason for fault in find_volumes(tmp_path / "text").faults] == ["damaged", "empty"]


def test_dicom_is_known_by_its_content(tmp_path):
    write_series(tmp_path, names="IM{:03d}")
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "notes.txt").write_text("hello")
    found = find_volumes(tmp_path)
    assert len(found.sources) == 1
    assert found.ignored == {".txt": 1, "no suffix": 1}


def test_links_are_followed_and_those_to_nothing_told(tmp_path):
    write_series(tmp_path / "elsewhere" / "a")
    top = tmp_path / "top"
    top.mkdir()
    (top / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "elsewhere")
    (top / "gone.dcm").symlink_to(tmp_path / "nothing")
    (top / ".hidden.dcm").touch()
    found = find_volumes(top)
    assert [source.name for source in found.sources] == ["linked/a"]
    assert [(fault.source, fault.reason) for fault in found.faults] == [("gone.dcm", "missing")]


def test_a_real_single_slice_is_too_small(tmp_path):
    shutil.copy(get_testdata_file("CT_small.dcm"), tmp_path)
    assert reason_of(tmp_path) == "too_small"
