"""Full disks and folders that may not be written: one clear error, exit code 6, old data as it was, a rerun ends."""

import errno
import os
import threading
from pathlib import Path

import pytest

from patchatlas.cli.main import main
from patchatlas.io.writers import Writers
from tests.datasets.conftest import PHOTOS


@pytest.fixture(scope="module")
def command(photos, bucket_table, tiny_dinov3):
    """All but the manifest."""
    return [
        "features", "build", "--input-dir", str(photos), "--encoder", str(tiny_dinov3), "--buckets", str(bucket_table),
        "--device", "cpu", "--precision", "fp32", "--token-budget", "48",
    ]  # fmt: skip


@pytest.fixture
def arguments(command, tmp_path):
    return [*command, "--output-jsonl", str(tmp_path / "m.jsonl")]


@pytest.fixture(scope="module")
def whole_folder(command, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert main([*command, "--output-jsonl", str(folder / "m.jsonl")]) == 0
    return folder


@pytest.fixture
def whole(whole_folder, snapshot):
    """What a run leaves that was not disturbed."""
    return snapshot(whole_folder / "m.jsonl", whole_folder / "derived")


class Disk:
    """Refuses every sync from the `allowed`-th on, as a disk that is full does at the latest."""

    def __init__(self, allowed, code):
        self.allowed, self.code, self.lock, self.fsync = allowed, code, threading.Lock(), os.fsync

    def __call__(self, descriptor):
        with self.lock:
            self.allowed -= 1
            if self.allowed < 0:
                raise OSError(self.code, os.strerror(self.code))
        self.fsync(descriptor)


@pytest.mark.parametrize(
    ("allowed", "code"),
    [(0, errno.EROFS), (5, errno.EROFS), *((allowed, errno.ENOSPC) for allowed in (0, 1, 3, 4, 9, 30, 55))],
)
def test_a_disk_that_refuses_is_exit_6_and_costs_nothing_that_was_finished(
    arguments, tmp_path, monkeypatch, capsys, snapshot, whole, allowed, code
):
    disk = Disk(allowed, code)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", disk)
        capsys.readouterr()
        assert main(arguments) == 6
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: cannot write ")
    assert len(err.splitlines()) == 1
    assert ("the disk is full" if code == errno.ENOSPC else "the disk is read-only") in err
    if (tmp_path / "m.jsonl").exists():
        assert len((tmp_path / "m.jsonl").read_text().splitlines()) == len(PHOTOS)
    assert main(arguments) == 0
    assert snapshot(tmp_path / "m.jsonl", tmp_path / "derived") == whole


def test_a_refusal_leaves_an_earlier_manifest_and_its_features_intact(arguments, tmp_path, monkeypatch, snapshot):
    main([*arguments, "--limit", "6"])
    before = snapshot(tmp_path / "m.jsonl", tmp_path / "derived")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", Disk(0, errno.ENOSPC))
        assert main(arguments) == 6
    after = snapshot(tmp_path / "m.jsonl", tmp_path / "derived")
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("what", ["manifest", "derived"])
def test_a_folder_that_may_not_be_written(arguments, monkeypatch, capsys, what):
    """Refused where files are made, since a superuser may write whatever the permissions say."""
    import patchatlas.datasets.build.merge as merge
    import patchatlas.io.feature_store as feature_store

    def refused(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    if what == "manifest":
        monkeypatch.setattr(merge.FileLock, "acquire", refused)
    else:
        monkeypatch.setattr(feature_store.Path, "mkdir", refused)
    assert main(arguments) == 6
    assert "the folder may not be written" in capsys.readouterr().err


def test_no_other_process_sweeps_away_what_is_being_written(arguments, tmp_path, monkeypatch):
    """Another one comes and goes before each rename: it must find this one among the writers at every one of them."""
    derived, rename = tmp_path / "derived", os.replace
    (tmp_path / "m.jsonl").write_text('{"image_path": "a.jpg", "image_id": "a", "dinov3_embedding": [0.5, 1.5]}\n')
    renamed = set()

    def rename_late(source, target):
        if derived in Path(target).parents:
            Writers(derived).leave()
            renamed.add(Path(target).name)
        rename(source, target)

    monkeypatch.setattr(os, "replace", rename_late)
    assert main([*arguments, "--pass-filter", "migrate", "dinov3"]) == 0
    assert {"_owner.json", "_features.json", "_fidelity.json", "a.npy"} <= renamed
    assert main([*arguments, "--pass-filter", "migrate", "--buckets", "learn:2"]) == 0
    assert "_buckets.txt" in renamed
