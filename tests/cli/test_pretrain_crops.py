"""`patchatlas pretrain crops`, from a cache on disk or a folder of photographs to a page."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from patchatlas.cli.main import main
from patchatlas.pretrain.crops.records import CropRecord
from tests.pretrain.crops.memory import blob

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


def test_bad_settings_and_caches_are_refused(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.yaml").write_text(CONFIG + "  window: [500, 3000]\n")
    args = ["--config", tmp_path / "run.yaml", "--output", tmp_path / "out"]
    assert main(["pretrain", "crops", str(cache), *map(str, args)]) == 2
    assert "begins above the foreground threshold" in capsys.readouterr().err
    (tmp_path / "run.yaml").write_text(CONFIG)
    assert main(["pretrain", "crops", str(tmp_path / "none"), *map(str, args)]) == 4
    assert not (tmp_path / "out").exists()
