"""Writing in one step: the old bytes or the new ones, never a part."""

import os
import re
import stat
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from patchatlas.errors import InputError
from patchatlas.files import (
    holds_others,
    lock_folder,
    replacing,
    replacing_folder,
    sort_safetensors_metadata,
    write_bytes,
    write_text,
)


def test_a_folder_of_other_files_is_told_with_the_first_of_them(tmp_path):
    said = str(holds_others(tmp_path, "run", some=["a", "b", "c", "d"]))
    assert said == f"{tmp_path} holds other files and no run (a, b, c ...); name a new or an empty folder"
    assert "run; name" in str(holds_others(tmp_path, "run"))


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


def write_through_a_name(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        assert temporary.suffix == path.suffix
        temporary.write_bytes(content)


@pytest.mark.skipif(os.name != "posix", reason="modes and links are those of POSIX")
@pytest.mark.parametrize("write", [write_bytes, write_through_a_name])
class TestOldFiles:
    @pytest.mark.parametrize("mode", [0o400, 0o640, 0o666])
    def test_hand_on_their_permissions(self, tmp_path, write, mode):
        path = tmp_path / "a.bin"
        path.write_bytes(b"old")
        path.chmod(mode)
        write(path, b"new")
        assert path.read_bytes() == b"new"
        assert path.stat().st_mode & 0o7777 == mode

    def test_stay_links_and_what_they_point_to_is_replaced(self, tmp_path, write):
        (tmp_path / "store").mkdir()
        stored, between, link = tmp_path / "store" / "b", tmp_path / "between", tmp_path / "a.bin"
        stored.write_bytes(b"old")
        stored.chmod(0o600)
        between.symlink_to("store/b")
        link.symlink_to(between)
        write(link, b"new")
        assert link.is_symlink()
        assert between.is_symlink()
        assert stored.read_bytes() == b"new"
        assert stored.stat().st_mode & 0o777 == 0o600
        assert [path.name for path in stored.parent.iterdir()] == ["b"]

    def test_that_a_link_misses_are_made(self, tmp_path, write):
        (tmp_path / "a.bin").symlink_to("b.bin")
        write(tmp_path / "a.bin", b"new")
        assert (tmp_path / "a.bin").is_symlink()
        assert (tmp_path / "b.bin").read_bytes() == b"new"


def test_a_file_in_the_working_folder_has_no_folder_in_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_bytes("a.bin", b"new")
    assert (tmp_path / "a.bin").read_bytes() == b"new"


def test_a_folder_is_taken_by_one_at_a_time(tmp_path):
    with lock_folder(tmp_path, busy=InputError("first")):
        with pytest.raises(InputError, match="second"):
            lock_folder(tmp_path, busy=InputError("second"))
    with lock_folder(tmp_path, busy=InputError("third")):  # free again
        pass


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


class TestFolders:
    def names(self, folder):
        return sorted(path.name for path in folder.iterdir())

    def test_the_new_one_takes_the_place_of_the_old_one(self, tmp_path):
        for content in ("old", "new"):
            with replacing_folder(tmp_path / "a") as temporary:
                assert self.names(temporary) == []
                (temporary / "deep").mkdir()
                (temporary / "deep" / content).write_text(content)
        assert self.names(tmp_path / "a" / "deep") == ["new"]
        assert self.names(tmp_path) == ["a"]

    @pytest.mark.parametrize("fails", ["within", "sync", "aside", "in"])
    @pytest.mark.parametrize("former", [True, False])
    def test_a_failure_keeps_the_old_one_and_leaves_nothing(self, tmp_path, monkeypatch, fails, former):
        if former:
            (tmp_path / "a").mkdir()
            (tmp_path / "a" / "old").touch()
        rename = Path.rename

        def refused(self, target):
            if fails == ("in" if self.suffix == ".part" else "aside"):
                raise KeyboardInterrupt
            return rename(self, target)

        def no_sync(_):
            raise OSError(28, "full")

        monkeypatch.setattr(Path, "rename", refused)
        if fails == "sync":
            monkeypatch.setattr(os, "fsync", no_sync)

        def replace():
            with replacing_folder(tmp_path / "a") as temporary:
                (temporary / "new").touch()
                if fails == "within":
                    raise KeyboardInterrupt

        if fails == "aside" and not former:
            replace()  # nothing to put aside
            assert self.names(tmp_path / "a") == ["new"]
            return
        with pytest.raises((KeyboardInterrupt, OSError)):
            replace()
        assert self.names(tmp_path) == (["a"] if former else [])
        assert not former or self.names(tmp_path / "a") == ["old"]

    def test_what_cannot_be_put_back_is_not_deleted(self, tmp_path, monkeypatch):
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "old").touch()
        rename = Path.rename

        def once(self, target):
            if self.name != "a":
                raise OSError(5, "gone bad")
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", once)
        with pytest.raises(OSError, match="gone bad"), replacing_folder(tmp_path / "a"):
            pass
        (left,) = tmp_path.iterdir()
        assert left.suffix == ".old"
        assert self.names(left) == ["old"]

    def test_files_and_names_are_on_the_disk_before_the_rename_and_the_rename_before_the_old_one_goes(
        self, tmp_path, monkeypatch
    ):
        (tmp_path / "a").mkdir()
        done = []
        fsync, rename = os.fsync, Path.rename

        def record_sync(descriptor):
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            done.append("part" if path.suffix == ".part" else path.name)
            if path == tmp_path:
                assert [one for one in tmp_path.iterdir() if one.suffix == ".old"]
            fsync(descriptor)

        def record_rename(self, target):
            done.append(f"to {Path(target).suffix or Path(target).name}")
            return rename(self, target)

        monkeypatch.setattr(os, "fsync", record_sync)
        monkeypatch.setattr(Path, "rename", record_rename)
        with replacing_folder(tmp_path / "a") as temporary:
            (temporary / "file").touch()
        assert done == ["file", "part", "to .old", "to a", tmp_path.name]

    def test_a_missing_parent_is_named(self, tmp_path):
        with pytest.raises(InputError, match="does not exist"), replacing_folder(tmp_path / "absent" / "a"):
            pass


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_what_a_library_writes_for_its_owner_alone_is_readable_as_any_new_file(tmp_path, umask, mode):
    former = os.umask(umask)
    try:
        with replacing(tmp_path / "new.bin") as temporary:
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
    finally:
        os.umask(former)
    assert stat.S_IMODE((tmp_path / "new.bin").stat().st_mode) == mode
    assert [path.name for path in tmp_path.iterdir()] == ["new.bin"]
