"""The index of shards, and reading members by their place."""

import copy
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchatlas.errors import FormatError, InputError, StampError
from patchatlas.io.shards import (
    FORMAT,
    INDEX,
    STAMP_MEMBER,
    VERSION,
    WHOLE,
    Column,
    Kind,
    Shard,
    ShardFile,
    ShardIndex,
    ShardReader,
    read_index,
    shard_plan,
    write_index,
)
from patchatlas.io.tar import TarWriter, part_file
from patchatlas.stamp import Stamp

STAMP = Stamp((("layer", 3), ("patch", (16, 16))))
CONTENT = bytes(range(256)) * 8


def make(folder: Path, shards: int = 3) -> ShardIndex:
    """Shards of one sample each, whose only feature is `CONTENT`."""
    kinds = {"patches": Kind(suffix=".npy", dtype="fp16", dim=4, layout="tokens", stamp=STAMP.digest)}
    made = []
    for k in range(shards):
        path = folder / "bucket_64x64" / f"shard-{k:06d}.tar"
        path.parent.mkdir(exist_ok=True)
        head = {"format": FORMAT, "version": VERSION, "plan": f"plan {k}"}
        head |= {"kinds": {"patches": vars(kinds["patches"])}, "stamps": {STAMP.digest: json.loads(STAMP.to_json())}}
        with part_file(path) as handle:
            tar = TarWriter(handle)
            tar.add(STAMP_MEMBER, json.dumps(head).encode())
            record_at = handle.tell() + 512
            tar.add(f"s{k}.json", b"{}")
            at = handle.tell() + 512
            tar.add(f"s{k}.patches.npy", CONTENT)
            sha256 = tar.finish()
        file = ShardFile(path.relative_to(folder).as_posix(), path.stat().st_size, sha256, f"plan {k}")
        columns = {
            "json": Column(WHOLE, np.array([record_at]), np.array([2])),
            "patches": Column(WHOLE, np.array([at]), np.array([len(CONTENT)]), np.array([[2, 3]])),
        }
        made.append(Shard("64x64", (f"s{k}",), {WHOLE: file}, columns))
    index = ShardIndex(kinds=kinds, stamps={STAMP.digest: STAMP}, shards=tuple(made), skipped=(("bad", "why"),))
    write_index(folder, index)
    return index


def test_an_index_comes_back(tmp_path: Path) -> None:
    index = make(tmp_path)
    read = read_index(tmp_path, expect={"patches": STAMP})
    assert read.to_json() == index.to_json()
    assert (read.samples, read.skipped, read.stamp("patches")) == (3, (("bad", "why"),), STAMP)
    with pytest.raises(InputError, match="hold no clip; they hold patches"):
        read.stamp("clip")
    with pytest.raises(StampError, match="layer: 4 and 3"):
        read_index(tmp_path, expect={"patches": Stamp((("layer", 4), ("patch", (16, 16))))})


def change(stored: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one value changed; `path` has dots between keys."""
    stored = copy.deepcopy(stored)
    *keys, last = path.split(".")
    at: Any = stored
    for key in keys:
        at = at[int(key)] if isinstance(at, list) else at[key or WHOLE]
    at[int(last) if isinstance(at, list) else last] = value
    return stored


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format", "tar", "format 'tar'"),
        ("version", 2, "version 2"),
        ("shards.0.ids", ["s1"], "an image id is there twice"),
        ("shards.0.ids", ["s0", "s9"], "1 offsets and 1 sizes for 2 samples"),
        ("shards.0.columns.patches.offset", [10**9], "lies outside its file"),
        ("shards.0.columns.patches.offset", [-1], "lies outside its file"),
        ("shards.0.columns", {}, r"holds \[\], the index names"),
        ("shards.0.files..path", "../other.tar", "lies outside the folder"),
        ("shards.0.files..path", "/etc/passwd", "lies outside the folder"),
        ("kinds.patches.stamp", "f" * 64, "is named and not there"),
        (f"stamps.{STAMP.digest}.layer", 5, "has the digest"),
        ("shards", None, "cannot be read as an index"),
        ("kinds.patches.colour", "red", "cannot be read as an index"),
    ],
)
def test_a_damaged_index_is_refused(tmp_path: Path, path: str, value: Any, message: str) -> None:
    stored = change(make(tmp_path).to_json(), path, value)
    (tmp_path / INDEX).write_text(json.dumps(stored))
    with pytest.raises((FormatError, StampError), match=message):
        read_index(tmp_path)


def test_an_index_that_is_no_json(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / INDEX).write_text('{"format": ')
    with pytest.raises(FormatError, match="cannot be read as an index"):
        read_index(tmp_path)


def test_reading_by_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = make(tmp_path)
    reader = ShardReader(tmp_path, index, most_open=1)
    for shard in [*index.shards, *index.shards]:
        file, column = shard.files[WHOLE], shard.columns["patches"]
        assert reader.read(file, int(column.offset[0]), int(column.size[0])) == CONTENT
    assert len(reader._open) == 1

    # However little the system gives at a time, everything arrives, and in its place.
    whole = os.preadv

    def little(handle: int, buffers: list[memoryview], offset: int) -> int:
        return whole(handle, [buffers[0][:100]], offset)

    monkeypatch.setattr(os, "preadv", little)
    first, second = bytearray(130), bytearray(1000)
    file, column = index.shards[0].files[WHOLE], index.shards[0].columns["patches"]
    reader.read_into(file, int(column.offset[0]), [memoryview(first), memoryview(b""), memoryview(second)])
    assert bytes(first + second) == CONTENT[:1130]
    with pytest.raises(FormatError, match="ends at byte"):
        reader.read(file, file.size - 10, 11)
    reader.close()
    assert not reader._open


def test_a_reader_travels_without_its_open_files(tmp_path: Path) -> None:
    index = make(tmp_path)
    reader = ShardReader(tmp_path, index)
    file, column = index.shards[0].files[WHOLE], index.shards[0].columns["patches"]
    reader.read(file, 0, 10)
    other = pickle.loads(pickle.dumps(reader))
    assert not other._open
    assert other.read(file, int(column.offset[0]), 256) == CONTENT[:256]


def test_plan_of_a_file(tmp_path: Path) -> None:
    make(tmp_path)
    assert shard_plan(tmp_path / "bucket_64x64" / "shard-000001.tar") == "plan 1"
    for first, content in (("other", b"{}"), (STAMP_MEMBER, b"no json"), (STAMP_MEMBER, b'{"format": "other"}')):
        with part_file(tmp_path / "x.tar") as handle:
            tar = TarWriter(handle)
            tar.add(first, content)
            tar.finish()
        assert shard_plan(tmp_path / "x.tar") is None
