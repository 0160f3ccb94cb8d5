"""A derived folder is of one manifest: another one is refused before it can overwrite anything."""

import json

import pytest

from patchatlas.datasets.build.journal import open_journal
from patchatlas.datasets.build.merge import journals_of
from patchatlas.datasets.build.owner import OWNER, claim
from patchatlas.datasets.build.run import build
from patchatlas.errors import FormatError, InputError
from patchatlas.io.manifest import read_manifest
from tests.datasets.conftest import write_photos


@pytest.fixture
def two(settings, tmp_path):
    """Settings of two manifests side by side, over two folders that hold other pictures under the same names."""
    for seed, name in enumerate(("train", "val")):
        write_photos(tmp_path / name, tuple((photo, (64, 64 + 32 * seed)) for photo in ("a.jpg", "b.png")))
    return [
        settings(input_dir=tmp_path / name, manifest=tmp_path / "out" / f"{name}.jsonl") for name in ("train", "val")
    ]


@pytest.mark.parametrize("passes", [("dinov3",), ("migrate",)])
def test_a_second_manifest_is_refused_and_nothing_of_the_first_changes(two, snapshot, passes):
    train, val = two
    build(train)
    before = snapshot(train.manifest, train.derived_dir)
    other = type(val)(**{**vars(val), "passes": passes})
    with pytest.raises(InputError, match=r"train\.jsonl.*val\.jsonl.*--derived-dir"):
        build(other)
    assert snapshot(train.manifest, train.derived_dir) == before
    assert not val.manifest.exists()
    build(type(val)(**{**vars(val), "derived_dir": val.derived_dir.with_name("other")}))
    assert snapshot(train.manifest, train.derived_dir) == before


def test_the_owner_is_named_relative_to_the_folder(settings):
    made = settings()
    build(made)
    assert json.loads((made.derived_dir / OWNER).read_text()) == {
        "format": "patchatlas.derived",
        "version": 1,
        "manifest": "../m.jsonl",
    }


def test_both_may_be_moved_together(settings):
    made = settings()
    build(made)
    moved = made.manifest.parent.with_name("moved")
    made.manifest.parent.rename(moved)
    again = type(made)(**{**vars(made), "manifest": moved / "m.jsonl", "derived_dir": moved / "derived"})
    assert build(again).passes[0].done == 0


def test_a_link_to_the_folder_does_not_hide_whose_it_is(tmp_path):
    (tmp_path / "big").mkdir()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "derived").symlink_to(tmp_path / "big", target_is_directory=True)
    claim(tmp_path / "one" / "derived", tmp_path / "one" / "m.jsonl")
    with pytest.raises(InputError, match="--derived-dir"):
        claim(tmp_path / "two" / "derived", tmp_path / "two" / "m.jsonl")


def test_features_without_an_owner_go_to_a_manifest_that_names_them(two):
    train, val = two
    build(train)
    (train.derived_dir / OWNER).unlink()
    with pytest.raises(InputError, match=r"does not say of which manifest.*val\.jsonl.*--derived-dir"):
        build(val)
    assert build(train).passes[0].there == 2
    assert (train.derived_dir / OWNER).is_file()


@pytest.mark.parametrize("content", ["", "[]", '{"format": "patchatlas.derived", "version": 2, "manifest": "../m"}'])
def test_an_owner_file_that_cannot_be_read_is_named(tmp_path, content):
    (tmp_path / OWNER).write_text(content)
    with pytest.raises(FormatError, match=rf"{OWNER} cannot be read"):
        claim(tmp_path, tmp_path / "m.jsonl")


def test_the_journal_of_another_manifest_is_left_alone(settings, tmp_path):
    made = settings()
    build(made)
    with open_journal(made.derived_dir, manifest=tmp_path / "out" / "other.jsonl") as foreign:
        pass
    before = read_manifest(made.manifest)
    build(made)
    assert journals_of(made.derived_dir) == [foreign.path]
    assert journals_of(made.derived_dir, manifest=made.manifest) == []
    assert read_manifest(made.manifest) == before
