"""Masks that are given: turned as their volumes are, counted to the voxel, and never left out without a word."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from patchatlas.errors import InputError, UsageError
from patchatlas.pretrain import entry
from patchatlas.pretrain.cache import open_cache
from patchatlas.pretrain.given_mask import MaskFunction
from patchatlas.pretrain.index import index_volumes
from patchatlas.pretrain.index_settings import Counting, Drawing, IndexSettings
from tests.io.volumes.volume_files import SIZE_ZYX, example, write_nifti, write_series, write_sidecar

CELLS = IndexSettings(counting=Counting(cell_zyx=(2, 3, 4), thresholds=(-500.0,)))


def corner() -> np.ndarray:
    """Of 5 x 6 x 7 voxels the two lowest slices, the three backmost rows and the leftmost column, and one far voxel."""
    mask = np.zeros(SIZE_ZYX, np.uint8)
    mask[:2, :3, 0] = 3  # any label above 0
    mask[4, 5, 6] = 1
    return mask


CORNER_CELLS = [[[6, 0], [0, 0]], [[0, 0], [0, 0]], [[0, 0], [0, 1]]]
"""Worked by hand for cells of 2 x 3 x 4."""


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """A volume a/one, and its mask."""
    for name in ("scans", "masks"):
        (tmp_path / name / "a").mkdir(parents=True)
    write_nifti(tmp_path / "scans" / "a" / "one.nii.gz")
    write_nifti(tmp_path / "masks" / "a" / "one.nii.gz", corner())
    return tmp_path / "scans", tmp_path / "masks"


def counted(cache: Path) -> list:
    opened = open_cache(cache)
    return opened.cells(opened.records[0], "body").counts.tolist()


def faults(report) -> dict[str, str]:
    return {fault.source: fault.reason for fault in report.skipped}


@pytest.mark.parametrize("turned", ["RAS", "LPS", "SAR", "PIR"])
def test_a_mask_is_turned_as_its_volume_is(folders, tmp_path, turned):
    """The volume lies in RAS and the mask with its axes flipped and swapped: by affine they are the same voxels."""
    scans, masks = folders
    write_nifti(masks / "a" / "one.nii.gz", corner(), turned=turned)
    report = index_volumes([scans], tmp_path / "cache", CELLS, mask=masks)
    assert not report.skipped
    assert counted(tmp_path / "cache") == CORNER_CELLS
    record = report.cache.records[0]
    assert record.foreground["body"] == 7 / 210
    assert record.foreground["hu>-500"] == (example() > -500).mean()
    assert report.cache.settings["counting"]["mask"] == "files"
    assert (
        json.loads((tmp_path / "cache" / "volumes" / record.id / "volume.json").read_text())["mask"]["source"]
        == "a/one.nii.gz"
    )


def test_formats_may_differ_and_a_series_has_a_mask_by_its_folder(folders, tmp_path):
    scans, masks = folders
    (masks / "a" / "one.nii.gz").unlink()
    np.save(masks / "a" / "one.npy", corner()[:, ::-1, ::-1])
    write_sidecar(masks / "a" / "one.npy", axes="SPL")
    write_series(scans / "1.2.series")
    # Rows and columns of DICOM run to Posterior and Left, from (10, 20) mm on: to 20 - 5 x 2 and 10 - 6 x 1.
    path = write_nifti(masks / "1.2.series.nii", corner())
    move(path, (0, 3), -6.0)
    move(path, (1, 3), -10.0)
    # Arrays lie at the origin of the world, NIfTI and DICOM where they say.
    report = index_volumes([scans], tmp_path / "cache", CELLS, mask=masks)
    assert faults(report) == {"a/one.nii.gz": "mask_differs"}
    assert counted(tmp_path / "cache") == CORNER_CELLS
    (scans / "a" / "one.nii.gz").unlink()
    np.save(scans / "a" / "one.npy", example())
    write_sidecar(scans / "a" / "one.npy")
    np.save(masks / "a" / "one.npy", corner())
    write_sidecar(masks / "a" / "one.npy")
    report = index_volumes([scans], tmp_path / "cache", CELLS, mask=masks)
    assert not report.skipped
    assert [record.foreground["body"] for record in report.cache.records] == [7 / 210] * 2


def test_what_is_wrong_with_a_mask_is_listed(folders, tmp_path):
    scans, masks = folders
    for name in ("none", "shape", "place", "spacing", "cut", "likely", "hu", "empty", "twice"):
        write_nifti(scans / f"{name}.nii")
    write_nifti(masks / "shape.nii", corner()[:, :, :6])
    move(write_nifti(masks / "place.nii", corner()), (0, 3), 0.2)
    move(write_nifti(masks / "spacing.nii", corner()), (2, 2), 0.2)
    whole = write_nifti(masks / "cut.nii", corner()).read_bytes()
    (masks / "cut.nii").write_bytes(whole[:-20])
    write_nifti(masks / "likely.nii", (corner() * 0.25).astype(np.float32))
    write_nifti(masks / "hu.nii", example())
    write_nifti(masks / "empty.nii", np.zeros(SIZE_ZYX, np.uint8))
    write_nifti(masks / "twice.nii", corner())
    write_nifti(masks / "twice.nii.gz", corner())
    write_nifti(masks / "stray.nii", corner())
    report = index_volumes([scans], tmp_path / "cache", CELLS, mask=masks)
    assert faults(report) == {
        "none.nii": "no_mask",
        "shape.nii": "mask_differs",
        "place.nii": "mask_differs",
        "spacing.nii": "mask_differs",
        "cut.nii": "truncated",
        "likely.nii": "not_a_mask",
        "hu.nii": "not_a_mask",
        "empty.nii": "no_foreground",
        "twice.nii": "no_mask",
    }
    said = {fault.source: fault.message for fault in report.skipped}
    assert "(5, 6, 6) voxels (z, y, x), the volume (5, 6, 7)" in said["shape.nii"]
    assert "lies elsewhere, up to 0.2 voxels" in said["place.nii"]
    assert "3.2 x 2 x 1 mm (z, y, x), those of the volume 3 x 2 x 1" in said["spacing.nii"]
    assert said["cut.nii"].startswith("its mask cut.nii: ")
    assert "twice.nii, twice.nii.gz" in said["twice.nii"]
    assert [record.source for record in report.cache.records] == ["a/one.nii.gz"]
    assert report.unused_masks == ("stray.nii",)
    assert "1 masks without a volume: stray.nii" in report.lines()
    assert report.to_json()["unused_masks"] == ["stray.nii"]


def move(path: Path, entry_of_affine: tuple[int, int], by: float) -> None:
    """Change one number of a NIfTI file's affine."""
    import nibabel

    image = nibabel.load(path)
    values, affine = np.asanyarray(image.dataobj).copy(), image.affine.copy()
    affine[entry_of_affine] += by
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


def test_a_mask_that_was_changed_is_counted_again_and_a_touched_one_is_not(folders, tmp_path, monkeypatch):
    scans, masks = folders
    cache = tmp_path / "cache"
    index_volumes([scans], cache, CELLS)
    body = counted(cache)
    assert index_volumes([scans], cache, CELLS, mask=masks).how == {"counted": 1}
    assert index_volumes([scans], cache, CELLS, mask=masks).how == {"kept": 1}
    moved = shutil.copytree(masks, tmp_path / "elsewhere")
    (moved / "a" / "one.nii.gz").touch()
    before = (cache / "index.json").read_bytes()
    assert index_volumes([scans], cache, CELLS, mask=moved).how == {"kept": 1}
    assert (cache / "index.json").read_bytes() == before
    monkeypatch.setattr(entry, "read_source", None)  # the volume may not be read
    write_nifti(masks / "a" / "one.nii.gz", 1 - corner().clip(max=1))
    report = index_volumes([scans], cache, CELLS, mask=masks)
    assert report.how == {"counted": 1}
    assert report.cache.records[0].foreground["body"] == 203 / 210
    assert index_volumes([scans], cache, CELLS).how == {"counted": 1}
    assert counted(cache) == body


def test_a_mask_is_resampled_with_its_volume(folders, tmp_path):
    scans, masks = folders
    mask = np.zeros(SIZE_ZYX, np.uint8)
    mask[:, :, :3] = 1
    write_nifti(masks / "a" / "one.nii.gz", mask)
    halved = IndexSettings(
        drawing=Drawing(spacing_zyx=(3.0, 2.0, 0.5)), counting=Counting(cell_zyx=(5, 6, 1), thresholds=())
    )
    report = index_volumes([scans], tmp_path / "cache", halved, mask=masks)
    assert report.cache.records[0].size_zyx == (5, 6, 14)
    assert np.ravel(counted(tmp_path / "cache")).tolist() == [30] * 6 + [0] * 8
    mask[:, :, 3] = 1
    write_nifti(masks / "a" / "one.nii.gz", mask)
    assert index_volumes([scans], tmp_path / "cache", halved, mask=masks).how == {"made": 1}
    assert np.ravel(counted(tmp_path / "cache")).tolist() == [30] * 8 + [0] * 6


def warm(values: np.ndarray, spacing_zyx: tuple[float, float, float]) -> np.ndarray:
    """Voxels above 0, where a voxel is 3 mm thick."""
    assert spacing_zyx == (3.0, 2.0, 1.0)
    assert not values.flags.writeable
    return values > 0


def test_a_function_gives_masks_and_its_name_is_kept(folders, tmp_path):
    scans, _ = folders
    write_nifti(scans / "two.nii")
    cache = tmp_path / "cache"
    report = index_volumes([scans], cache, CELLS, mask=MaskFunction("warm 1", warm), workers=2)
    assert [record.foreground["body"] for record in report.cache.records] == [(example() > 0).mean()] * 2
    assert open_cache(cache).settings["counting"]["mask"] == "function warm 1"
    assert index_volumes([scans], cache, CELLS, mask=MaskFunction("warm 1", warm)).how == {"kept": 2}
    report = index_volumes([scans], cache, CELLS, mask=MaskFunction("cold", lambda values, _: values < 0))
    assert report.how == {"counted": 2}
    assert report.cache.records[0].foreground["body"] == (example() < 0).mean()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda values, _: values, r"int16 \(5, 6, 7\)"),
        (lambda values, _: values[1:] > 0, r"bool \(4, 6, 7\)"),
        (lambda *_: None, "NoneType"),
    ],
)
def test_a_function_that_gives_no_mask_is_refused(folders, tmp_path, call, said):
    with pytest.raises(UsageError, match=said):
        index_volumes([folders[0]], tmp_path / "cache", CELLS, mask=MaskFunction("wrong", call))


def test_what_makes_no_sense_is_refused(folders, tmp_path):
    scans, masks = folders
    cache = tmp_path / "cache"
    with pytest.raises(UsageError, match="cannot be sent to other processes"):
        index_volumes([scans], cache, mask=MaskFunction("here", lambda values, _: values > 0), workers=2)
    with pytest.raises(UsageError, match="leave body, body_threshold and detach_mm"):
        index_volumes([scans], cache, IndexSettings(counting=Counting(body=False)), mask=masks)
    with pytest.raises(UsageError, match="give the mask itself"):
        index_volumes([scans], cache, IndexSettings(counting=Counting(mask="files")))
    with pytest.raises(UsageError, match="searched for volumes; move them outside"):
        index_volumes([tmp_path], tmp_path.parent / "cache", mask=masks)
    with pytest.raises(InputError, match="there is no folder"):
        index_volumes([scans], cache, mask=tmp_path / "none")
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError, match="holds no mask"):
        index_volumes([scans], cache, mask=tmp_path / "bare")
