"""`patchatlas features export`: three formats, what is left out, and exit codes."""

import json

import pytest

from patchatlas.cli.main import main
from patchatlas.features import FeatureMap
from tests.datasets.stored import stored_ramps
from tests.disk_limit import no_file_may_grow


@pytest.mark.parametrize(("to", "count"), [("zarr", 1), ("safetensors", 4), ("feature-maps", 6)])
def test_each_format(tmp_path, capsys, to, count):
    stored_ramps(tmp_path)
    arguments = ["--to", to, str(tmp_path / "dataset.jsonl")]  # of its patches, since it has one kind of them
    assert main(["features", "export", *arguments, "--output", str(tmp_path / "out"), "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["images"] == 6
    assert len(data["written"]) == count
    assert data["skipped"] == []
    if to == "feature-maps":
        assert FeatureMap.load(tmp_path / "out" / "image-0.safetensors").tokens.shape == (24, 3)


def test_images_left_out_are_exit_3_and_listed(tmp_path, capsys):
    stored_ramps(tmp_path, skipped=25)
    arguments = [
        str(tmp_path / "dataset.jsonl"),
        "--kind",
        "fake_patches",
        "--output",
        str(tmp_path / "o"),
    ]
    assert main(["features", "export", "--to", "safetensors", *arguments]) == 3
    out = capsys.readouterr().out
    assert "6 images of fake_patches as safetensors" in out
    assert "left out 25:" in out
    assert "bad-0.jpg: bad-0.jpg has no fake_patches (it was skipped: it ends early)" in out
    assert "and 5 more" in out


@pytest.mark.parametrize(
    ("to", "kind", "code", "message"),
    [
        ("zarr", "fake_patches", 4, "there already"),
        ("feature-maps", "fake_cls", 4, "ends in _patches"),
        ("safetensors", "dinov3_patches", 4, "no image of the manifest has dinov3_patches"),
    ],
)
def test_mistakes_have_their_exit_codes(tmp_path, capsys, to, kind, code, message):
    stored_ramps(tmp_path)
    (tmp_path / "out").mkdir()
    arguments = ["--to", to, str(tmp_path / "dataset.jsonl"), "--kind", kind]
    assert main(["features", "export", *arguments, "--output", str(tmp_path / "out")]) == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("to", ["zarr", "safetensors", "feature-maps"])
def test_a_limit_of_the_disk_is_exit_6(tmp_path, capsys, to):
    stored_ramps(tmp_path)
    arguments = ["--to", to, str(tmp_path / "dataset.jsonl"), "--kind", "fake_patches"]
    with no_file_may_grow():
        assert main(["features", "export", *arguments, "--output", str(tmp_path / "out")]) == 6
    assert "larger than files may be here" in capsys.readouterr().err
