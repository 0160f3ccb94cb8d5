"""Tar files whose bytes depend on their members alone."""

import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchatlas.io.tar import BLOCK, TarWriter, first_member, hash_of_tar, layout, part_file

NAMES = ["a.json", "a.cls.npy", "x" * 140 + ".npy", "größe-漢字.json", "__shard__"]


def written(members: list[tuple[str, bytes]]) -> tuple[bytes, str]:
    handle = io.BytesIO()
    tar = TarWriter(handle)
    for name, content in members:
        tar.add(name, content)
    sha256 = tar.finish()
    return handle.getvalue(), sha256


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.binary(max_size=1500)), max_size=6))
def test_layout_says_where_each_member_will_lie(members: list[tuple[str, bytes]]) -> None:
    content, sha256 = written(members)
    places, size = layout([(name, len(data)) for name, data in members])
    assert size == len(content)
    assert sha256 == hashlib.sha256(content).hexdigest()
    for (_, data), place in zip(members, places, strict=True):
        assert content[place.offset : place.offset + place.size] == data
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        infos = archive.getmembers()
        assert [(info.name, info.offset_data, info.size) for info in infos] == [
            (name, place.offset, len(data)) for (name, data), place in zip(members, places, strict=True)
        ]
        assert all((info.mtime, info.uid, info.gid, info.mode) == (0, 0, 0, 0o644) for info in infos)
        assert all((info.uname, info.gname) == ("", "") for info in infos)


def test_bytes_worked_by_hand() -> None:
    content, _ = written([("a.txt", b"abc")])
    assert len(content) == 4 * BLOCK  # header, content, two blocks of zeros
    assert content[:5] == b"a.txt"
    assert content[100:108] == b"0000644\0"
    assert content[124:136] == b"00000000003\0"
    assert content[136:148] == b"00000000000\0"
    assert content[BLOCK : BLOCK + 4] == b"abc\0"
    assert content[2 * BLOCK :] == bytes(2 * BLOCK)


def test_part_file_leaves_nothing_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "shard-000000.tar"
    path.write_bytes(b"old")

    def broken() -> None:
        with part_file(path) as handle:
            handle.write(b"new")
            assert (tmp_path / "shard-000000.tar.part").is_file()
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert [p.name for p in tmp_path.iterdir()] == ["shard-000000.tar"]
    assert path.read_bytes() == b"old"
    (tmp_path / "link").hardlink_to(path)
    with part_file(path) as handle:
        handle.write(b"new")
    assert (tmp_path / "link").read_bytes() == b"old"  # renamed over, not written into
    (tmp_path / "link").unlink()
    assert [p.name for p in tmp_path.iterdir()] == ["shard-000000.tar"]
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("content", [b"", b"no tar at all", bytes(1024)], ids=["empty", "text", "no members"])
def test_first_member_of_what_is_no_tar(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(content)
    assert first_member(path) is None


def test_first_member(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    content, _ = written([("one", b"first" * 300), ("two", b"second")])
    path.write_bytes(content)
    assert first_member(path) == ("one", b"first" * 300)
    path.write_bytes(content[:700])
    assert first_member(path) is None


def test_a_tar_is_known_to_the_last_bit(tmp_path: Path) -> None:
    """Whichever bit flips, and whatever is cut off or added."""
    members = [("one", b"first"), ("x" * 140, b""), ("two", b"s" * 512)]
    content, digest = written(members)
    path = tmp_path / "x.tar"
    expected = [(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in members]
    path.write_bytes(content)
    assert hash_of_tar(path, expected) == digest
    assert hash_of_tar(path, expected[:2]) is None
    for at in range(0, len(content), 7):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert hash_of_tar(path, expected) is None, at
    for other in (b"", content[:-1], content + b"\0", content[:600]):
        path.write_bytes(other)
        assert hash_of_tar(path, expected) is None
