"""An index is complete, repeatable, can be taken up after any end, and lists what it leaves out."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from patchatlas.errors import ResourceError, UsageError
from patchatlas.pretrain import entry
from patchatlas.pretrain.cache import open_cache
from patchatlas.pretrain.index import index_volumes
from patchatlas.pretrain.index_settings import Counting, Drawing, IndexSettings
from tests.io.volumes.volume_files import SPACING_ZYX, write_inv3, write_nifti, write_series

SIZE = (12, 16, 20)


def values(seed: int) -> np.ndarray:
    """A warm block in cold air."""
    hu = np.random.default_rng(seed).integers(-1010, -950, SIZE).astype(np.int16)
    hu[2:-2, 3:-3, 4 + seed : -4] += 1000
    return hu


@pytest.fixture
def source(tmp_path) -> Path:
    """Three volumes of three formats, in folders."""
    top = tmp_path / "source"
    (top / "a").mkdir(parents=True)
    write_nifti(top / "a" / "one.nii.gz", values(1), turned="LPS")
    write_inv3(top / "two.inv3", values(2))
    write_series(top / "three", values(3))
    return top


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a cache but the report, which tells the time it took."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in ("report.json", ".lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_formats_are_indexed_alike(source, tmp_path):
    report = index_volumes([source], tmp_path / "cache")
    cache = open_cache(tmp_path / "cache")
    assert [record.source for record in cache.records] == ["a/one.nii.gz", "three", "two.inv3"]
    for record, seed in zip(cache.records, (1, 3, 2), strict=True):
        np.testing.assert_array_equal(cache.read(record, (0, 0, 0), SIZE), values(seed))
        assert record.spacing_zyx == SPACING_ZYX
        assert (record.low, record.high) == (values(seed).min(), values(seed).max())
        assert record.foreground["hu>-500"] == pytest.approx((values(seed) > -500).mean())
        assert record.foreground["body"] == pytest.approx((values(seed) > -500).mean())
    assert report.how == {"made": 3}
    assert not report.skipped
    stored = json.loads((tmp_path / "cache" / "report.json").read_text())
    assert stored == report.to_json()
    assert sum(stored["histogram"]["counts"]) == stored["voxels"] == 3 * np.prod(SIZE)


def test_a_second_run_keeps_everything(source, tmp_path):
    index_volumes([source], tmp_path / "cache")
    before = contents(tmp_path / "cache")
    report = index_volumes([source], tmp_path / "cache")
    assert report.how == {"kept": 3}
    assert contents(tmp_path / "cache") == before


def test_workers_change_nothing(source, tmp_path):
    index_volumes([source], tmp_path / "one")
    seen: list[tuple[int, int]] = []
    index_volumes([source], tmp_path / "two", workers=2, on_progress=lambda *done: seen.append(done))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_changed_sources_are_read_again_and_touched_ones_kept(source, tmp_path):
    index_volumes([source], tmp_path / "cache")
    os.utime(source / "two.inv3", ns=(1, 1))
    write_nifti(source / "a" / "one.nii.gz", values(7))
    report = index_volumes([source], tmp_path / "cache")
    assert report.how == {"made": 1, "kept": 2}
    cache = open_cache(tmp_path / "cache")
    np.testing.assert_array_equal(cache.read(cache.records[0], (0, 0, 0), SIZE), values(7))


def test_other_counts_are_made_from_the_cache(source, tmp_path, monkeypatch):
    index_volumes([source], tmp_path / "cache")
    monkeypatch.setattr(entry, "read_source", None)  # no source may be read
    counting = Counting(cell_zyx=(4, 4, 4), thresholds=(-500.0, -20.0), body=False)
    report = index_volumes([source], tmp_path / "cache", IndexSettings(counting=counting))
    assert report.how == {"counted": 3}
    cache = open_cache(tmp_path / "cache")
    record = cache.records[0]
    assert set(record.foreground) == {"hu>-500", "hu>-20"}
    assert cache.cells(record, -20.0).counts.shape == (3, 4, 5)
    assert cache.cells(record, -20.0).counts.sum() == (values(1) > -20).sum()
    with pytest.raises(UsageError):
        cache.cells(record, "body")


def test_resampling_is_part_of_what_is_stored(source, tmp_path):
    drawing = Drawing(spacing_zyx=(2.0, 2.0, 2.0))
    index_volumes([source], tmp_path / "cache", IndexSettings(drawing=drawing))
    cache = open_cache(tmp_path / "cache")
    assert {record.size_zyx for record in cache.records} == {(18, 16, 10)}
    assert cache.records[0].spacing_zyx == (2.0, 2.0, 2.0)
    assert index_volumes([source], tmp_path / "cache").how == {"kept": 3}
    assert index_volumes([source], tmp_path / "cache", anew=True).how == {"made": 3}
    assert open_cache(tmp_path / "cache").records[0].spacing_zyx == SPACING_ZYX


def test_damaged_entries_are_made_again(source, tmp_path):
    index_volumes([source], tmp_path / "cache")
    want = contents(tmp_path / "cache")
    first, second, third = sorted((tmp_path / "cache" / "volumes").iterdir())
    (first / "values.b2nd").write_bytes(b"")
    (second / "tables.npz").unlink()
    (third / "volume.json").write_text("{")
    assert index_volumes([source], tmp_path / "cache").how == {"made": 2, "counted": 1}
    assert contents(tmp_path / "cache") == want


def test_faults_are_listed_with_reasons(source, tmp_path):
    write_nifti(source / "scaled.nii", (values(1) / 1000).astype(np.float32))
    (source / "empty.nii.gz").touch()
    (source / "gone.nii").symlink_to(source / "nothing")
    write_series(source / "gap", values(4), series="4")[5].unlink()
    write_nifti(source / "air.nii", np.minimum(values(1), np.int16(-300)) * np.int16(1))
    hu = np.full(SIZE, -600, np.int16)
    hu[0, 0, 0] = -1000
    hu[0, 0, 1] = -100  # one voxel only, so that the threshold above it finds nothing
    write_nifti(source / "cold.nii", hu)
    (source / "notes.txt").write_text("hello")
    settings = IndexSettings(counting=Counting(thresholds=(0.0,), body_threshold=0.0))
    report = index_volumes([source], tmp_path / "cache", settings)
    reasons = {fault.source: fault.reason for fault in report.skipped}
    assert reasons == {
        "scaled.nii": "wrong_units",
        "empty.nii.gz": "empty",
        "gone.nii": "missing",
        "gap": "missing_slices",
        "air.nii": "wrong_units",
        "cold.nii": "no_foreground",
    }
    assert report.ignored == {".txt": 1}
    text = "\n".join(report.lines())
    for fault in report.skipped:
        assert fault.message in text
    assert json.loads((tmp_path / "cache" / "report.json").read_text())["reasons"]["wrong_units"] == 2


def test_the_same_bytes_twice_are_told(source, tmp_path):
    (source / "copy.inv3").write_bytes((source / "two.inv3").read_bytes())
    report = index_volumes([source], tmp_path / "cache")
    assert report.duplicates == (("copy.inv3", "two.inv3"),)
    assert len(report.cache.records) == 4


def test_sources_that_are_gone_leave_the_index_but_not_the_disk(source, tmp_path):
    index_volumes([source], tmp_path / "cache")
    (source / "two.inv3").unlink()
    report = index_volumes([source], tmp_path / "cache")
    assert [record.source for record in open_cache(tmp_path / "cache").records] == ["a/one.nii.gz", "three"]
    assert len(report.left_over) == 1


def test_several_folders(source, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    write_inv3(other / "two.inv3", values(5))
    report = index_volumes([source, other], tmp_path / "cache")
    assert [record.source for record in report.cache.records][-2:] == ["source/two.inv3", "other/two.inv3"]
    with pytest.raises(UsageError, match=r"two volumes are named source/a/one"):
        index_volumes([source, source], tmp_path / "cache")


def test_the_cache_may_not_lie_among_the_sources(source):
    with pytest.raises(UsageError, match="choose a folder outside"):
        index_volumes([source], source / "cache")


def test_one_process_at_a_time(source, tmp_path):
    (tmp_path / "cache").mkdir()
    with (
        FileLock(tmp_path / "cache" / ".lock"),
        pytest.raises(ResourceError, match="another process is indexing"),
    ):
        index_volumes([source], tmp_path / "cache")
    assert index_volumes([source], tmp_path / "cache").how == {"made": 3}
    assert index_volumes([source], tmp_path / "cache").how == {"kept": 3}  # the lock was released


def test_what_a_killed_run_left_half_done_is_removed(source, tmp_path):
    half = tmp_path / "cache" / "volumes" / ".two.inv3-12345678.abcd.part"
    half.mkdir(parents=True)
    (half / "values.b2nd").touch()
    index_volumes([source], tmp_path / "cache")
    assert not half.exists()


@pytest.mark.slow
@pytest.mark.parametrize("entries", [0, 1, 2])
def test_a_killed_run_is_taken_up(source, tmp_path, entries):
    index_volumes([source], tmp_path / "whole")
    killed = tmp_path / "killed"
    code = (
        "import sys, time; from patchatlas.pretrain import index\n"
        f"index.index_volumes([{str(source)!r}], {str(killed)!r},"
        f" on_progress=lambda done, total: time.sleep(600) if done > {entries} else None)"
    )
    child = subprocess.Popen([sys.executable, "-c", code])
    while len([p for p in killed.glob("volumes/*") if not p.name.startswith(".")]) <= entries:
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (killed / "index.json").exists()
    report = index_volumes([source], killed)
    assert report.how == {"made": 2 - entries, "kept": entries + 1} if entries < 2 else {"kept": 3}
    assert contents(killed) == contents(tmp_path / "whole")
