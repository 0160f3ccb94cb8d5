"""Answers of one photo kept on disk, so that a session that was stopped goes on where it ended.

A record is kept under a hash of all that its answers depend on, but for the mark file that proposals go to: of that it
says what it held before and what it holds after, and it is valid while either is still so.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchatlas.files import write_text
from patchatlas.io.disk import disk_errors
from patchatlas.locate.automark.answer import Answer

log = logging.getLogger(__name__)

FORMAT = "patchatlas.automark-record"
VERSION = 1

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Record:
    """What was found out about one photo.

    Attributes:
        before: SHA-256 of the mark file that was planned for, `None` if there was none.
        after: of the file with the proposals.
        answers: one a missing mark, in the order of their uuids.
    """

    before: str | None
    after: str | None
    answers: tuple[Answer, ...]


class Records:
    """The records of one folder.

    Args:
        folder: where, made when needed; `None` keeps nothing.
        write: whether new records are kept, too.
    """

    def __init__(self, folder: Path | None, *, write: bool = True) -> None:
        self._folder = folder
        self._write = write

    def read(self, facts: Facts, *, now: str | None) -> Record | None:
        """The record under these facts, if it is there, whole, and of a mark file that hashes to `now`."""
        if self._folder is None:
            return None
        path = self._path(self._folder, facts)
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored.pop("sha256") != _digest(stored) or _digest(stored["facts"]) != path.stem:
                raise ValueError("it is not what was written there")
            answers = tuple(map(Answer.from_json, stored["answers"]))
            record = Record(stored["before"], stored["after"], answers)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            log.warning("%s is damaged (%s); it is made anew", path, error)
            return None
        return record if now in (record.before, record.after) else None

    def keep(self, facts: Facts, record: Record) -> None:
        """Keep a record.

        Raises:
            ResourceError: the disk is full, or the folder may not be written.
        """
        if self._folder is None or not self._write:
            return
        path = self._path(self._folder, facts)
        content = {
            "facts": facts,
            "before": record.before,
            "after": record.after,
            "answers": [answer.to_json() for answer in record.answers],
        }
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps({**content, "sha256": _digest(content)}, indent=2, sort_keys=True) + "\n")

    @staticmethod
    def _path(folder: Path, facts: Facts) -> Path:
        return folder / f"{_digest(facts)}.json"


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
