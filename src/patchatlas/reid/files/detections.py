"""`detections.jsonl`: every box that was found, and the frames that were looked at; and the journal it grows from.

The journal has a line a frame and is added to as frames are seen, so that a run that is killed need not find the same
boxes again. The file proper is made from it in one step once the video has come to its end.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from patchatlas.errors import FormatError, InputError
from patchatlas.io.disk import disk_errors
from patchatlas.reid.boxes import Detections
from patchatlas.reid.files.jsonfile import dumped, head_of, read_lines, write_lines

NAME = "detections.jsonl"
FORMAT = "patchatlas.detections"
VERSION = 1

JOURNAL = "detections.part.jsonl"

_FLUSH_EVERY = 16
"""Frames that a kill may cost."""


@dataclass(frozen=True, eq=False)
class SeenFrame:
    """One frame that was looked at.

    Attributes:
        number: in the video's own count.
        time_s: when it is shown.
        detections: its boxes.
        sharp: sharpness of the crop of each box.
        dropped: boxes that were left out, by reason.
    """

    number: int
    time_s: float
    detections: Detections
    sharp: tuple[float, ...]
    dropped: dict[str, int]


class Journal:
    """The frames that were seen so far, in order: those of an earlier run can be read, then more are added.

    Args:
        folder: of the episode.
        key: of all that boxes depend on; a journal with another is begun anew.

    Raises:
        ResourceError: the disk is full, or the folder may not be written.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.path = folder / JOURNAL
        head = f"{dumped({**head_of(FORMAT, VERSION), 'key': key})}\n".encode()
        with disk_errors(self.path):
            self._file = self.path.open("a+b")
            self._file.seek(0)
            if self._file.readline() != head:
                self._file.seek(0)
                self._file.truncate()
                self._file.write(head)
                self._file.flush()
        self._unsaved, self._read = 0, False

    def following(self, number: int) -> SeenFrame | None:
        """The next frame of the earlier run, None where it broke off; what is not frame `number` is cut away."""
        if self._read:
            return None
        at = self._file.tell()
        line = self._file.readline()
        try:
            seen = _seen(json.loads(line)) if line.endswith(b"\n") else None
        except (ValueError, KeyError, TypeError):
            seen = None
        if seen is None or seen.number != number:
            self._read = True
            self._file.seek(at)
            self._file.truncate()
        return None if self._read else seen

    def end(self) -> None:
        """What is left of the earlier run is cut away: the video has come to its end."""
        if not self._read:
            self._read = True
            self._file.truncate(self._file.tell())

    def add(self, seen: SeenFrame) -> None:
        """Write down the frame after the last one.

        Raises:
            ResourceError: the disk is full.
        """
        with disk_errors(self.path):
            self._file.write(f"{dumped(_line(seen))}\n".encode())
            self._unsaved += 1
            if self._unsaved >= _FLUSH_EVERY:
                self._file.flush()
                self._unsaved = 0

    def __iter__(self) -> Iterator[SeenFrame]:
        """All frames from the first on."""
        self._file.flush()
        self._file.seek(0)
        self._file.readline()
        for line in self._file:
            yield _seen(json.loads(line))

    def close(self) -> None:
        """Put what was added into the file."""
        with disk_errors(self.path):
            self._file.close()


def write_detections(folder: Path, about: Mapping[str, Any], journal: Journal) -> None:
    """Make the file from a journal that is complete.

    Args:
        about: `episode`, `video` and more, for the head.

    Raises:
        FormatError: frames do not rise in number and time.
        ResourceError: the disk is full, or the folder may not be written.
    """
    frames: list[list[float]] = []
    dropped: Counter[str] = Counter()
    last: SeenFrame | None = None
    for seen in journal:
        _require_rise(journal.path, last, seen)
        last = seen
        frames.append([seen.number, seen.time_s])
        dropped.update(seen.dropped)
    given = about.get("dropped", {})
    head = {
        **head_of(FORMAT, VERSION),
        **about,
        "dropped": dict(sorted((Counter(given) + dropped).items())),
        "frames": frames,
    }
    write_lines(folder / NAME, head, (row for seen in journal for row in _rows(seen)))


def read_head(folder: Path) -> dict[str, Any]:
    """The head of the file.

    Raises:
        InputError: there is no such file.
        FormatError: it is not of the format.
    """
    return next(read_lines(folder / NAME, kind=FORMAT, version=VERSION))


def read_detections(folder: Path) -> Iterator[SeenFrame]:
    """All frames that were looked at, in order, one at a time.

    Raises:
        InputError: there is no such file.
        FormatError: it is not of the format, frames do not rise in number and time, or a box is at none of them.
    """
    path = folder / NAME
    lines = read_lines(path, kind=FORMAT, version=VERSION)
    head = next(lines)
    last: SeenFrame | None = None
    try:
        by_frame = groupby(lines, key=lambda line: line["frame"])
        waiting = next(by_frame, None)
        for number, time_s in head["frames"]:
            rows = []
            if waiting is not None and waiting[0] == number:
                rows = list(waiting[1])
                waiting = next(by_frame, None)
            seen = SeenFrame(
                number,
                time_s,
                _detections([r["box"] for r in rows], [r["score"] for r in rows], [r["label"] for r in rows]),
                tuple(r["sharpness"] for r in rows),
                {},
            )
            _require_rise(path, last, seen)
            last = seen
            yield seen
        if waiting is not None:
            raise FormatError(f"{path} has boxes at frame {waiting[0]} out of order; run again with --restart")
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise FormatError(f"{path}: {type(error).__name__} {error}; run again with --restart") from error


def _require_rise(path: Path, last: SeenFrame | None, seen: SeenFrame) -> None:
    if last is not None and (seen.number <= last.number or seen.time_s <= last.time_s):
        raise FormatError(
            f"{path} has frame {seen.number} at {seen.time_s} s after frame {last.number} at {last.time_s} s; give the "
            "same command again, then it is made anew"
        )


def _line(seen: SeenFrame) -> dict[str, Any]:
    return {
        "frame": seen.number,
        "time_s": seen.time_s,
        "boxes": seen.detections.boxes.tolist(),
        "scores": seen.detections.scores.tolist(),
        "labels": list(seen.detections.labels),
        "sharpness": list(seen.sharp),
        "dropped": seen.dropped,
    }


def _seen(line: Mapping[str, Any]) -> SeenFrame:
    found = _detections(line["boxes"], line["scores"], line["labels"])
    return SeenFrame(line["frame"], line["time_s"], found, tuple(line["sharpness"]), line["dropped"])


def _rows(seen: SeenFrame) -> Iterator[dict[str, Any]]:
    found = seen.detections
    parts = zip(found.boxes.tolist(), found.scores.tolist(), found.labels, seen.sharp, strict=True)
    for box, score, label, sharp in parts:
        yield {
            "frame": seen.number,
            "time_s": seen.time_s,
            "box": box,
            "score": score,
            "label": label,
            "sharpness": sharp,
        }


def _detections(boxes: list[list[float]], scores: list[float], labels: list[str]) -> Detections:
    if any(len(box) != 4 for box in boxes):
        raise ValueError("a box has four numbers")
    return Detections(
        torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float64),
        tuple(labels),
    )
