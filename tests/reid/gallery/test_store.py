"""The files of a gallery: transactions, what is refused, and kills at any moment."""

import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from patchatlas.errors import FormatError, InputError, ResourceError, StampError, UsageError
from patchatlas.reid.embed.lab import LabEmbedder
from patchatlas.reid.gallery import store as stores
from patchatlas.reid.gallery.match import link_read
from patchatlas.reid.gallery.store import Store, dump, open_gallery
from patchatlas.stamp import Stamp
from tests.reid.gallery.cast import crowd, episode

STAMP = LabEmbedder().stamp


def vectors(count: int, start: int = 0) -> np.ndarray:
    return np.arange(start, start + count * 3, dtype=np.float32).reshape(count, 3)


def test_vectors_come_back_by_segment_and_row(tmp_path):
    with open_gallery(tmp_path / "g", create=True) as store:
        with store.writing():
            store.take_stamp(STAMP, 3)
            one, two = store.add_vectors(vectors(2)), store.add_vectors(vectors(4, 100))
        assert store.vectors([(two, 3), (one, 0), (two, 0)]).tolist() == [
            [109.0, 110.0, 111.0],
            [0.0, 1.0, 2.0],
            [100.0, 101.0, 102.0],
        ]
        assert store.vectors([]).shape == (0, 3)
    assert sorted(path.name for path in (tmp_path / "g" / "vectors" / STAMP.digest[:16]).iterdir()) == [
        "000001.npy",
        "000002.npy",
    ]


def test_an_error_within_leaves_nothing(tmp_path):
    with open_gallery(tmp_path / "g", create=True) as store:
        before = dump(store)

        def fail() -> None:
            with store.writing():
                store.take_stamp(STAMP, 3)
                store.add_vectors(vectors(2))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert dump(store) == before
    assert not list((tmp_path / "g" / "vectors").glob("*/*"))


def test_files_that_nobody_names_are_swept_by_the_next_writer(tmp_path):
    with open_gallery(tmp_path / "g", create=True) as store:
        with store.writing():
            store.take_stamp(STAMP, 3)
            store.add_vectors(vectors(2))
        folder = tmp_path / "g" / "vectors" / STAMP.digest[:16]
        (folder / "000002.npy").write_bytes(b"left behind")
        (folder / ".000003.npy.abc.part.npy").write_bytes(b"")
        with store.writing():
            pass
        assert [path.name for path in folder.iterdir()] == ["000001.npy"]


def test_other_stamps_are_refused_and_said(tmp_path):
    with open_gallery(tmp_path / "g", create=True) as store, store.writing():
        store.take_stamp(STAMP, 3)
        store.take_stamp(STAMP, 3)
        other = Stamp(tuple((name, 7 if name == "dim" else value) for name, value in STAMP.facts))
        with pytest.raises(StampError, match=r"dim: \d+ and 7"):
            store.take_stamp(other, 7)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda _: None, InputError, "holds no gallery"),
        (lambda folder: (folder / "gallery.sqlite").write_bytes(b"nonsense" * 100), FormatError, "is no gallery"),
        (lambda folder: (folder / "gallery.sqlite").write_bytes(b""), InputError, "is empty"),
        (
            lambda folder: sqlite3.connect(folder / "gallery.sqlite").execute("CREATE TABLE a (b)").connection.close(),
            FormatError,
            "but no gallery",
        ),
    ],
)
def test_what_is_no_gallery(tmp_path, make, error, message):
    make(tmp_path)
    with pytest.raises(error, match=message), open_gallery(tmp_path):
        pass


def test_a_new_gallery_is_not_put_among_other_files(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"), open_gallery(tmp_path, create=True):
        pass


def test_a_later_version_is_refused(tmp_path):
    with open_gallery(tmp_path / "g", create=True) as store, store.writing():
        store.db.execute("UPDATE meta SET value = '2' WHERE key = 'version'")
    with pytest.raises(FormatError, match="has version 2"), open_gallery(tmp_path / "g"):
        pass


def test_damaged_vectors_are_said(tmp_path):
    with open_gallery(tmp_path / "g", create=True) as store, store.writing():
        store.take_stamp(STAMP, 3)
        store.add_vectors(vectors(5))
    path = next((tmp_path / "g" / "vectors").glob("*/*.npy"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with open_gallery(tmp_path / "g") as store, pytest.raises(FormatError, match="cannot be read"):
        store.segment(1)
    np.save(path, vectors(4))
    with open_gallery(tmp_path / "g") as store, pytest.raises(FormatError, match="tells of float32"):
        store.segment(1)


def test_a_second_writer_waits_and_then_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "WAIT_S", 0.1)
    with (
        open_gallery(tmp_path / "g", create=True) as store,
        open_gallery(tmp_path / "g") as other,
        store.writing(),
        pytest.raises(ResourceError, match="another process"),
        other.writing(),
    ):
        pass


def test_a_full_disk_leaves_the_old_gallery(tmp_path):
    link_read(tmp_path / "g", [episode("one", crowd(*range(6)))])
    with open_gallery(tmp_path / "g") as store:
        before = dump(store)
        pages = store.value("PRAGMA page_count")
        store.db.execute(f"PRAGMA max_page_count = {pages + 1}")
        rows = [(k / 20000,) for k in range(20000)]
        with pytest.raises(ResourceError, match="full"), store.writing():
            store.db.executemany("INSERT INTO known_pairs VALUES (1, 'same', ?)", rows)
        assert dump(store) == before


def test_a_break_at_any_step_leaves_old_or_new(tmp_path, monkeypatch):
    """Linking is broken off before each statement and each file in turn; the gallery is the old one every time."""
    first, second = episode("one", crowd(*range(6))), episode("two", crowd(*range(3, 9)))
    link_read(tmp_path / "g", [first])
    with open_gallery(tmp_path / "g") as store:
        old = dump(store)

    class Broken(BaseException):
        pass

    left = 0

    def step() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Broken

    real_rows, real_insert, real_add = Store.rows, Store.insert, Store.add_vectors
    monkeypatch.setattr(Store, "rows", lambda self, *a: (step(), real_rows(self, *a))[1])
    monkeypatch.setattr(Store, "insert", lambda self, *a, **b: (step(), real_insert(self, *a, **b))[1])
    monkeypatch.setattr(Store, "add_vectors", lambda self, *a: (real_add(self, *a), step())[0])
    points = 0
    for at in [*range(1, 60, 3), *range(60, 400, 12)]:
        left = at
        try:
            link_read(tmp_path / "g", [second])
        except Broken:
            left = 0
            with open_gallery(tmp_path / "g") as store:
                if dump(store) != old:  # it was broken off after it had been committed
                    break
            points += 1
    assert points >= 20
    left = 0
    with open_gallery(tmp_path / "g") as store:
        new = dump(store)
    link_read(tmp_path / "fresh", [first, second])
    with open_gallery(tmp_path / "fresh") as store:
        assert new == dump(store)


KILLED = """
import sys, torch
torch.set_num_threads(1)
from patchatlas.reid.gallery.match import link_read
from tests.reid.gallery.cast import crowd, episode
ready = [episode(f"e{k}", crowd(*range(k, k + 6))) for k in range(1, 30)]
print("ready", flush=True)
for one in ready:
    link_read(sys.argv[1], [one])
"""


def test_a_process_that_is_killed_leaves_whole_episodes(tmp_path):
    rng = random.Random(5)
    for attempt in range(3):
        folder = tmp_path / f"g{attempt}"
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(rng.uniform(0.02, 0.5))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        with open_gallery(folder, create=True) as store:
            done = store.value("SELECT count(*) FROM episodes")
            found = dump(store)
        episodes = [episode(f"e{k}", crowd(*range(k, k + 6))) for k in range(1, done + 1)]
        with open_gallery(tmp_path / f"whole{attempt}", create=True):
            pass
        for one in episodes:
            link_read(tmp_path / f"whole{attempt}", [one])
        with open_gallery(tmp_path / f"whole{attempt}") as store:
            assert dump(store) == found
