"""A cache gives boxes and counts, from any thread or process, and says what is wrong with it."""

import json
import multiprocessing
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, get_ident

import numpy as np
import pytest

from patchatlas.errors import FormatError, InputError, ShapeError, UsageError
from patchatlas.pretrain import cache as cache_module
from patchatlas.pretrain.cache import CellCounts, VolumeCache, open_cache
from patchatlas.pretrain.foreground import above, count_cells
from patchatlas.pretrain.index import index_volumes
from tests.io.volumes.volume_files import write_nifti


def noise(seed: int, size=(70, 80, 90)) -> np.ndarray:
    values = np.random.default_rng(seed).integers(-1000, 1500, size).astype(np.int16)
    values[:8] = -1000
    return values


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    top = tmp_path_factory.mktemp("cache")
    (top / "source").mkdir()
    for seed in range(2):
        write_nifti(top / "source" / f"{seed}.nii", noise(seed))
    index_volumes([top / "source"], top / "cache")
    return top / "cache"


@pytest.fixture
def cache(folder) -> VolumeCache:
    return open_cache(folder)


def test_boxes_are_those_of_the_volume(cache):
    rng = np.random.default_rng(0)
    for seed, record in enumerate(cache.records):
        whole = noise(seed)
        assert record.size_zyx == whole.shape
        for _ in range(20):
            start = rng.integers(0, whole.shape).tolist()
            size = rng.integers(1, np.subtract(whole.shape, start) + 1).tolist()
            box = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
            read = cache.read(record, start, size)
            np.testing.assert_array_equal(read, whole[box])
            assert read.dtype == np.int16


@pytest.mark.parametrize(
    "box", [((0, 0, 0), (71, 1, 1)), ((-1, 0, 0), (1, 1, 1)), ((0, 0, 89), (1, 1, 2)), ((0,) * 3,) * 2]
)
def test_boxes_outside_are_refused(cache, box):
    with pytest.raises(ShapeError, match="pad what lies outside"):
        cache.read(cache.records[0], *box)


def test_counts_are_those_of_the_volume(cache):
    counted = cache.cells(cache.records[0], -500)
    np.testing.assert_array_equal(counted.counts, count_cells(above(noise(0), -500.0), (8, 8, 8)))
    assert counted.cell_zyx == (8, 8, 8)
    assert cache.records[0].foreground["hu>-500"] == pytest.approx((noise(0) > -500).mean())
    assert cache.cells(cache.records[0], "body").counts.shape == counted.counts.shape
    assert cache.histogram(cache.records[0]).sum() == noise(0).size


def test_a_table_that_is_not_there_names_the_others(cache):
    with pytest.raises(UsageError, match=r"'hu>500'.*'body', 'hu>-500'.*--thresholds"):
        cache.cells(cache.records[0], 500.0)


def test_counts_merge_to_larger_cells():
    mask = np.random.default_rng(0).random((20, 9, 33)) < 0.3
    fine = CellCounts(count_cells(mask, (4, 2, 8)), (4, 2, 8))
    coarse = fine.merged((8, 8, 8))
    np.testing.assert_array_equal(coarse.counts, count_cells(mask, (8, 8, 8)))
    assert coarse.cell_zyx == (8, 8, 8)
    with pytest.raises(ShapeError, match="take multiples"):
        fine.merged((6, 2, 8))


def test_threads_read_the_same(cache):
    def read(k: int) -> int:
        return int(cache.read(cache.records[k % 2], (k, 0, 0), (20, 80, 90)).astype(np.int64).sum())

    alone = [read(k) for k in range(40)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, range(40))) == alone


def test_every_thread_opens_its_own_files(cache, monkeypatch):
    opened: list[int] = []
    open_b2nd = cache_module.open_b2nd
    monkeypatch.setattr(cache_module, "open_b2nd", lambda path: opened.append(get_ident()) or open_b2nd(path))
    together = Barrier(3)

    def read(_: int) -> None:
        together.wait()
        for _ in range(3):
            cache.read(cache.records[0], (0, 0, 0), (5, 5, 5))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(read, range(3)))
    assert len(opened) == len(set(opened)) == 3


def test_not_too_many_files_stay_open(cache, monkeypatch):
    opened: list[str] = []
    open_b2nd = cache_module.open_b2nd
    monkeypatch.setattr(cache_module, "_OPEN_FILES", 1)
    monkeypatch.setattr(cache_module, "open_b2nd", lambda path: opened.append(path.parent.name) or open_b2nd(path))
    first, second = cache.records
    for record in (first, first, second, second, first):
        cache.read(record, (0, 0, 0), (5, 5, 5))
    assert opened == [first.id, second.id, first.id]


def read_one(cache: VolumeCache) -> np.ndarray:
    return cache.read(cache.records[1], (3, 4, 5), (60, 60, 60))


def test_forked_and_pickled_copies_read_the_same(cache):
    want = read_one(cache)  # opens the file here first
    np.testing.assert_array_equal(read_one(pickle.loads(pickle.dumps(cache))), want)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for found in pool.map(read_one, [cache] * 4):
            np.testing.assert_array_equal(found, want)


def test_a_crop_is_read_in_time(tmp_path):
    write_nifti(tmp_path / "a.nii", noise(0, (140, 160, 160)))
    index_volumes([tmp_path / "a.nii"], tmp_path / "cache")
    cache = open_cache(tmp_path / "cache")
    took = []
    for k in range(9):
        began = time.perf_counter()
        cache.read(cache.records[0], (k, 2 * k, 3 * k), (128, 128, 128))
        took.append(time.perf_counter() - began)
    # The bar is 20 ms on an idle machine (benchmarks/pretrain/reading.py); tests run beside others.
    assert np.median(took) < 0.2


def test_what_is_no_cache_is_refused(tmp_path, folder):
    with pytest.raises(InputError, match="is no cache of volumes"):
        open_cache(tmp_path)
    with pytest.raises(InputError, match="there is no folder"):
        open_cache(tmp_path / "absent")
    entry = tmp_path / "stopped" / "volumes" / "a"
    entry.mkdir(parents=True)
    with pytest.raises(InputError, match="is no cache of volumes"):  # a folder of scans may be called volumes, too
        open_cache(tmp_path / "stopped")
    (entry / "volume.json").write_text("{}")
    with pytest.raises(InputError, match="was not finished"):
        open_cache(tmp_path / "stopped")
    index = json.loads((folder / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps(index | {"version": 99}))
    with pytest.raises(FormatError, match="99"):
        open_cache(tmp_path)
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(FormatError, match="damaged"):
        open_cache(tmp_path)


def test_damage_is_told(tmp_path):
    write_nifti(tmp_path / "a.nii", noise(0))
    index_volumes([tmp_path / "a.nii"], tmp_path / "cache")
    cache = open_cache(tmp_path / "cache")
    (entry,) = (tmp_path / "cache" / "volumes").iterdir()
    content = (entry / "values.b2nd").read_bytes()
    (entry / "values.b2nd").write_bytes(content[:200] + bytes(len(content) - 400) + content[-200:])
    with pytest.raises(FormatError, match="damaged"):
        cache.read(cache.records[0], (0, 0, 0), (60, 60, 60))
    (entry / "tables.npz").write_bytes(b"PK")
    with pytest.raises(FormatError, match="damaged"):
        cache.cells(cache.records[0])
    (entry / "values.b2nd").unlink()
    with pytest.raises(InputError, match="index again"):
        open_cache(tmp_path / "cache").read(cache.records[0], (0, 0, 0), (1, 1, 1))
