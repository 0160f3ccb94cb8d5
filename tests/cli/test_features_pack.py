"""`patchatlas features pack`, from the command line on."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from patchatlas.cli.main import main
from patchatlas.io.manifest import Record, write_manifest
from tests.datasets import shard_sets as sets


@pytest.fixture
def built(tmp_path: Path) -> tuple[Path, list[Record]]:
    records = sets.build_set(tmp_path / "derived", 8, kinds=[sets.PATCHES, sets.CLS])
    write_manifest(tmp_path / "dataset.jsonl", records)
    return tmp_path, records


def pack(folder: Path, *more: str) -> int:
    flags = ["dataset.jsonl", "--derived-dir", "derived", "--output-dir", "shards"]
    paths = [str(folder / flag) if not flag.startswith("--") else flag for flag in flags]
    return main(["features", "pack", *paths, *more])


def test_packs_and_says_so(built: tuple[Path, list[Record]], capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = built
    assert pack(folder, "--format", "json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["samples"] == 8
    assert said["kinds"] == [sets.CLS, sets.PATCHES]
    assert len(said["written"]) == 3
    assert pack(folder) == 0
    assert "written 0, kept 3" in capsys.readouterr().out


def test_records_left_out_are_listed_with_exit_3(
    built: tuple[Path, list[Record]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, records = built
    lacking = replace(records[2], features={})
    write_manifest(folder / "dataset.jsonl", [*records[:2], lacking, *records[3:], sets.skipped_record(50)])
    assert pack(folder) == 3
    printed = capsys.readouterr().out
    assert "left out 2:" in printed
    assert f"{lacking.image_id}: lacks dinov3_cls, dinov3_patches" in printed
    assert f"{sets.image_id(50)}: skipped when features were built (truncated)" in printed
    assert pack(folder, "--strict") == 4
    assert "lacks" in capsys.readouterr().err


def test_many_left_out_are_cut_for_people_only(
    built: tuple[Path, list[Record]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, records = built
    write_manifest(folder / "dataset.jsonl", [*records, *(sets.skipped_record(n) for n in range(100, 130))])
    assert pack(folder) == 3
    assert "and 10 more" in capsys.readouterr().out
    assert pack(folder, "--format", "json") == 3
    assert len(json.loads(capsys.readouterr().out)["skipped"]) == 30


def test_kinds_cap_and_split(built: tuple[Path, list[Record]], capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = built
    assert pack(folder, "--kinds", sets.PATCHES, "--max-mb", "0.01", "--split") == 0
    names = {path.name.split(".")[1] for path in (folder / "shards").glob("*/*.tar")}
    assert names == {"json", sets.PATCHES}
    assert pack(folder, "--kinds", sets.CLS) == 4
    assert "holds shards of dinov3_patches" in capsys.readouterr().err
    assert pack(folder, "--kinds", sets.CLS, "--replace") == 0


@pytest.mark.parametrize(
    ("more", "code"),
    [(["--kinds", "clip"], 2), (["--max-mb", "0"], 2)],
)
def test_mistakes(built: tuple[Path, list[Record]], more: list[str], code: int) -> None:
    assert pack(built[0], *more) == code


def test_no_such_manifest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["features", "pack", "nowhere.jsonl"]) == 4
    assert "nowhere.jsonl" in capsys.readouterr().err


def test_everything_lies_beside_the_manifest_unless_said_otherwise(built: tuple[Path, list[Record]]) -> None:
    folder, _ = built
    assert main(["features", "pack", str(folder / "dataset.jsonl")]) == 0
    assert (folder / "shards" / "index.json").is_file()
