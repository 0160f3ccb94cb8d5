"""`patchatlas features verify`: exit codes, JSON, what people see, and --fix followed by a build."""

import json
from pathlib import Path

import pytest

from patchatlas.cli.main import main
from patchatlas.encoders.vit import ViTConfig
from tests.datasets.conftest import PHOTOS, write_photos, write_tiny
from tests.datasets.verify.conftest import make
from tests.datasets.verify.planting import Built, noise


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = ViTConfig(family="dinov3", patch=(16, 16), dim=32, depth=2, heads=2, registers=4, ffn_hidden=64)
    return write_tiny(tmp_path_factory.mktemp("weights") / "tiny.safetensors", config)


@pytest.fixture
def built(tmp_path: Path, weights: Path) -> Built:
    """Four pictures, in the default place beside their manifest."""
    return make(tmp_path, write_photos(tmp_path / "photos", PHOTOS[:4]), weights)


def verify(built: Built, *options: str) -> int:
    return main(["features", "verify", str(built.manifest), *options])


def test_a_healthy_set(built, weights, capsys):
    photos = str(built.settings.input_dir)
    assert verify(built, "--input-dir", photos, "--probe", "2", "--encoder", str(weights), "--device", "cpu") == 0
    told = capsys.readouterr().out
    assert "4 records, 12 files" in told
    assert "16 of 16 replaced patches answered at their own place" in told
    assert "nothing wrong was found" in told


def test_warnings_are_exit_code_3(built, capsys):
    (built.folder() / "notes.txt").write_text("mine")
    assert verify(built) == 3
    assert "warning: stray_file (1)" in capsys.readouterr().out


def test_errors_are_exit_code_4_and_fix_makes_them_3(built, capsys):
    built.put("a.jpg", noise(15, 32))
    assert verify(built, "--format", "json") == 4
    report = json.loads(capsys.readouterr().out)
    assert report["errors"] == 1
    (finding,) = report["findings"]
    assert (finding["fault"], finding["record"]) == ("other_bucket", built.records["a.jpg"].image_id)
    assert verify(built, "--fix") == 3
    assert "1 pictures will be made again by `features build`; 3 files were moved to _bad" in capsys.readouterr().out
    assert verify(built) == 4
    assert "missing_features" in capsys.readouterr().out
    build = ["features", "build", "--input-dir", str(built.settings.input_dir), "--output-jsonl", str(built.manifest)]
    table = built.root / "table.txt"
    table.write_text("".join(f"{w}x{h}\n" for h, w in built.settings.recipe.buckets))
    options = ["--pass-filter", "encoder", "--encoder", str(built.settings.encoder), "--buckets", str(table)]
    assert main([*build, *options, "--dtype", "fp32", "--precision", "fp32", "--device", "cpu"]) == 0
    assert verify(built) == 0


def test_the_probe_takes_the_layer_that_was_stored(tmp_path, weights):
    from dataclasses import replace

    from patchatlas.datasets.build.run import build

    photos = write_photos(tmp_path / "photos", PHOTOS[:2])
    built = make(tmp_path, photos, weights)
    settings = replace(built.settings, layer=0, backup_old=True)
    build(settings)
    assert verify(Built(tmp_path, settings), "--input-dir", str(photos), "--probe", "2", "--encoder", str(weights)) == 0


@pytest.mark.parametrize("options", [["--probe", "3"], ["--encoder", "x"]])
def test_options_that_make_no_sense(built, options, capsys):
    assert verify(built, *options) == 2
    assert "--probe" in capsys.readouterr().err


def test_no_such_folder(built, capsys):
    assert verify(built, "--derived-dir", str(built.root / "nowhere")) == 4
    assert "there is no folder" in capsys.readouterr().err


def test_larger_pictures_need_the_limit_of_the_build(built, weights, capsys):
    """Sets built with --max-pixels are verified with it, also by the probe."""
    photos = str(built.settings.input_dir)
    options = ["--input-dir", photos, "--probe", "1", "--encoder", str(weights), "--device", "cpu"]
    assert verify(built, *options, "--max-pixels", "100") == 3
    assert "warning: source_unusable (5)" in capsys.readouterr().out
    assert verify(built, *options, "--max-pixels", "100000") == 0


def test_pictures_with_equal_features_are_probed_first(built, weights, capsys):
    """Overwritten by another: a warning without the probe, and an error with it, however few it takes."""
    path, other = "a.jpg", "grey.png"  # of one bucket
    built.put_bytes(path, built.path(other).read_bytes())
    assert verify(built) == 3
    assert "warning: copied (1)" in capsys.readouterr().out
    photos = str(built.settings.input_dir)
    assert verify(built, "--input-dir", photos, "--probe", "2", "--encoder", str(weights), "--device", "cpu") == 4
    assert "error: other_picture (1)" in capsys.readouterr().out
