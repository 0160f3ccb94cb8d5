"""What goes wrong with files, disks and entries of a cache is told, and costs nothing but the volume that it is of."""

import json
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from patchatlas.errors import ResourceError
from patchatlas.pretrain import entry, index
from patchatlas.pretrain.cache import VolumeCache, open_cache
from patchatlas.pretrain.index import index_volumes
from patchatlas.pretrain.index_settings import Counting, IndexSettings
from tests.io.volumes.volume_files import write_nifti
from tests.pretrain.test_index import SIZE, contents, values


@pytest.fixture
def source(tmp_path) -> Path:
    """Two volumes."""
    top = tmp_path / "source"
    top.mkdir()
    write_nifti(top / "a.nii.gz", values(1))
    write_nifti(top / "b.nii", values(2))
    return top


def reasons(report) -> dict[str, str]:
    return {fault.source: fault.reason for fault in report.skipped}


def bodies(cache: VolumeCache) -> list[int]:
    return [int(cache.cells(record).counts.sum()) for record in cache.records]


@pytest.mark.parametrize(
    "other", [Counting(body_threshold=0.0), Counting(cell_zyx=(4, 4, 4)), Counting()], ids=["body", "cells", "former"]
)
def test_a_count_that_was_cut_off_is_done_again(source, tmp_path, monkeypatch, other):
    """Also where the next run has the settings of before, which the old description still tells."""
    cache = tmp_path / "cache"
    former = IndexSettings()
    index_volumes([source], cache, former)
    want = contents(cache)

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(entry, "write_text", die)  # after the tables, before what describes them
        counting = Counting(body_threshold=30.0, cell_zyx=(2, 2, 2))
        with pytest.raises(Killed):
            index_volumes([source], cache, IndexSettings(counting=counting))
    report = index_volumes([source], cache, IndexSettings(counting=other))
    assert report.how["counted"] >= 1
    fresh = index_volumes([source], tmp_path / "fresh", IndexSettings(counting=other))
    assert bodies(report.cache) == bodies(fresh.cache)
    assert contents(cache) == contents(tmp_path / "fresh")
    index_volumes([source], cache, former)
    assert contents(cache) == want


@pytest.mark.parametrize(
    ("name", "content", "how"),
    [
        ("tables.npz", b"PK\3\4" + bytes(100), {"kept": 1, "counted": 1}),
        ("tables.npz", b"", {"kept": 1, "counted": 1}),
        ("volume.json", b"[]", {"kept": 1, "made": 1}),
        ("volume.json", b"7", {"kept": 1, "made": 1}),
        ("volume.json", b'{"format": "patchatlas.volume-cache", "version": 1}', {"kept": 1, "made": 1}),
        ("volume.json", b"\xff\xfe", {"kept": 1, "made": 1}),
    ],
)
def test_broken_entries_are_mended(source, tmp_path, name, content, how):
    index_volumes([source], tmp_path / "cache")
    want = contents(tmp_path / "cache")
    first, _ = sorted((tmp_path / "cache" / "volumes").iterdir())
    (first / name).write_bytes(content)
    assert index_volumes([source], tmp_path / "cache").how == how
    assert contents(tmp_path / "cache") == want


@pytest.mark.parametrize("key", ["record", "drawing", "counting", "state"])
def test_descriptions_that_lack_something_are_made_again(source, tmp_path, key):
    index_volumes([source], tmp_path / "cache")
    first, _ = sorted((tmp_path / "cache" / "volumes").iterdir())
    told = json.loads((first / "volume.json").read_text())
    del told[key]
    (first / "volume.json").write_text(json.dumps(told))
    assert index_volumes([source], tmp_path / "cache").how == {"kept": 1, "made": 1}


@pytest.mark.parametrize(
    ("key", "value"),
    [("files", None), ("files", []), ("mask", []), ("mask", "x"), ("mask", {"source": "a"})],
)
def test_descriptions_that_hold_something_else_are_made_again(source, tmp_path, key, value):
    index_volumes([source], tmp_path / "cache")
    first, _ = sorted((tmp_path / "cache" / "volumes").iterdir())
    told = json.loads((first / "volume.json").read_text())
    (first / "volume.json").write_text(json.dumps(told | {key: value}))
    assert index_volumes([source], tmp_path / "cache").how == {"kept": 1, "made": 1}


@contextmanager
def unreadable(file: Path, *, times: int = 1000) -> Iterator[None]:
    """A bad sector below one file, for so many times that it is read."""
    real_open, real_bytes = Path.open, Path.read_bytes
    left = [times]

    def fail(path: Path) -> None:
        if path == file and left[0]:
            left[0] -= 1
            raise OSError(5, "Input/output error", str(path))

    def open_(path: Path, *args, **kwargs):
        fail(path)
        return real_open(path, *args, **kwargs)

    def read_bytes(path: Path) -> bytes:
        fail(path)
        return real_bytes(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", open_)
        patch.setattr(Path, "read_bytes", read_bytes)
        yield


@pytest.mark.parametrize(("name", "how"), [("volume.json", "made"), ("values.b2nd", "made"), ("tables.npz", "counted")])
def test_files_of_the_cache_that_cannot_be_read_are_made_again(source, tmp_path, name, how):
    cache = tmp_path / "cache"
    index_volumes([source], cache)
    want = contents(cache)
    first, _ = sorted((cache / "volumes").iterdir())
    with unreadable(first / name, times=1):
        assert index_volumes([source], cache, verify=True).how == {"kept": 1, how: 1}
    assert contents(cache) == want


def test_a_disk_that_goes_on_failing_is_told(source, tmp_path):
    cache = tmp_path / "cache"
    index_volumes([source], cache)
    first, _ = sorted((cache / "volumes").iterdir())
    failed = r"the disk failed at a\.nii\.gz in .*Input/output error.*run again"
    with unreadable(first / "tables.npz"), pytest.raises(ResourceError, match=failed):
        index_volumes([source], cache)
    assert index_volumes([source], cache).how == {"kept": 2}


def test_an_entry_of_no_source_that_cannot_be_read_stays(source, tmp_path):
    cache = tmp_path / "cache"
    index_volumes([source], cache)
    _, second = sorted((cache / "volumes").iterdir())
    (source / "b.nii").unlink()
    with unreadable(second / "volume.json"):
        report = index_volumes([source], cache)
    assert (report.how, len(report.left_over)) == ({"kept": 1}, 1)


def test_entries_of_before_there_were_hashes_are_counted_once_again(source, tmp_path):
    cache = tmp_path / "cache"
    index_volumes([source], cache)
    want = contents(cache)
    for path in cache.glob("volumes/*/volume.json"):
        told = json.loads(path.read_text())
        del told["files"]
        path.write_text(json.dumps(told))
    assert len(open_cache(cache).records) == 2
    assert index_volumes([source], cache).how == {"counted": 2}
    assert contents(cache) == want
    assert index_volumes([source], cache).how == {"kept": 2}


def test_values_that_changed_are_made_again_where_they_are_looked_at(source, tmp_path):
    cache = tmp_path / "cache"
    index_volumes([source], cache)
    want = contents(cache)
    first, _ = sorted((cache / "volumes").iterdir())
    content = bytearray((first / "values.b2nd").read_bytes())
    content[len(content) // 2] ^= 1
    (first / "values.b2nd").write_bytes(content)
    assert index_volumes([source], cache).how == {"kept": 2}  # not looked at
    assert index_volumes([source], cache, verify=True).how == {"kept": 1, "made": 1}
    assert contents(cache) == want
    (first / "values.b2nd").write_bytes(content)
    fine = IndexSettings(counting=Counting(cell_zyx=(4, 4, 4)))
    assert index_volumes([source], cache, fine).how == {"counted": 1, "made": 1}


def test_names_that_are_not_utf8(source, tmp_path):
    raw = os.fsencode(source) + b"/M\xfcller.nii"
    os.rename(source / "b.nii", raw)
    Path(os.fsdecode(os.fsencode(source) + b"/\xfcber.npy")).write_bytes(b"no array")
    report = index_volumes([source], tmp_path / "cache")
    assert [record.source for record in report.cache.records] == [r"M\xfcller.nii", "a.nii.gz"]
    assert reasons(report) == {r"\xfcber.npy": "damaged"}
    assert rb"skipped \xfcber.npy" in "\n".join(report.lines()).encode()
    assert index_volumes([source], tmp_path / "cache").how == {"kept": 2}


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_disk_that_takes_no_more_is_told(source, tmp_path):
    with file_limit(2000), pytest.raises(ResourceError, match="larger than files may be"):
        index_volumes([source], tmp_path / "cache")
    assert list((tmp_path / "cache" / "volumes").iterdir()) == []
    assert index_volumes([source], tmp_path / "cache").how == {"made": 2}


def test_want_of_memory_names_the_volume(source, tmp_path, monkeypatch):
    def large(*_: object) -> None:
        raise MemoryError("Unable to allocate 64 TiB")

    monkeypatch.setattr(entry, "read_source", large)
    with pytest.raises(ResourceError, match=r"not enough memory for a\.nii\.gz \(Unable to allocate 64 TiB\)"):
        index_volumes([source], tmp_path / "cache")


def test_what_others_leave_in_the_folder_stays(source, tmp_path):
    volumes = tmp_path / "cache" / "volumes"
    index_volumes([source], tmp_path / "cache")
    (volumes / ".DS_Store").write_bytes(b"hello")
    (volumes / ".thumbnails").mkdir()
    (volumes / ".x.part").write_bytes(b"hello")
    report = index_volumes([source], tmp_path / "cache")
    assert report.how == {"kept": 2}
    assert report.left_over == ()
    assert {path.name for path in volumes.glob(".*")} == {".DS_Store", ".thumbnails", ".x.part"}


def test_links_to_themselves_and_pipes_are_listed(source, tmp_path):
    (source / "loop.nii").symlink_to("loop.nii")
    (source / "loop.dcm").symlink_to("loop.dcm")
    os.mkfifo(source / "pipe.nii")
    os.mkfifo(source / "pipe")
    report = index_volumes([source], tmp_path / "cache")
    assert reasons(report) == {"loop.nii": "unreadable", "loop.dcm": "unreadable", "pipe.nii": "not_a_volume"}
    assert report.ignored == {"no suffix": 1}
    assert len(report.cache.records) == 2


def test_a_lock_that_may_not_be_taken_is_told(source, tmp_path, monkeypatch):
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", ".lock")

    monkeypatch.setattr(index, "lock_folder", refused)
    with pytest.raises(ResourceError, match="may not be written"):
        index_volumes([source], tmp_path / "cache")


def test_another_folder_beside_the_first_reads_none_again(source, tmp_path):
    cache = tmp_path / "cache"
    other = tmp_path / "other"
    other.mkdir()
    write_nifti(other / "a.nii.gz", values(5))
    index_volumes([source], cache)
    alone = contents(cache)
    report = index_volumes([source, other], cache)
    assert report.how == {"kept": 2, "made": 1}
    assert report.left_over == ()
    assert [record.source for record in report.cache.records] == ["source/a.nii.gz", "source/b.nii", "other/a.nii.gz"]
    index_volumes([source, other], tmp_path / "fresh")
    assert contents(cache) == contents(tmp_path / "fresh")
    report = index_volumes([source], cache)
    assert report.how == {"kept": 2}
    assert len(report.left_over) == 1
    assert {name: content for name, content in contents(cache).items() if "other" not in name} == alone


def test_an_entry_of_other_files_is_not_taken_over(source, tmp_path):
    cache = tmp_path / "cache"
    index_volumes([source], cache)
    write_nifti(source / "b.nii", values(6))  # written since
    other = tmp_path / "other"
    other.mkdir()
    write_nifti(other / "c.nii", values(5))
    report = index_volumes([source, other], cache)
    assert report.how == {"kept": 1, "made": 2}
    np.testing.assert_array_equal(report.cache.read(report.cache.records[1], (0, 0, 0), SIZE), values(6))
