"""Writing in one step: the old bytes or the new ones, never a part."""

import os
import re

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from patchatlas.errors import InputError
from patchatlas.files import replacing, sort_safetensors_metadata, write_bytes, write_text


def test_an_error_keeps_the_old_file_and_leaves_nothing(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old\n")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_bytes() == b"old\n"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"


def test_the_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    done: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def record_sync(descriptor: int) -> None:
        name = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
        done.append(("sync", "part" if ".part" in name else name))
        fsync(descriptor)

    def record_rename(before: str, after: str) -> None:
        done.append(("rename", os.path.basename(after)))
        replace(before, after)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(os, "replace", record_rename)
    write_bytes(tmp_path / "a.bin", b"new")
    assert done == [("sync", "part"), ("rename", "a.bin"), ("sync", tmp_path.name)]


def test_the_sync_of_the_name_may_be_left_to_the_caller(tmp_path, monkeypatch):
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    write_bytes(tmp_path / "a.bin", b"new", sync_name=False)
    assert len(synced) == 1
    assert ".part" in synced[0]
    assert (tmp_path / "a.bin").read_bytes() == b"new"


def test_a_system_that_writes_a_part_at_a_time_writes_all(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:3]))
    write_bytes(tmp_path / "a.bin", b"0123456789")
    assert (tmp_path / "a.bin").read_bytes() == b"0123456789"


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_failure_to_write_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch, call):
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")

    def refused(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, call, refused)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_a_file_in_the_working_folder_has_no_folder_in_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_bytes("a.bin", b"new")
    assert (tmp_path / "a.bin").read_bytes() == b"new"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        write_text(tmp_path / "absent" / "a.txt", "x")


def test_metadata_of_safetensors_are_sorted_and_nothing_else_changes(tmp_path):
    content = {key: f'{key} "\\ \n é \x07 𝄞' for key in "zyxwvutsrqponm"}
    tensors = {"b": np.arange(3.0), "a": np.ones((2, 2), dtype=np.float32)}
    for name in "12":
        save_file(tensors, tmp_path / name, metadata=content)
        sort_safetensors_metadata(tmp_path / name)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    with safe_open(tmp_path / "1", framework="np") as opened:
        assert opened.metadata() == content
        assert set(opened.keys()) == {"a", "b"}
        np.testing.assert_array_equal(opened.get_tensor("b"), tensors["b"])
    names = re.findall(rb'"([m-z])":', (tmp_path / "1").read_bytes())
    assert names == sorted(names)
    assert len(names) == len(content)
