"""Manifest and journals become one manifest: a function of what they say, whatever the order, however often."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from patchatlas.datasets.build.journal import FOLDER, Finished, is_dead, manifest_of, read_journal
from patchatlas.datasets.build.owner import name_of
from patchatlas.io.disk import disk_errors
from patchatlas.io.manifest import FeatureEntry, Record, RecordError, write_manifest
from patchatlas.io.writers import is_leftover

log = logging.getLogger(__name__)


@contextmanager
def locked(manifest: Path) -> Iterator[None]:
    """Within, nobody else reads or writes the manifest and no temporary file of a killed writer is left beside it.

    Raises:
        ResourceError: the folder of the manifest may not be written.
    """
    lock = FileLock(manifest.with_name(f".{manifest.name}.lock"))
    with disk_errors(manifest):
        lock.acquire()
    try:
        for path in manifest.parent.iterdir():
            if is_leftover(path.name, of=manifest):  # nobody else writes: all writers hold the lock
                path.unlink()
        yield
    finally:
        lock.release()


def journals_of(derived_dir: Path, *, manifest: Path | None = None) -> list[Path]:
    """All journals, or those of one manifest (one that does not say whose it is counts as that one's), by name."""
    journals = sorted((derived_dir / FOLDER).glob("*.jsonl"))
    if manifest is None:
        return journals
    own = (None, name_of(manifest, derived_dir))
    return [path for path in journals if manifest_of(path) in own]


def absorb(manifest: Path, records: Sequence[Record], derived_dir: Path) -> list[Record]:
    """The records with all that the manifest's journals say, written if that changes them; the dead ones are removed.

    To be called within `locked`.

    Raises:
        FormatError: a journal that cannot be read.
        ResourceError: the disk is full, or a folder may not be written.
    """
    journals = journals_of(derived_dir, manifest=manifest)
    dead = [path for path in journals if is_dead(path)]  # asked first: what such a one holds does not change any more
    merged = merge(records, [finished for path in journals for finished in read_journal(path)], derived_dir)
    if merged != list(records):
        with disk_errors(manifest):
            write_manifest(manifest, merged)
    with disk_errors(derived_dir / FOLDER):
        for path in dead:
            path.unlink()
    return merged


def merge(records: Sequence[Record], news: Iterable[Finished], derived_dir: Path) -> list[Record]:
    """The records with what was finished, in their order.

    What was finished of a picture file with other bytes than the record's is left out. Of two entries for one kind the
    one whose set is still there wins (a stale set may have been moved aside). A picture that one worker encoded counts
    as encoded, whatever befell another.
    """
    sources = {record.image_id: record.sha256 for record in records}
    done: dict[str, dict[str, FeatureEntry]] = {}
    skipped: dict[str, RecordError] = {}
    there: dict[str, bool] = {}
    for finished in news:
        current = {name for name, sha256 in finished.sources.items() if sources.get(name) == sha256}
        for name in finished.done.keys() & current:
            for kind, entry in finished.done[name].items():
                folder = entry.file.partition("/")[0]
                if folder not in there:
                    there[folder] = (derived_dir / folder).is_dir()
                if there[folder]:
                    done.setdefault(name, {})[kind] = entry
        for name in finished.skipped.keys() & current:
            error = finished.skipped[name]
            skipped[name] = min(error, skipped.get(name, error), key=lambda one: (one.type, one.message))
    merged = []
    for record in records:
        if record.image_id in done:
            features = {**record.features, **done[record.image_id]}
            record = replace(record, features=features, status="ok", error=None)
        elif record.image_id in skipped:
            record = replace(record, status="skipped", error=skipped[record.image_id])
        merged.append(record)
    return merged
