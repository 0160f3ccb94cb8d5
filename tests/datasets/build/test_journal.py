"""Journals and their merging: whole lines count, order does not, the dead are known."""

import itertools
import os

import pytest

from patchatlas.datasets.build.journal import FOLDER, Finished, is_dead, open_journal, read_journal
from patchatlas.datasets.build.merge import absorb, journals_of, locked, merge
from patchatlas.errors import FormatError
from patchatlas.io.manifest import FeatureEntry, Record, RecordError, read_manifest, write_manifest

STAMP = "ab" * 32


def entry(name: str, *, stamp: str = STAMP, kind: str = "k") -> FeatureEntry:
    return FeatureEntry(
        file=f"{kind}@{stamp[:8]}/{name}.npy", grid=(2, 3), dim=4, dtype="fp16", bytes=9, sha256="cd" * 32, stamp=stamp
    )


def record(name: str, *, sha256: str = "01" * 32) -> Record:
    return Record(image_path=f"{name}.jpg", image_id=name, sha256=sha256)


def finished(*done: FeatureEntry, sha256: str = "01" * 32, **skipped: RecordError) -> Finished:
    """What became of pictures whose files had this hash; features are of the picture that names their file."""
    names = [entry.file.partition("/")[2].removesuffix(".npy") for entry in done]
    entries = {name: {entry.file.partition("@")[0]: entry} for name, entry in zip(names, done, strict=True)}
    return Finished(entries, skipped, dict.fromkeys([*names, *skipped], sha256))


CUT = RecordError(type="truncated", message="cut short")
ODD = RecordError(type="damaged", message="odd bytes")


@pytest.fixture
def derived(tmp_path):
    (tmp_path / "derived" / f"k@{STAMP[:8]}").mkdir(parents=True)
    return tmp_path / "derived"


def test_what_is_appended_is_read_back(derived):
    news = [finished(entry("a"), b=CUT), finished(c=ODD)]
    with open_journal(derived, manifest=derived.parent / "m.jsonl") as journal:
        for one in news:
            journal.append(one)
        assert read_journal(journal.path) == news


@pytest.mark.parametrize("lost", range(0, 300, 7))
def test_a_line_cut_short_does_not_count(derived, lost):
    with open_journal(derived, manifest=derived.parent / "m.jsonl") as journal:
        for name in "ab":
            journal.append(finished(entry(name)))
    content = journal.path.read_bytes()
    journal.path.write_bytes(content[: len(content) - lost])
    lines = content[: len(content) - lost].count(b"\n")
    assert [list(one.done) for one in read_journal(journal.path)] == [["a"], ["b"]][: max(0, lines - 1)]


@pytest.mark.parametrize(
    "damage", [b'{"format": "other", "version": 1}\n', b'{"format": "patchatlas.journal"}\n', b"[]\n"]
)
def test_damage_that_no_kill_leaves_is_refused(derived, damage):
    path = derived / FOLDER / "x.jsonl"
    path.parent.mkdir()
    path.write_bytes(damage)
    with pytest.raises(FormatError, match=r"x\.jsonl"):
        read_journal(path)


def test_a_journal_is_dead_when_its_worker_is(derived):
    with open_journal(derived, manifest=derived.parent / "m.jsonl") as journal:
        assert not is_dead(journal.path)
    assert is_dead(journal.path)


def test_a_journal_of_a_killed_process_is_dead(derived):
    pid = os.fork()
    if pid == 0:
        opened = open_journal(derived, manifest=derived.parent / "m.jsonl")
        opened.__enter__()
        os._exit(0)  # as a kill does, without closing anything
    os.waitpid(pid, 0)
    (path,) = journals_of(derived)
    assert is_dead(path)


def test_merging_does_not_depend_on_order_or_repetition(derived):
    records = [record(name) for name in "abcd"]
    news = [
        finished(entry("a"), b=ODD, c=CUT),
        finished(entry("b"), c=ODD),
        finished(entry("a")),
    ]
    results = [merge(records, order, derived) for order in itertools.permutations(news)]
    results += [merge(results[0], news, derived)]
    assert all(result == results[0] for result in results)
    assert [(r.image_id, r.status, sorted(r.features)) for r in results[0]] == [
        ("a", "ok", ["k"]),
        ("b", "ok", ["k"]),  # one worker could, so it can be encoded
        ("c", "skipped", []),
        ("d", "ok", []),
    ]
    assert results[0][2].error == ODD


def test_a_picture_that_was_skipped_before_and_is_encoded_now_is_ok(derived):
    (skipped,) = merge([record("a")], [finished(a=CUT)], derived)
    (mended,) = merge([skipped], [finished(entry("a"))], derived)
    assert (mended.status, mended.error, mended.features["k"]) == ("ok", None, entry("a"))


def test_an_entry_of_a_set_that_was_moved_aside_does_not_come_back(derived):
    gone = entry("a", stamp="ef" * 32)
    for order in itertools.permutations([finished(gone), finished(entry("a"))]):
        assert merge([record("a")], order, derived)[0].features == {"k": entry("a")}
    assert merge([record("a")], [finished(gone)], derived)[0].features == {}


def test_what_was_finished_of_other_bytes_is_left_out(derived):
    """Also where one batch has both, and for pictures that no record is of."""
    news = [finished(entry("a"), b=CUT, gone=CUT), finished(entry("b"), a=CUT, sha256="02" * 32)]
    records = [record("a", sha256="02" * 32), record("b")]
    for order in itertools.permutations(news):
        a, b = merge(records, order, derived)
        assert (a.features, a.error, b.features, b.error) == ({}, CUT, {}, CUT)


def test_absorbing_removes_the_journals_of_the_dead_only(derived):
    manifest = derived.parent / "m.jsonl"
    write_manifest(manifest, [record("a"), record("b")])
    with open_journal(derived, manifest=derived.parent / "m.jsonl") as dead:
        dead.append(finished(entry("a")))
    with open_journal(derived, manifest=derived.parent / "m.jsonl") as alive:
        alive.append(finished(entry("b")))
        with locked(manifest):
            absorb(manifest, read_manifest(manifest), derived)
        assert journals_of(derived) == [alive.path]
    assert [sorted(r.features) for r in read_manifest(manifest)] == [["k"], ["k"]]


def test_leftovers_beside_the_manifest_are_swept_and_nothing_else(tmp_path):
    manifest = tmp_path / "m.jsonl"
    for name in (".m.jsonl.0123abcd.part.jsonl", ".other.jsonl.0123abcd.part.jsonl", ".m.jsonl.notes.jsonl"):
        (tmp_path / name).write_text("x")
    with locked(manifest):
        left = sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock")
    assert left == [".m.jsonl.notes.jsonl", ".other.jsonl.0123abcd.part.jsonl"]
