"""`patchatlas features stats`: parts, merging, files and exit codes."""

import json

import pytest

from patchatlas.cli.main import main
from patchatlas.datasets.recipe import Recipe
from patchatlas.datasets.stats import Statistics
from tests.datasets.stored import TABLE, stored_ramps
from tests.disk_limit import no_file_may_grow


def test_a_manifest_in_parts_adds_up_to_the_whole(tmp_path, capsys):
    stored_ramps(tmp_path, skipped=2)
    common = ["features", "stats", "--kind", "fake_patches", "--format", "json"]
    manifest = [str(tmp_path / "dataset.jsonl")]
    assert main([*common, *manifest, "--output", str(tmp_path / "whole.safetensors")]) == 0
    whole = json.loads(capsys.readouterr().out)
    parts = []
    for k in range(3):
        parts.append(str(tmp_path / f"part-{k}.json"))
        assert main([*common, *manifest, "--shard", f"{k}/3", "--output", parts[-1]]) == 0
    capsys.readouterr()
    assert main([*common, "--merge", *parts]) == 0
    merged = json.loads(capsys.readouterr().out)
    assert merged["images"] == whole["images"] == 6
    assert merged["tokens"] == whole["tokens"] == 127
    assert merged["norm"] == pytest.approx(whole["norm"], rel=1e-12)
    assert Statistics.load(tmp_path / "whole.safetensors").channels.count == 127


def test_people_are_told_the_norms_and_the_loudest_channel(tmp_path, capsys):
    stored_ramps(tmp_path, Recipe(buckets=TABLE, storage="int8"))
    output = tmp_path / "stats.json"
    arguments = [str(tmp_path / "dataset.jsonl"), "--output", str(output)]  # the one kind of patches there is
    assert main(["features", "stats", *arguments]) == 0
    out = capsys.readouterr().out
    assert "fake_patches: 6 images, 127 tokens of 3 channels" in out
    assert "norm of a token: mean" in out
    assert "loudest channel: " in out
    assert f"written to {output}" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--merge", "a.json", "--shard", "0/2"], 2, "give one of them"),
        (["data/dataset.jsonl", "--shard", "2/2"], 2, "shard"),
        (["data/dataset.jsonl", "--output", "stats.npz"], 2, "must end in"),
        (["--merge", "absent.json"], 4, "no file absent.json"),
        (["absent.jsonl"], 4, "absent.jsonl"),
        ([], 2, "give either a MANIFEST"),
        (["data/dataset.jsonl", "--merge", "a.json"], 2, "give either a MANIFEST"),
        (["data/dataset.jsonl", "--kind", "dinov3_patches"], 4, "has no dinov3_patches; it has: fake_cls"),
    ],
)
def test_mistakes_have_their_exit_codes(tmp_path, capsys, monkeypatch, arguments, code, message):
    (tmp_path / "data").mkdir()
    stored_ramps(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    assert main(["features", "stats", *arguments]) == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["stats.json", "stats.safetensors"])
def test_a_limit_of_the_disk_is_exit_6(tmp_path, capsys, name):
    stored_ramps(tmp_path)
    arguments = [str(tmp_path / "dataset.jsonl"), "--kind", "fake_patches", "--output", str(tmp_path / name)]
    with no_file_may_grow():
        assert main(["features", "stats", *arguments]) == 6
    assert "larger than files may be here" in capsys.readouterr().err
    assert not (tmp_path / name).exists()
