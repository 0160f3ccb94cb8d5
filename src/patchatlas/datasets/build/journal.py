"""What one worker has finished, line by line: the truth between two writings of the manifest.

A journal is a file of JSON lines below `{derived}/_journal/`. Its first line names the format and the manifest; every
other line is one batch, written and synced at once after the files of the batch: features by picture and kind, pictures
that cannot be used, and the hashes of the picture files that this is true of. A line that a kill cut short does not
count. A worker holds a lock on its journal as long as it lives, so the journals of the dead are known, and are removed
once the manifest has what they say.
"""

import json
import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patchatlas.datasets.build.owner import name_of
from patchatlas.errors import FormatError
from patchatlas.io.disk import disk_errors
from patchatlas.io.manifest import FeatureEntry, RecordError, to_line

if os.name == "posix":
    import fcntl

log = logging.getLogger(__name__)

FORMAT = "patchatlas.journal"
VERSION = 2
FOLDER = "_journal"


@dataclass(frozen=True)
class Finished:
    """What became of pictures, by image_id.

    Attributes:
        done: entries by kind of the pictures that were encoded.
        skipped: why the others were not.
        sources: SHA-256 of the picture file of each, as its record says.
    """

    done: Mapping[str, Mapping[str, FeatureEntry]] = field(default_factory=dict)
    skipped: Mapping[str, RecordError] = field(default_factory=dict)
    sources: Mapping[str, str | None] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "done": {name: {kind: e.to_json() for kind, e in entries.items()} for name, entries in self.done.items()},
            "skipped": {name: error.to_json() for name, error in self.skipped.items()},
            "sources": dict(self.sources),
        }

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Finished":
        """The inverse of `to_json`.

        Raises:
            FormatError: not what `to_json` gives.
        """
        return Finished(
            done={
                name: {kind: FeatureEntry.from_json(entry) for kind, entry in entries.items()}
                for name, entries in row["done"].items()
            },
            skipped={name: RecordError.from_json(error) for name, error in row["skipped"].items()},
            sources=dict(row["sources"]),
        )


class Journal:
    """The journal that this worker writes.

    Made by `open_journal`.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def append(self, finished: Finished) -> None:
        """Add a line; when this returns it is on the disk.

        Raises:
            ResourceError: the disk is full, or the folder may not be written.
        """
        self.write_line(finished.to_json())

    def write_line(self, row: dict[str, Any]) -> None:
        """Add one JSON object as a line, synced."""
        line = memoryview(to_line(row))
        with disk_errors(self.path):
            while line:
                line = line[os.write(self._descriptor, line) :]
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Write no more: from now on the journal is one of the dead."""
        os.close(self._descriptor)


@contextmanager
def open_journal(derived_dir: Path, *, manifest: Path) -> Iterator[Journal]:
    """A new journal of this worker, closed but not removed at the end: that is for whoever merges it into `manifest`.

    Raises:
        ResourceError: the disk is full, or the folder may not be written.
    """
    path = derived_dir / FOLDER / f"{secrets.token_hex(8)}.jsonl"
    unlocked = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part")  # swept as any other leftover of a kill
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(unlocked, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o666)
    journal = Journal(path, descriptor)
    try:
        if os.name == "posix":
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as error:  # network file systems without locks
                log.warning("%s: no file locks here (%s)", path.parent, error)
        journal.write_line({"format": FORMAT, "version": VERSION, "manifest": name_of(manifest, derived_dir)})
        unlocked.replace(path)
        yield journal
    finally:
        journal.close()


def read_journal(path: Path) -> list[Finished]:
    """The whole lines of a journal, in order; a last line that was cut short is left out.

    Raises:
        FormatError: another format or version, or damage that no kill leaves behind.
    """
    lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline was cut short, or is empty
    if not lines:
        return []
    try:
        header, *rows = (json.loads(line) for line in lines)
        if (header.get("format"), header.get("version")) != (FORMAT, VERSION):
            raise FormatError(f"it is {header.get('format')} version {header.get('version')}, not {FORMAT} {VERSION}")
        return [Finished.from_json(row) for row in rows]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise FormatError(
            f"the journal {path} cannot be read: {error}; move it away and build again, what it lists is then redone"
        ) from error


def manifest_of(path: Path) -> str | None:
    """Name of the manifest that a journal is for, see `name_of`; `None` where its first line does not say."""
    with path.open("rb") as lines:
        try:
            header = json.loads(lines.readline())
        except ValueError:
            return None
    return header.get("manifest") if isinstance(header, dict) else None


def is_dead(path: Path) -> bool:
    """Whether no living worker writes this journal; where there are no locks nobody knows, and it counts as alive.

    Raises:
        ResourceError: the journal may not be opened.
    """
    if os.name != "posix":
        return False
    with disk_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
