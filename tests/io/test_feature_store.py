"""The store: sets that never mix, files that are whole or absent, and an owner for every leftover."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from patchatlas import files
from patchatlas.cli.main import exit_code
from patchatlas.encoders.fake import FakeEncoder
from patchatlas.errors import FormatError, InputError, ResourceError, StampError
from patchatlas.io.codecs import encode_array
from patchatlas.io.feature_store import FeatureStore, SetHeader
from patchatlas.io.manifest import FeatureEntry
from patchatlas.stamp import Stamp

SPEC = FakeEncoder().spec
KIND = "fake_patches"


def stamp(**facts: str) -> Stamp:
    return Stamp.of(SPEC, **{"storage": "fp32", "buckets": "64x64", "bucket_rule": "log", **facts})


def tokens(seed: int = 0) -> torch.Tensor:
    return torch.randn(6, 3, generator=torch.Generator().manual_seed(seed))


def opened(store: FeatureStore, made: Stamp, *, backup_old: bool = False):
    return store.open_set(KIND, made, spec=SPEC, config={"pass": "encoder"}, backup_old=backup_old)


def written(store: FeatureStore, made: Stamp, image_id: str = "a", *, seed: int = 0) -> FeatureEntry:
    return store.write(KIND, made, image_id, encode_array(tokens(seed), "fp32"), grid=(2, 3), dim=3, dtype="fp32")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeatureStore]:
    with FeatureStore(tmp_path / "derived") as made:
        yield made


def test_what_was_written_is_read_and_its_entry_says_all(store):
    opened(store, stamp())
    entry = written(store, stamp())
    assert entry.file == f"fake_patches@{stamp().digest[:8]}/a.npy"
    assert (entry.grid, entry.dim, entry.dtype, entry.bytes) == ((2, 3), 3, "fp32", 128 + 6 * 3 * 4)
    assert entry.stamp == stamp().digest
    assert torch.equal(store.read(entry, check_hash=True), tokens())


def test_the_header_says_in_full_what_made_the_set(store):
    folder = opened(store, stamp()).folder
    content = json.loads((folder / "_features.json").read_text())
    assert content["format"] == "patchatlas.feature-store"
    assert content["version"] == 1
    assert content["stamp"]["weights_sha256"] == SPEC.weights_sha256
    assert content["stamp_sha256"] == stamp().digest
    header = FeatureStore(store.derived_dir).header(folder)
    assert header == SetHeader(kind=KIND, stamp=stamp(), spec=SPEC, config={"pass": "encoder"}, package=header.package)
    assert store.stamp_of(folder) == stamp()
    assert store.sets() == store.sets(KIND) == [folder]
    assert store.sets("other") == []


def test_opening_again_changes_no_byte(store):
    folder = opened(store, stamp()).folder
    before = (folder / "_features.json").stat().st_mtime_ns
    written(store, stamp())
    again = opened(FeatureStore(store.derived_dir), stamp())
    assert again.folder == folder
    assert again.moved == ()
    assert (folder / "_features.json").stat().st_mtime_ns == before


# -- sets made in different ways --------------------------------------------------------------------------------------


def test_bug_6_an_older_set_is_never_mixed_with_a_new_one(store):
    """The earlier project's restart wiped all but the patches, so old and new patches lay in one folder."""
    old = opened(store, stamp()).folder
    entry = written(store, stamp())
    with pytest.raises(StampError, match=r"storage: 'fp32' and 'fp16'.*--backup-old"):
        opened(store, stamp(storage="fp16"))
    assert not store.folder(KIND, stamp(storage="fp16")).exists()
    content = (old / "a.npy").read_bytes()

    result = opened(store, stamp(storage="fp16"), backup_old=True)
    aside = store.derived_dir / "_old" / old.name
    assert result.moved == ((old, aside),)
    assert (aside / "a.npy").read_bytes() == content  # aside, not deleted
    assert [p.name for p in result.folder.iterdir()] == ["_features.json"]
    assert store.sets() == [result.folder]
    with pytest.raises(FormatError, match=r"no _features\.json"):
        store.read(entry)


def test_bug_14_another_bucket_table_is_another_set(store):
    """The earlier project re-assigned buckets while files kept the old shape; the table is part of the stamp."""
    opened(store, stamp())
    with pytest.raises(StampError, match="buckets: '64x64' and '64x64,96x64'"):
        opened(store, stamp(buckets="64x64,96x64"))
    with pytest.raises(StampError, match="bucket_rule: 'log' and 'linear'"):
        opened(store, stamp(bucket_rule="linear"))


def test_every_fact_that_differs_is_named(store):
    opened(store, stamp())
    with pytest.raises(StampError, match=r"buckets: .*storage: ") as caught:
        opened(store, stamp(buckets="32x32", storage="int8"))
    assert "bucket_rule" not in str(caught.value)
    assert exit_code(caught.value) == 4


def test_sets_moved_aside_keep_apart(store):
    for _ in range(3):
        opened(store, stamp())
        opened(store, stamp(storage="fp16"), backup_old=True)
        opened(store, stamp(), backup_old=True)
    names = sorted(p.name.split("@")[1][8:] for p in (store.derived_dir / "_old").iterdir())
    assert names == ["", "", ".2", ".2", ".3", ".3"]


def test_other_kinds_are_left_alone(store):
    opened(store, stamp())
    store.open_set("fake_cls", stamp(storage="fp16"), spec=SPEC, config={}, backup_old=True)
    assert len(store.sets()) == 2


def test_an_entry_of_another_stamp_than_its_folder_is_refused(store):
    opened(store, stamp())
    entry = written(store, stamp())
    with pytest.raises(StampError, match="made under stamp 00000000"):
        store.read(replace(entry, stamp="0" * 64))


def test_a_stamp_changed_by_hand_is_refused(store):
    folder = opened(store, stamp()).folder
    path = folder / "_features.json"
    path.write_text(path.read_text().replace('"storage": "fp32"', '"storage": "fp16"'))
    with pytest.raises(FormatError, match="digest"):
        FeatureStore(store.derived_dir).header(folder)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"patchatlas.feature-store"', '"other"', "format"),
        ('"version": 1', '"version": 2', "version 2"),
        ('"kind": "fake_patches"', '"kind": "fake_cls"', "speaks of fake_cls@"),
        ('"stamp": {', '"stump": {', "cannot be read"),
        ("{", "", "cannot be read"),
    ],
)
def test_a_damaged_header_is_refused_by_name(store, before, after, message):
    folder = opened(store, stamp()).folder
    path = folder / "_features.json"
    path.write_text(path.read_text().replace(before, after, 1))
    fresh = FeatureStore(store.derived_dir)
    with pytest.raises(FormatError, match=message) as caught:
        opened(fresh, stamp())
    assert "_features.json" in str(caught.value)
    with pytest.raises(FormatError, match="--backup-old"):
        opened(FeatureStore(store.derived_dir), stamp(storage="fp16"))
    assert opened(fresh, stamp(storage="fp16"), backup_old=True).moved


def test_features_without_a_header_are_refused(store):
    folder = opened(store, stamp()).folder
    written(store, stamp())
    (folder / "_features.json").unlink()
    with pytest.raises(FormatError, match="nobody knows"):
        opened(FeatureStore(store.derived_dir), stamp())


# -- files ------------------------------------------------------------------------------------------------------------


def test_bug_8_a_truncated_file_does_not_count_as_done(store):
    """The earlier project wrote onto the final name and took any file that was there for a finished one."""
    opened(store, stamp())
    entry = written(store, stamp())
    path = store.path(entry)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError, match="199 bytes, the manifest says 200"):
        store.read(entry)
    path.unlink()
    with pytest.raises(InputError, match="build again"):
        store.read(entry)


def test_bug_7_header_grid_and_hash_of_patches_are_looked_at(store):
    """The earlier project's check never opened the patches, or counted them only: 2 x 3 and 3 x 2 are both 6."""
    opened(store, stamp())
    entry = written(store, stamp())
    path = store.path(entry)
    with pytest.raises(FormatError, match=r"grid \(2, 4\)"):
        store.read(replace(entry, grid=(2, 4)))
    with pytest.raises(FormatError, match="dim 4"):
        store.read(replace(entry, dim=4))
    with pytest.raises(FormatError, match="the manifest says fp16"):
        store.read(replace(entry, dtype="fp16"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(FormatError, match="SHA-256"):
        store.read(entry, check_hash=True)
    path.write_bytes(b"\0" * len(content))
    with pytest.raises(FormatError, match="damaged or no file of features"):
        store.read(entry)


def test_bug_17_a_file_gets_its_name_only_when_it_is_whole(store, monkeypatch):
    """The earlier project removed the old file and wrote the new one in place."""
    opened(store, stamp())
    entry = written(store, stamp())
    old = store.path(entry).read_bytes()
    seen = []

    def stopped(_: int) -> None:
        seen.append(store.path(entry).read_bytes())
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stopped)
    with pytest.raises(KeyboardInterrupt):
        written(store, stamp(), seed=1)
    assert seen == [old]
    assert store.path(entry).read_bytes() == old
    assert sorted(p.name for p in store.path(entry).parent.iterdir()) == ["_features.json", "a.npy"]


@pytest.mark.parametrize("shape", [(3, 2, 4), (8, 3), (3,), (5, 3)])
def test_latents_cls_and_registers_have_their_own_shapes(store, shape):
    values = torch.ones(shape)
    grid = (2, 4) if shape in ((3, 2, 4), (8, 3)) else None
    opened(store, stamp())
    entry = store.write(KIND, stamp(), "a", encode_array(values, "fp32"), grid=grid, dim=3, dtype="fp32")
    assert torch.equal(store.read(entry), values)


@pytest.mark.parametrize("image_id", ["", "a.b", "a/b", "..", "a\\b", "a\nb", "\0"])
def test_an_id_that_cannot_name_a_file_is_refused(store, image_id):
    opened(store, stamp())
    with pytest.raises(FormatError, match="image id"):
        written(store, stamp(), image_id)


@pytest.mark.parametrize("file", ["../a.npy", "/etc/passwd", "a.npy", "x/../../a.npy", "x/..", "a\\b/c", ""])
def test_an_entry_cannot_lead_out_of_the_store(store, file):
    opened(store, stamp())
    with pytest.raises(FormatError, match="below the derived folder"):
        store.read(replace(written(store, stamp()), file=file))


def test_a_kind_that_cannot_name_a_folder_is_refused(store):
    with pytest.raises(FormatError, match="cannot name a kind"):
        store.open_set("a/b", stamp(), spec=SPEC, config={})


def test_reading_needs_no_lock_and_leaves_nothing(tmp_path):
    assert FeatureStore(tmp_path / "absent").sets() == []
    assert not (tmp_path / "absent").exists()


# -- full and read-only disks -----------------------------------------------------------------------------------------


@contextmanager
def only_files_below(size: int) -> Iterator[None]:
    """The system refuses larger files; Python ignores the signal, so the write fails with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_the_system_cuts_short_keeps_the_old_file(store):
    opened(store, stamp())
    small = written(store, stamp())
    old = store.path(small).read_bytes()
    large = encode_array(torch.ones(20_000, 3), "fp32")
    with only_files_below(100_000), pytest.raises(ResourceError, match="written before is intact") as caught:
        store.write(KIND, stamp(), "a", large, grid=(1, 20_000), dim=3, dtype="fp32")
    assert exit_code(caught.value) == 6
    assert store.path(small).read_bytes() == old
    assert sorted(p.name for p in store.path(small).parent.iterdir()) == ["_features.json", "a.npy"]
    assert store.write(KIND, stamp(), "a", large, grid=(1, 20_000), dim=3, dtype="fp32").bytes == len(large)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "may not be written"),
    ],
)
@pytest.mark.parametrize("where", ["write", "sync"])
def test_a_full_or_read_only_disk_is_exit_6_with_old_data_intact(store, monkeypatch, code, message, where):
    opened(store, stamp())
    entry = written(store, stamp())

    def refused(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.os, "write" if where == "write" else "fsync", refused)
    with pytest.raises(ResourceError, match=message) as caught:
        written(store, stamp(), seed=1)
    monkeypatch.undo()
    assert exit_code(caught.value) == 6
    assert str(store.path(entry)) in str(caught.value)
    assert torch.equal(store.read(entry, check_hash=True), tokens())
    assert not list(store.derived_dir.rglob("*.part*"))


def test_another_error_of_the_system_is_not_hidden(store, monkeypatch):
    opened(store, stamp())

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(files.os, "write", broken)
    with pytest.raises(OSError, match="broken"):
        written(store, stamp())


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of root, to whom no folder is read-only."""
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(mine)


def test_a_folder_without_permission_is_exit_6():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        with as_nobody(), pytest.raises(ResourceError, match="may not be written"):
            opened(FeatureStore(folder), stamp())
        with as_nobody(), pytest.raises(ResourceError, match="may not be written"):
            opened(FeatureStore(folder / "derived"), stamp())
        assert list(folder.iterdir()) == []
        folder.chmod(0o755)


# -- leftovers of killed writers --------------------------------------------------------------------------------------

WRITER = """
import sys, time
from pathlib import Path
from patchatlas.files import replacing
from patchatlas.io.writers import Writers
folder = Path(sys.argv[1])
Writers(folder)
with replacing(folder / sys.argv[2] / "b.npy") as temporary:
    temporary.write_bytes(b"half")
    print(temporary, flush=True)
    time.sleep(600)
"""


@contextmanager
def writer(folder: Path, below: str) -> Iterator[tuple[subprocess.Popen, Path]]:
    """Another process in the middle of a write, and its temporary file."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, folder, below], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())
    finally:
        process.kill()
        process.communicate()


def test_leftovers_of_the_dead_are_swept_and_files_of_the_living_are_not(tmp_path):
    derived = tmp_path / "derived"
    with FeatureStore(derived) as first:
        folder = opened(first, stamp()).folder
        written(first, stamp(), "b")
    (folder / ".mine.part").write_text("not a name of ours")
    content = (folder / "b.npy").read_bytes()

    earlier = FeatureStore(derived)
    opened(earlier, stamp())
    with writer(derived, folder.name) as (process, temporary):
        assert temporary.parent == folder
        earlier.close()
        assert temporary.is_file()
        with FeatureStore(derived) as second:
            assert opened(second, stamp()).swept == ()
        assert temporary.is_file()  # not at the end either

        process.send_signal(signal.SIGKILL)
        process.wait()
        assert temporary.is_file()
        with FeatureStore(derived) as third:
            assert opened(third, stamp()).swept == (temporary,)
    assert not temporary.exists()
    assert (folder / ".mine.part").is_file()
    assert (folder / "b.npy").read_bytes() == content


def test_a_folder_whose_first_worker_died_before_the_header_is_taken_over(tmp_path):
    store = FeatureStore(tmp_path)
    folder = store.folder(KIND, stamp())
    folder.mkdir()
    leftover = folder / "._features.json.00000000.part.json"
    with writer(tmp_path, "."):  # somebody else writes, so nothing is swept
        leftover.write_text("{")
        assert opened(store, stamp()).folder == folder
        assert leftover.exists()
        assert store.stamp_of(folder) == stamp()
    store.close()
    assert not leftover.exists()


def test_the_last_writer_sweeps_what_another_left_meanwhile(tmp_path):
    derived = tmp_path / "derived"
    with FeatureStore(derived) as store:
        folder = opened(store, stamp()).folder
        with writer(derived, folder.name) as (process, temporary):
            process.kill()
            process.wait()
        assert temporary.is_file()
    assert not temporary.exists()
