"""Boxes that another program found, from a MOTChallenge text, COCO JSON or JSONL file (`docs/formats/boxes.md`).

A box belongs to a frame by its number in the video's own count, or, in JSONL, by its time. Numbers that cannot be used
are counted, never repaired.
"""

import bisect
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from patchatlas.errors import FormatError, InputError
from patchatlas.io.video import VideoFrame
from patchatlas.reid.boxes import Detections, clean
from patchatlas.reid.motchallenge import read_rows

UNNAMED = "object"
"""Label of a box whose file names none."""

SAME_TIME_S = Fraction(1, 1000)
"""Times this near are the same frame: files are often written with milliseconds."""

# Classes of MOT16, from 1 on (Milan et al., arXiv 1603.00831, table 3).
_MOT_CLASSES = (
    "pedestrian",
    "person on vehicle",
    "car",
    "bicycle",
    "motorbike",
    "non motorized vehicle",
    "static person",
    "distractor",
    "occluder",
    "occluder on the ground",
    "occluder full",
    "reflection",
)


@dataclass(frozen=True)
class _Row:
    """One box as the file has it: `key` is a frame number, or a time as a fraction of a second."""

    key: int | Fraction
    box: tuple[float, ...]
    score: float
    label: str


class BoxesFile:
    """Boxes of a file, frame by frame.

    Args:
        path: .txt (MOTChallenge), .json (COCO) or .jsonl.

    Raises:
        InputError: the file cannot be opened, or has another suffix.
        FormatError: it is not what its suffix says; names the line or entry.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        readers = {".txt": _mot, ".json": _coco, ".jsonl": _jsonl}
        if path.suffix.lower() not in readers:
            raise InputError(f"{path} ends in {path.suffix!r}; boxes are read from {', '.join(readers)}")
        if not path.is_file():
            raise InputError(f"there is no file of boxes {path}; check the name")
        self.dropped: Counter[str] = Counter()
        rows = readers[path.suffix.lower()](path, self.dropped)
        self._rows: dict[int | Fraction, list[_Row]] = {}
        for row in rows:
            self._rows.setdefault(row.key, []).append(row)
        self._timed = any(isinstance(key, Fraction) for key in self._rows)
        self._times = sorted(self._rows) if self._timed else []
        self._asked: set[int | Fraction] = set()
        self.facts: dict[str, object] = {
            "name": "boxes",
            "file": path.name,
            "sha256": sha256(path.read_bytes()).hexdigest(),
            "boxes": len(rows),
            "licence": "the file's own",
        }

    def __call__(self, frame: VideoFrame, /) -> Detections:
        """The boxes of a frame in file order, clipped to it."""
        rows = [row for key in self._keys(frame) for row in self._rows[key]]
        boxes = torch.tensor([row.box for row in rows], dtype=torch.float64).reshape(-1, 4)
        scores = torch.tensor([row.score for row in rows], dtype=torch.float64)
        found, dropped = clean(boxes, scores, [row.label for row in rows], frame.pixels.shape[:2])
        self.dropped.update(dropped)
        return found

    def unasked(self) -> int:
        """How many boxes lie at frames that were not shown: not sampled, or beyond the end of the video."""
        return sum(len(rows) for key, rows in self._rows.items() if key not in self._asked)

    def _keys(self, frame: VideoFrame) -> list[int | Fraction]:
        if self._timed:
            begin = bisect.bisect_left(self._times, frame.time - SAME_TIME_S)
            end = bisect.bisect_right(self._times, frame.time + SAME_TIME_S)
            keys = list(self._times[begin:end])
        else:
            keys = [frame.number] if frame.number in self._rows else []
        self._asked.update(keys)
        return keys


def _mot(path: Path, dropped: Counter[str]) -> list[_Row]:
    """Frames count from 1 in the file. A confidence of -1 says that there is none; ground truth with 0 is not to be
    scored, and left out."""
    rows = []
    for row in read_rows(path):
        score = 1.0 if row.confidence == -1 else row.confidence
        if row.kind is not None and row.confidence == 0:
            dropped["ground truth that is not scored"] += 1
            continue
        if score < 0 or score > 1:
            raise FormatError(
                f"{path} has the confidence {score} at frame {row.frame}; scores must run 0..1 (-1: none). Scale them "
                "first, by a logistic curve for instance"
            )
        known = row.kind is not None and row.kind <= len(_MOT_CLASSES)
        label = _MOT_CLASSES[row.kind - 1] if row.kind is not None and known else f"class {row.kind}"
        rows.append(_Row(row.frame - 1, row.box, score, UNNAMED if row.kind is None else label))
    return rows


def _coco(path: Path, dropped: Counter[str]) -> list[_Row]:
    """`bbox` is left, top, width, height, the first pixel beginning at 0."""
    content = _json(path, path.read_bytes(), "")
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise FormatError(
            f"{path} has no list `images`, so nothing says which frame an image_id is; give the COCO dictionary with "
            "`images` (id, frame_id from 0) and put results under `annotations`"
        )
    try:
        frames = _coco_frames(content["images"])
        names = {entry["id"]: str(entry.get("name") or UNNAMED) for entry in content.get("categories", [])}
        rows = []
        for at, entry in enumerate(content.get("annotations", [])):
            if entry.get("iscrowd", 0):
                dropped["crowd"] += 1
                continue
            if entry["image_id"] not in frames:
                raise FormatError(f"{path}, annotation {at}: image_id {entry['image_id']} is not among `images`")
            left, top, width, height = (float(number) for number in entry["bbox"])
            label = names.get(entry.get("category_id"), UNNAMED)
            box = (left, top, left + width, top + height)
            rows.append(_Row(frames[entry["image_id"]], box, float(entry.get("score", 1.0)), label))
    except FormatError as error:
        raise FormatError(f"{path}: {error}") if str(path) not in str(error) else error from error
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise FormatError(f"{path} is not COCO: {type(error).__name__} {error}; see docs/formats/boxes.md") from error
    return rows


def _coco_frames(images: list[Any]) -> dict[Any, int]:
    """Frame number of each image id: its `frame_id`, or its rank by id where no image has one."""
    told = [image for image in images if "frame_id" in image]
    if told and len(told) != len(images):
        raise FormatError(f"{len(told)} of {len(images)} images have a frame_id; give all of them one, or none")
    if told:
        return {image["id"]: _frame_number(image["frame_id"]) for image in images}
    return {identity: rank for rank, identity in enumerate(sorted(image["id"] for image in images))}


def _jsonl(path: Path, dropped: Counter[str]) -> list[_Row]:
    """One object a line, with `box` (xyxy) and `frame` (from 0) or, where that is absent, `time_s`."""
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        where = f", line {number}"
        entry = _json(path, line, where)
        if isinstance(entry, dict) and "format" in entry and "box" not in entry:
            continue  # the head of a file of our own
        if not isinstance(entry, Mapping) or "box" not in entry or not ("frame" in entry or "time_s" in entry):
            raise FormatError(f"{path}{where} must have `box` and `frame` or `time_s`, given {line[:80]!r}")
        try:
            box = tuple(float(one) for one in entry["box"])
            key = _frame_number(entry["frame"]) if "frame" in entry else _time(entry["time_s"])
            score = float(entry.get("score", 1.0))
        except (TypeError, ValueError, OverflowError) as error:
            raise FormatError(f"{path}{where}: {type(error).__name__} {error}; see docs/formats/boxes.md") from error
        if len(box) != 4:
            raise FormatError(f"{path}{where}: a box has four numbers, x0, y0, x1, y1, given {len(box)}")
        if key is None:
            dropped["not a number"] += 1
            continue
        rows.append(_Row(key, box, score, str(entry.get("label", UNNAMED))))
    if len({type(row.key) for row in rows}) > 1:
        raise FormatError(f"{path} has `frame` on some lines and `time_s` on others; use one of them")
    return rows


def _frame_number(value: Any) -> int:
    whole = isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer()
    if not whole or value < 0:
        raise ValueError(f"frame {value!r} is not a whole number from 0")
    return int(value)


def _time(value: Any) -> Fraction | None:
    return Fraction(str(float(value))) if math.isfinite(float(value)) else None


def _json(path: Path, text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:  # no JSON, no UTF-8, or a number of thousands of digits
        raise FormatError(f"{path}{where} is not JSON ({error})") from error
