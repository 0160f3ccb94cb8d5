"""Packing features into shards."""

import gc
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset
from filelock import FileLock

from patchatlas.datasets import pack as packing
from patchatlas.datasets.pack import LOCK, pack
from patchatlas.errors import FormatError, InputError, ResourceError, StampError, UsageError
from patchatlas.io.manifest import Record
from patchatlas.io.shards import INDEX, RECORD, STAMP_MEMBER, ShardReader, read_index, shard_head
from tests.datasets import shard_sets as sets

SMALL_MB = 0.03
"""Three to four samples a shard."""


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != LOCK
    }


@pytest.fixture(scope="module")
def derived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("built")


@pytest.fixture(scope="module")
def records(derived: Path) -> list[Record]:
    return sets.build_set(derived, 20)


def read_with_webdataset(folder: Path, pattern: str = "*/*.tar") -> list[dict[str, Any]]:
    urls = [str(path) for path in sorted(folder.glob(pattern))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset 1.0.2 leaves its files to the garbage collector
        samples = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode())
        gc.collect()
    return samples


def test_webdataset_reads_every_sample(derived: Path, records: list[Record], tmp_path: Path) -> None:
    pack(records, derived, tmp_path, max_mb=SMALL_MB)
    samples = read_with_webdataset(tmp_path)
    assert sorted(sample["__key__"] for sample in samples) == sorted(record.image_id for record in records)
    for sample in samples:
        number = sets.number_of(sample["__key__"])
        assert {name for name in sample if not name.startswith("__")} == {"json", *(f"{k}.npy" for k in sets.KINDS)}
        bucket = next(r.aspect_bucket for r in records if r.image_id == sample["__key__"])
        assert bucket is not None
        for kind, expected in sets.features(number, bucket).items():
            torch.testing.assert_close(torch.from_numpy(sample[f"{kind}.npy"]), expected, rtol=0, atol=0)
        assert sample["json"]["caption"] == f"picture number {number}"
        assert sample["json"]["aspect_bucket"] == f"{bucket[1]}x{bucket[0]}"
        assert sample["json"]["features"][sets.PATCHES]["grid"] == [bucket[0] // 16, bucket[1] // 16]
        folder = Path(sample["__url__"]).parent.name
        assert folder == f"bucket_{bucket[1]}x{bucket[0]}"


def test_a_shard_member_with_a_suffix_would_break_webdataset(tmp_path: Path) -> None:
    """Why the stamps are in `__shard__`: `_shard.json` comes out as a sample without features."""
    from patchatlas.io.tar import TarWriter, part_file

    for first in ("_shard.json", STAMP_MEMBER):
        with part_file(tmp_path / f"{first}.tar") as handle:
            tar = TarWriter(handle)
            tar.add(first, b"{}")
            tar.add("a.json", b"{}")
            tar.finish()
    assert [s["__key__"] for s in read_with_webdataset(tmp_path, "_shard.json.tar")] == ["_shard", "a"]
    assert [s["__key__"] for s in read_with_webdataset(tmp_path, "__shard__.tar")] == ["a"]


def test_the_first_member_of_each_shard_holds_the_stamps_in_full(
    derived: Path, records: list[Record], tmp_path: Path
) -> None:
    pack(records, derived, tmp_path, max_mb=SMALL_MB)
    for path in tmp_path.glob("*/*.tar"):
        with tarfile.open(path) as archive:
            info = archive.next()
            assert info is not None
            assert info.name == STAMP_MEMBER
            content = archive.extractfile(info)
            assert content is not None
            head = json.loads(content.read())
        assert head["format"] == "patchatlas.shards"
        assert head["version"] == 1
        made = sets.stamp(storage="fp32")
        assert set(head["kinds"]) == set(sets.KINDS)
        assert {facts["stamp"] for facts in head["kinds"].values()} == {made.digest}
        assert head["stamps"] == {made.digest: json.loads(made.to_json())}


def test_index_says_where_every_member_lies(derived: Path, records: list[Record], tmp_path: Path) -> None:
    report = pack(records, derived, tmp_path, max_mb=SMALL_MB)
    index = read_index(tmp_path)
    assert index.to_json() == report.index.to_json()
    assert index.samples == len(records)
    reader = ShardReader(tmp_path, index)
    seen = 0
    for shard in index.shards:
        (file,) = shard.files.values()
        path = tmp_path / file.path
        assert file.size == path.stat().st_size <= SMALL_MB * 1e6
        assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert list(shard.ids) == sorted(shard.ids)
        with tarfile.open(path) as archive:
            places = {info.name: (info.offset_data, info.size) for info in archive.getmembers()}
        for kind, column in shard.columns.items():
            for row, name in enumerate(shard.ids):
                suffix = "json" if kind == RECORD else f"{kind}.npy"
                assert places[f"{name}.{suffix}"] == (column.offset[row], column.size[row])
                seen += 1
        name = shard.ids[0]
        column = shard.columns[RECORD]
        content = reader.read(file, int(column.offset[0]), int(column.size[0]))
        assert json.loads(content)["image_id"] == name
    assert seen == len(records) * (1 + len(sets.KINDS))


def test_equal_bytes_for_any_order_of_the_manifest_and_any_run(
    derived: Path, records: list[Record], tmp_path: Path
) -> None:
    mixed = list(records)
    random.Random(5).shuffle(mixed)
    pack(records, derived, tmp_path / "a", max_mb=SMALL_MB)
    time.sleep(0.01)
    report = pack(mixed, derived, tmp_path / "b", max_mb=SMALL_MB)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    assert len(report.written) > 5
    # Once more over what is there: nothing is written.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "b").glob("*/*.tar")}
    again = pack(mixed, derived, tmp_path / "b", max_mb=SMALL_MB)
    assert again.written == ()
    assert again.kept == report.written
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "b").glob("*/*.tar")} == before


def test_split_writes_one_tar_a_kind_with_equal_samples(derived: Path, records: list[Record], tmp_path: Path) -> None:
    few = records[:9]
    pack(few, derived, tmp_path, max_mb=0.02, split=True)
    index = read_index(tmp_path)
    for shard in index.shards:
        assert set(shard.files) == {RECORD, *sets.KINDS}
        for kind, file in shard.files.items():
            keys = [s["__key__"] for s in read_with_webdataset(tmp_path, file.path)]
            assert keys == list(shard.ids)
            assert file.path.endswith(f".{kind}.tar")
    together = tmp_path / "together"
    pack(few, derived, together, max_mb=0.02)
    assert len(index.shards) < len(read_index(together).shards)  # the cap is on a file


def test_bug_9_ids_with_dots_are_refused(derived: Path, records: list[Record], tmp_path: Path) -> None:
    """`photo.v2.dinov3_patches.npy` is key `photo` to WebDataset, so `photo.v1` and `photo.v2` would be one sample."""
    with pytest.raises(FormatError, match="dot"):
        replace(records[0], image_id="photo.v2")  # the manifest refuses it already
    dotted = replace(records[0])
    object.__setattr__(dotted, "image_id", "photo.v2")
    report = pack([*records[1:], dotted], derived, tmp_path)
    assert [image_id for image_id, _ in report.index.skipped] == ["photo.v2"]
    assert "first dot" in report.index.skipped[0][1]
    assert all("." not in s["__key__"] for s in read_with_webdataset(tmp_path))
    with pytest.raises(FormatError, match="is there twice"):
        pack([records[0], records[0]], derived, tmp_path)


def test_bug_17_shards_are_capped_and_never_written_in_place(
    derived: Path, records: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = tmp_path / "shards"
    pack(records[:10], derived, shards, max_mb=SMALL_MB)
    old = hashes(shards)
    sizes = [path.stat().st_size for path in shards.glob("*/*.tar")]
    assert max(sizes) <= SMALL_MB * 1e6
    # One sample larger than the cap has a shard of its own.
    pack(records[:10], derived, tmp_path / "tiny", max_mb=0.001)
    assert len(list((tmp_path / "tiny").glob("*/*.tar"))) == 10

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(packing.TarWriter, "finish", full)
        with pytest.raises(ResourceError, match="the disk is full"):
            pack(records, derived, shards, max_mb=SMALL_MB)
    now = hashes(shards)
    assert not list(shards.glob("*/*.part"))
    assert INDEX not in now  # it spoke of files that were to be replaced
    assert {name: now[name] for name in now if name.endswith(".tar")} == {
        name: old[name] for name in old if name.endswith(".tar") and name in now
    }
    pack(records, derived, shards, max_mb=SMALL_MB)
    assert read_index(shards).samples == len(records)


def test_records_that_were_skipped_or_lack_a_feature_are_listed(
    derived: Path, records: list[Record], tmp_path: Path
) -> None:
    lacking = replace(records[1], features={k: records[1].features[k] for k in (sets.PATCHES, sets.CLS)})
    homeless = replace(records[2], aspect_bucket=None)
    report = pack([records[0], lacking, homeless, sets.skipped_record(99)], derived, tmp_path)
    assert report.index.samples == 1
    reasons = dict(report.index.skipped)
    assert reasons == dict(read_index(tmp_path).skipped)
    assert "lacks dinov3_registers, vae_latents" in reasons[lacking.image_id]
    assert "aspect_bucket not found, run with --pass-filter migrate" in reasons[homeless.image_id]
    assert "truncated" in reasons[sets.image_id(99)]
    two = pack([records[0], lacking], derived, tmp_path / "two", kinds=[sets.PATCHES, sets.CLS])
    assert (two.index.samples, two.index.skipped) == (2, ())
    with pytest.raises(InputError, match="lacks"):
        pack([records[0], lacking], derived, tmp_path / "strict", strict=True)
    with pytest.raises(InputError, match="none of 1 records can be packed; the first"):
        pack([homeless], derived, tmp_path / "none")
    with pytest.raises(UsageError, match="no record has clip"):
        pack(records, derived, tmp_path / "none", kinds=["clip"])


def test_damaged_files_are_listed_and_the_rest_is_as_if_they_had_never_been(tmp_path: Path) -> None:
    derived = tmp_path / "derived"
    records = sets.build_set(derived, 12)
    broken = derived / records[4].features[sets.PATCHES].file
    content = bytearray(broken.read_bytes())
    content[-1] ^= 1
    broken.write_bytes(content)
    short = derived / records[7].features[sets.CLS].file
    short.write_bytes(short.read_bytes()[:-4])
    (derived / records[9].features[sets.LATENTS].file).unlink()
    report = pack(records, derived, tmp_path / "a", max_mb=SMALL_MB)
    reasons = dict(report.index.skipped)
    assert set(reasons) == {records[i].image_id for i in (4, 7, 9)}
    assert "SHA-256" in reasons[records[4].image_id]
    whole = [record for record in records if record.image_id not in reasons]
    other = pack(whole, derived, tmp_path / "b", max_mb=SMALL_MB)
    assert [s.files for s in report.index.shards] == [s.files for s in other.index.shards]
    with pytest.raises(FormatError, match="SHA-256"):
        pack(records[:6], derived, tmp_path / "c", strict=True)


def test_a_mixed_set_is_refused_and_the_field_named(tmp_path: Path) -> None:
    derived = tmp_path / "derived"
    first = sets.build_set(derived, 3, kinds=[sets.PATCHES])
    # A second set beside the first: a store refuses to build it, so it comes from another folder.
    second = sets.build_set(tmp_path / "other", 3, kinds=[sets.PATCHES], layer=1, first=50)
    for folder in (tmp_path / "other").glob("dinov3_patches@*"):
        folder.rename(derived / folder.name)
    with pytest.raises(StampError, match="layer: 0 and 1"):
        pack([*first, *second], derived, tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


def test_kinds_that_lie_differently_in_their_pictures_are_refused(tmp_path: Path) -> None:
    derived = tmp_path / "derived"
    one = sets.build_set(derived, 3, kinds=[sets.PATCHES])
    latents = sets.build_set(derived, 3, kinds=[sets.LATENTS], buckets=sets.BUCKETS[:2])
    both = [replace(r, features={**r.features, **o.features}) for r, o in zip(one, latents, strict=True)]
    with pytest.raises(StampError, match=r"lie differently in their pictures \(buckets"):
        pack(both, derived, tmp_path / "shards")


def test_shards_of_other_features_are_not_replaced_unasked(tmp_path: Path) -> None:
    old = sets.build_set(tmp_path / "old", 6, kinds=[sets.PATCHES])
    new = sets.build_set(tmp_path / "new", 6, kinds=[sets.PATCHES], layer=1)
    shards = tmp_path / "shards"
    pack(old, tmp_path / "old", shards)
    before = hashes(shards)
    with pytest.raises(StampError, match=r"layer: 1 and 0.*--replace"):
        pack(new, tmp_path / "new", shards)
    assert hashes(shards) == before
    pack(new, tmp_path / "new", shards, replace_other=True)
    assert read_index(shards).stamp(sets.PATCHES) == sets.stamp(storage="fp32", layer=1)
    more_kinds = sets.build_set(tmp_path / "more", 6, kinds=[sets.PATCHES, sets.CLS], layer=1)
    with pytest.raises(StampError, match="holds shards of dinov3_patches"):
        pack(more_kinds, tmp_path / "more", shards)


def test_shards_that_are_no_longer_part_of_the_set_go(derived: Path, records: list[Record], tmp_path: Path) -> None:
    pack(records, derived, tmp_path, max_mb=SMALL_MB)
    many = len(list(tmp_path.glob("*/*.tar")))
    stranger = tmp_path / "bucket_64x64" / "shard-000900.tar"
    stranger.write_bytes(b"not ours")
    notes = tmp_path / "bucket_64x64" / "notes.txt"
    notes.write_text("keep")
    report = pack(records, derived, tmp_path, max_mb=100)
    assert len(report.removed) == many - 3
    assert sorted(p.name for p in tmp_path.glob("*/*")) == sorted(
        ["shard-000000.tar"] * 3 + [stranger.name, notes.name]
    )
    assert hashes(tmp_path)[INDEX]


def test_two_at_once_are_refused(derived: Path, records: list[Record], tmp_path: Path) -> None:
    with FileLock(tmp_path / LOCK), pytest.raises(ResourceError, match="another process packs"):
        pack(records, derived, tmp_path)


def test_a_changed_member_changes_the_plan(derived: Path, records: list[Record], tmp_path: Path) -> None:
    pack(records, derived, tmp_path, max_mb=SMALL_MB)
    renamed = [replace(r, caption="PICTURE number 3") if r is records[3] else r for r in records]
    report = pack(renamed, derived, tmp_path, max_mb=SMALL_MB)
    assert len(report.written) == 1
    (changed,) = [s for s in read_with_webdataset(tmp_path) if s["__key__"] == records[3].image_id]
    assert changed["json"]["caption"] == "PICTURE number 3"


KILLED = """
import os, signal, sys
from pathlib import Path
from patchatlas.datasets import pack as packing
from patchatlas.io import tar
from patchatlas.io.manifest import read_manifest
left = int(sys.argv[4])
def hurt():
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
def before(call):
    def wrapped(*args, **kwargs):
        hurt()
        return call(*args, **kwargs)
    return wrapped
tar.TarWriter.add = before(tar.TarWriter.add)
tar.TarWriter.finish = before(tar.TarWriter.finish)
os.fsync = before(os.fsync)
os.replace = before(os.replace)
Path.replace = before(Path.replace)
Path.unlink = before(Path.unlink)
packing.pack(read_manifest(sys.argv[1]), sys.argv[2], sys.argv[3], max_mb=0.03)
print("unhurt", left)
"""


@pytest.mark.slow
def test_killed_anywhere_a_rerun_ends_in_the_same_bytes(derived: Path, records: list[Record], tmp_path: Path) -> None:
    from patchatlas.io.manifest import write_manifest

    manifest = tmp_path / "manifest.jsonl"
    write_manifest(manifest, records)
    pack(records, derived, tmp_path / "whole", max_mb=SMALL_MB)
    expected = hashes(tmp_path / "whole")
    points = 0
    for point in range(0, 400, 9):
        target = tmp_path / f"killed{point}"
        command = [sys.executable, "-c", KILLED, str(manifest), str(derived), str(target), str(point)]
        done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        points += 1
        finished = {name for name in hashes(target) if name.endswith(".tar")}
        assert all(hashes(target)[name] == expected[name] for name in finished)
        report = pack(records, derived, target, max_mb=SMALL_MB)
        assert set(report.kept) == finished
        assert hashes(target) == expected
    assert points >= 10


def test_int8_and_bf16_are_packed_as_they_are(tmp_path: Path) -> None:
    for storage in ("bf16", "int8"):
        records = sets.build_set(tmp_path / storage, 4, kinds=[sets.PATCHES, sets.CLS], storage=storage)
        index = pack(records, tmp_path / storage, tmp_path / f"{storage}-shards").index
        assert index.kinds[sets.PATCHES].suffix == ".safetensors"
        assert index.kinds[sets.PATCHES].dtype == storage
        assert index.kinds[sets.CLS].dtype == "fp32"
        sample = read_with_webdataset(tmp_path / f"{storage}-shards")[0]
        assert isinstance(sample["dinov3_patches.safetensors"], bytes)
        assert sample["dinov3_cls.npy"].dtype == np.float32


def test_exchanged_entries_are_not_packed(tmp_path: Path) -> None:
    derived = tmp_path / "derived"
    records = sets.build_set(derived, 3)
    exchanged = [
        replace(records[0], features=records[1].features),
        replace(records[1], features=records[0].features),
        replace(records[2], features={**records[2].features, sets.REGISTERS: records[2].features[sets.CLS]}),
    ]
    with pytest.raises(InputError, match=r"names .*\.npy as dinov3_cls of photo_.* build again"):
        pack(exchanged, derived, tmp_path / "shards")


@pytest.mark.parametrize("with_index", [True, False])
@pytest.mark.parametrize("where", [100, 600, 3000, -2000, -1])
def test_a_shard_that_has_decayed_is_written_again(
    derived: Path, records: list[Record], tmp_path: Path, where: int, with_index: bool
) -> None:
    """One flipped bit in a header, the first member, a feature, or the zeros at the end."""
    report = pack(records, derived, tmp_path, max_mb=SMALL_MB)
    whole = hashes(tmp_path)
    path = tmp_path / report.written[1]
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    if not with_index:
        (tmp_path / INDEX).unlink()
    again = pack(records, derived, tmp_path, max_mb=SMALL_MB)
    assert again.written == (report.written[1],)
    assert len(again.kept) == len(report.written) - 1
    assert hashes(tmp_path) == whole


def test_the_tar_of_the_records_says_how_their_features_were_made(
    derived: Path, records: list[Record], tmp_path: Path
) -> None:
    pack(records[:3], derived, tmp_path, split=True)
    made = sets.stamp(storage="fp32")
    for path in tmp_path.glob("*/*.tar"):
        head = shard_head(path)
        assert head is not None
        assert set(head["stamps"]) == {made.digest}
        assert set(head["kinds"]) == (set(sets.KINDS) if head["part"] == RECORD else {head["part"]})
