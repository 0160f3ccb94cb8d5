"""`patchatlas pretrain crops`, from a cache on disk or a folder of photographs to a page."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from patchatlas.cli.main import main
from patchatlas.errors import UsageError
from patchatlas.pretrain.cache import open_cache
from patchatlas.pretrain.crops.photos import PhotoViews
from patchatlas.pretrain.crops.records import CropRecord
from patchatlas.pretrain.window import WINDOWS
from tests.pretrain.crops.memory import blob
from tests.pretrain.test_index_faults import file_limit

CONFIG = """
crops:
  patch: 8
  globals: {size: 24, min_foreground_ratio: 0.3}
  locals: {size: 16, count: 2, min_foreground_ratio: 0.2}
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two indexed volumes."""
    folder = tmp_path_factory.mktemp("volumes")
    for k in range(2):
        np.save(folder / f"v{k}.npy", blob(np.random.default_rng(k), (40, 48, 44)).values)
    out = folder / "cache"
    spacing = ["--assume-spacing-zyx", "1.5", "0.75", "0.75"]
    assert main(["pretrain", "index", str(folder / "v0.npy"), str(folder / "v1.npy"), "--out", str(out), *spacing]) == 0
    return out


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str]:
    """Exit code and stdout."""
    code = main(["pretrain", "crops", *map(str, args)])
    return code, capsys.readouterr().out


def test_a_page_with_pictures_and_records(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.yaml").write_text(CONFIG)
    options = ["--samples", 2, "--draws", 20, "--side", 96, "--format", "json"]
    capsys.readouterr()
    code, out = run(capsys, cache, "--config", tmp_path / "run.yaml", "--output", tmp_path / "out", *options)
    assert code == 0
    told = json.loads(out)
    assert (told["samples"], told["crops"], told["below_min"], told["disjoint_pairs"]) == (20, 80, 0, 0)
    page = (tmp_path / "out" / "index.html").read_text()
    for k in range(2):
        for name in (f"sample-{k}-place.png", f"sample-{k}-crops.png"):
            assert f'src="{name}"' in page
            assert np.asarray(Image.open(tmp_path / "out" / name)).std() > 10
    assert page.count("<svg") == 3
    stored = json.loads((tmp_path / "out" / "crops.json").read_text())
    records = [CropRecord.from_json(one) for one in stored["samples"][1]]
    assert [record.parent for record in records] == [-1, -1, 0, 1]
    assert all(f"{record.fg_ratio:.3f}" in page for record in records)


@pytest.mark.parametrize("size", [1000, 0])
def test_a_disk_that_refuses_is_told(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """No file of more than so many bytes; none at all is a folder that may not be made."""
    (tmp_path / "run.yaml").write_text(CONFIG)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    options = [cache, "--config", tmp_path / "run.yaml", "--output", tmp_path / "out", "--samples", 1, "--draws", 2]
    with monkeypatch.context() as patch, file_limit(1000):
        if size == 0:
            patch.setattr(Path, "mkdir", refused)
        code = main(["pretrain", "crops", *map(str, options)])
    assert code == 6
    assert f"cannot write {tmp_path / 'out'}" in capsys.readouterr().err


def test_settings_can_be_changed(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.yaml").write_text(CONFIG)
    options = ["--samples", 1, "--draws", 40, "--side", 96, "--set", "crops.globals.foreground_crop_prob=0.0"]
    code, out = run(capsys, cache, "--config", tmp_path / "run.yaml", "--output", tmp_path / "out", *options)
    assert code == 0
    assert "flag anywhere" in out
    assert "pairs that share nothing" in out


def test_photographs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    Image.fromarray(pixels).save(tmp_path / "photos" / "a.png")
    (tmp_path / "run.yaml").write_text(
        "crops: {kind: photos, patch: 8, globals: {size: 32}, locals: {size: 16, count: 2}}"
    )
    options = ["--samples", 1, "--draws", 5, "--side", 96]
    code, _ = run(
        capsys, tmp_path / "photos", "--config", tmp_path / "run.yaml", "--output", tmp_path / "out", *options
    )
    assert code == 0
    page = (tmp_path / "out" / "index.html").read_text()
    assert "a.png" in page
    assert page.count("<svg") == 1


def test_photographs_are_kept_as_in_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.full((60, 80, 3), 90, np.uint8)).save(tmp_path / "photos" / "a.png")
    (tmp_path / "run.yaml").write_text(
        "crops: {kind: photos, patch: 8, globals: {size: 32}, locals: {size: 16, count: 2}}\ntrain: {photo_mib: 3}"
    )
    given: list[int] = []

    class Noted(PhotoViews):
        def __init__(self, *_: object, keep_bytes: int, **__: object) -> None:
            given.append(keep_bytes)
            raise UsageError("enough")

    monkeypatch.setattr("patchatlas.pretrain.crops.photos.PhotoViews", Noted)
    command = [
        "pretrain",
        "crops",
        tmp_path / "photos",
        "--config",
        tmp_path / "run.yaml",
        "--output",
        tmp_path / "out",
    ]
    assert main([*map(str, command)]) == 2
    assert given == [3 * 2**20]


def test_photographs_that_cannot_be_read_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.full((60, 80, 3), 90, np.uint8)).save(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "run.yaml").write_text(
        "crops: {kind: photos, patch: 8, globals: {size: 32}, locals: {size: 16, count: 2}}"
    )
    options = ["--config", tmp_path / "run.yaml", "--output", tmp_path / "out", "--samples", 1, "--draws", 5]
    code, told = run(capsys, tmp_path / "photos", *options)
    assert code == 3
    assert "skipped broken.jpg: " in told
    code, told = run(capsys, tmp_path / "photos", *options, "--format", "json")
    assert code == 3
    assert [one["name"] for one in json.loads(told)["skipped"]] == ["broken.jpg"]


def test_a_folder_of_other_files_is_left_alone(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.yaml").write_text(CONFIG)
    scans = tmp_path / "scans"
    scans.mkdir()
    (scans / "a.nii").touch()
    options = ["--config", tmp_path / "run.yaml", "--samples", 1, "--draws", 2, "--side", 96]
    assert main(["pretrain", "crops", str(cache), *map(str, options), "--output", str(scans)]) == 2
    assert f"{scans} holds other files and no crops (a.nii)" in capsys.readouterr().err
    assert [path.name for path in scans.iterdir()] == ["a.nii"]
    out = tmp_path / "out"
    out.mkdir()
    (out / "sample-0-place.png").touch()  # of one that was stopped
    for _ in range(2):
        assert run(capsys, cache, *options, "--output", out)[0] == 0


def test_the_ratio_is_that_of_the_voxels_whatever_the_window(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Defect 12: the viewer took its threshold to the normalised crop, so other windows showed other ratios."""
    (tmp_path / "run.yaml").write_text(CONFIG)
    volumes = open_cache(cache)
    by_id = {record.id: record for record in volumes.records}
    told = set()
    for window in ("ct", "full", "chest"):
        options = ["--samples", 1, "--draws", 1, "--side", 96, "--output", tmp_path / window]
        changed = ["--set", f"crops.window={window}", "crops.globals.foreground=-500"]
        assert run(capsys, cache, "--config", tmp_path / "run.yaml", *options, *changed)[0] == 0
        stored = json.loads((tmp_path / window / "crops.json").read_text())["samples"][0]
        page = (tmp_path / window / "index.html").read_text()
        assert "Window {:g} to {:g} HU".format(*WINDOWS[window]) in page
        for one in stored[:2]:
            record = CropRecord.from_json(one)
            voxels = volumes.read(by_id[record.volume], record.start_zyx, record.size_zyx)
            assert record.fg_ratio == (voxels > -500).mean()
            assert f"<td>{(voxels > -500).mean():.3f}</td>" in page
        told.add(tuple(one["fg_ratio"] for one in stored))
    assert len(told) == 1


def test_bad_settings_and_caches_are_refused(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.yaml").write_text(CONFIG + "  window: [500, 3000]\n")
    args = ["--config", tmp_path / "run.yaml", "--output", tmp_path / "out"]
    assert main(["pretrain", "crops", str(cache), *map(str, args)]) == 2
    assert "begins above the foreground threshold" in capsys.readouterr().err
    (tmp_path / "run.yaml").write_text(CONFIG)
    none = str(tmp_path / "none")
    assert main(["pretrain", "crops", none, *map(str, args)]) == 4
    assert f"there is no folder {none}; make a cache with: patchatlas pretrain index SRC --out {none}" in (
        capsys.readouterr().err
    )
    (tmp_path / "none").mkdir()
    assert main(["pretrain", "crops", none, *map(str, args)]) == 4
    told = capsys.readouterr().err
    assert f"patchatlas pretrain index {none} --out CACHE" in told
    assert "set crops.kind to photos" in told
    entry = tmp_path / "none" / "volumes" / "one"
    entry.mkdir(parents=True)
    (entry / "volume.json").write_text("{}")
    assert main(["pretrain", "crops", none, *map(str, args)]) == 4
    assert f"not finished; finish it with: patchatlas pretrain index SRC --out {none}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
