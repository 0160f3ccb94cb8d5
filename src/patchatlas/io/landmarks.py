"""Read and write the mole marks that stand beside a picture, in the file format of aevri/mel.

Beside `photo.jpg` lies `photo.jpg.json`, or `photo.jpg.STEM.json` for a second set of marks: a JSON list of objects
with `uuid`, `x`, `y`, `is_uuid_canonical` and any other fields. What is accepted is what mel's own loader accepts
(mel.rotomap.moles at commit a15f0a3), save for numbers that JSON does not have (NaN, Infinity), which are refused
everywhere in a mark.

A mark names a pixel of the upright picture by its column and row. `continuous_point` and `mel_point` are the one place
where that meets the continuous plane: the point of a mark is the centre of its pixel.
"""

import json
import logging
import math
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patchatlas.errors import FormatError, InputError, LandmarkError, UsageError
from patchatlas.files import write_bytes

logger = logging.getLogger(__name__)

Json = str | int | float | bool | list[Any] | dict[str, Any] | None

_CANONICAL = "is_uuid_canonical"
_FIELDS = ("uuid", "x", "y", _CANONICAL)
_MOST_LISTED = 10
_EXAMPLE = '[{"uuid": "...", "x": 12, "y": 34, "is_uuid_canonical": true}]'


@dataclass(frozen=True)
class Landmark:
    """One mark.

    Attributes:
        uuid: identity across pictures. Text as a rule; any JSON value but null is kept as it is.
        x: column of the marked pixel of the upright picture, counted from 0.
        y: row of it.
        is_uuid_canonical: true if a person confirmed the identity; other JSON values are kept as they are.
        extra: all further fields (`kind`, `looks_like`, `confidence`, ...), as in the file.

    Raises:
        LandmarkError: `uuid` is None, or `extra` has a field that is an attribute.
    """

    uuid: Json
    x: int
    y: int
    is_uuid_canonical: Json
    extra: Mapping[str, Json] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.uuid is None:
            raise LandmarkError("a mark without a uuid has no identity; give it one")
        if doubled := [name for name in _FIELDS if name in self.extra]:
            raise LandmarkError(f"extra fields of a mark repeat {', '.join(doubled)}; set the attributes instead")

    @property
    def point(self) -> tuple[float, float]:
        """Centre of the marked pixel, (x, y) in the continuous plane of the upright picture."""
        return continuous_point(self.x, self.y)


def continuous_point(x: int, y: int) -> tuple[float, float]:
    """Centre of the pixel that mel stores as `x` (column), `y` (row): (x, y) in the continuous plane."""
    return x + 0.5, y + 0.5


def mel_point(x: float, y: float, *, size_hw: tuple[int, int]) -> tuple[int, int]:
    """Column and row that mel would store for a point of the continuous plane: the pixel that the point lies in.

    Raises:
        LandmarkError: the point lies in no pixel of a picture of `size_hw`; the far edges belong to none.
    """
    rows, columns = size_hw
    if not (0 <= x < columns and 0 <= y < rows):
        raise LandmarkError(
            f"the point ({x:g}, {y:g}) lies outside the picture; x runs from 0 to below {columns}, y to below {rows}"
        )
    return math.floor(x), math.floor(y)


def marks_path(image_path: str | Path, *, stem: str | None = None) -> Path:
    """Name of the mark file of a picture: `photo.jpg.json`, or `photo.jpg.STEM.json`.

    Raises:
        UsageError: `stem` is empty, is `meta` (that file holds no marks) or leads to another folder.
    """
    image_path = Path(image_path)
    if stem is None:
        return image_path.with_name(f"{image_path.name}.json")
    if not stem or stem == "meta" or "/" in stem or "\\" in stem:
        raise UsageError(f"{stem!r} names no set of marks; use the STEM of {image_path.name}.STEM.json (never meta)")
    return image_path.with_name(f"{image_path.name}.{stem}.json")


def read_marks(image_path: str | Path, *, stem: str | None = None, assume_canonical: bool = False) -> list[Landmark]:
    """The marks of a picture, in file order; none if it has no mark file.

    Args:
        image_path: the picture, not the mark file.
        stem: which set of marks (see `marks_path`).
        assume_canonical: read a file from before `is_uuid_canonical` existed as if a person had confirmed every mark
            that lacks it, with a warning. So did mel's loader of June 2017.

    Raises:
        InputError: the picture does not exist, or its mark file may not be opened.
        FormatError: the mark file is not what mel would load.
        LandmarkError: a mark has the uuid null.
    """
    if not Path(image_path).is_file():
        raise InputError(f"there is no picture {image_path}; marks are read for a picture that exists")
    path = marks_path(image_path, stem=stem)
    return parse_marks(read_content(path), path, assume_canonical=assume_canonical)


def read_content(path: Path) -> bytes | None:
    """The bytes of a mark file, `None` if there is none.

    Raises:
        InputError: it may not be opened, or is no regular file.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a pipe would wait for its writer
            raise InputError(f"cannot open the mark file {path}: it is no file but a pipe or device; move it away")
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot open the mark file {path}: {error.strerror}") from error


def parse_marks(content: bytes | None, path: Path, *, assume_canonical: bool = False) -> list[Landmark]:
    """The marks in the bytes of a mark file; none in no file. As `read_marks`, but nothing is opened.

    Raises:
        FormatError: this is not what mel would load.
        LandmarkError: a mark has the uuid null.
    """
    if content is None:
        return []
    entries = _entries(content, path)
    marks = [_mark(entry, f"entry {n} of {path}", assume_canonical) for n, entry in enumerate(entries, start=1)]
    if filled := sum(_CANONICAL not in entry for entry in entries):
        logger.warning("%s is of an old format: %d mark(s) without %s taken as confirmed", path, filled, _CANONICAL)
    return marks


def find_mark(marks: Sequence[Landmark], uuid: str, *, path: str | Path = "the mark file") -> Landmark:
    """The one mark with this uuid. A uuid that is not text is found by its JSON text: the number 17 by `17`.

    Args:
        marks: marks of one picture.
        uuid: what to look for, letter by letter.
        path: where the marks came from, for the messages.

    Raises:
        LandmarkError: no mark has the uuid (the message lists those there are), or several have.
    """
    found = [(n, mark) for n, mark in enumerate(marks, start=1) if _text(mark.uuid) == uuid]
    if len(found) == 1:
        return found[0][1]
    if found:
        places = ", ".join(f"entry {n} at ({mark.x}, {mark.y})" for n, mark in found)
        raise LandmarkError(f"{path} has {len(found)} marks with the uuid {uuid!r}: {places}; keep one of them")
    if not marks:
        raise LandmarkError(
            f"{path} has no marks (or does not exist), so none with the uuid {uuid!r}; "
            "mark one first, or name the point itself"
        )
    known = [repr(_text(mark.uuid)) for mark in marks]
    rest = f" and {len(known) - _MOST_LISTED} more" if len(known) > _MOST_LISTED else ""
    raise LandmarkError(
        f"{path} has no mark with the uuid {uuid!r}; it has {', '.join(known[:_MOST_LISTED])}{rest}; use one of them"
    )


def write_marks(path: str | Path, marks: Sequence[Landmark]) -> None:
    """Write a mark file (see `marks_path`) in one step, byte for byte as mel writes it.

    Raises:
        InputError: the folder does not exist.
        LandmarkError: a mark holds a value that JSON does not have.
    """
    write_bytes(path, with_marks(None, marks, Path(path)))


def with_marks(content: bytes | None, marks: Sequence[Landmark], path: Path) -> bytes:
    """The bytes of a mark file with more marks at its end, as mel writes it.

    What the file holds already is kept value by value, in its order: a mark at x = 10.9 stays there, though mel and
    `Landmark` would take it for 10.

    Args:
        content: bytes of the file as it is, `None` if there is none.
        marks: what to add.
        path: the file, for the messages.

    Raises:
        FormatError: `content` is not what mel would load.
        LandmarkError: a mark holds a value that JSON does not have.
    """
    parse_marks(content, path)  # refuses what cannot be kept
    records = [] if content is None else list(_entries(content, path))
    for n, mark in enumerate(marks, start=1):
        record = {**mark.extra, "uuid": mark.uuid, "x": mark.x, "y": mark.y, _CANONICAL: mark.is_uuid_canonical}
        if problem := _not_json(record):
            raise LandmarkError(f"cannot write mark {n} to {path}: {problem}; replace the value")
        records.append(record)
    # mel calls json.dump with these settings and leaves ensure_ascii on.
    text = json.dumps(records, indent=4, sort_keys=True, separators=(",", ": "))
    return f"{text}\n".encode("ascii")


def _entries(content: bytes, path: Path) -> list[Any]:
    try:
        # json.loads refuses a byte order mark; decoding here keeps it from guessing UTF-16 or UTF-32.
        loaded = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{path} is not JSON ({error}); restore it from a copy, or delete it to start anew"
        ) from error
    if loaded == {}:  # mel loads it as no marks
        return []
    if not isinstance(loaded, list):
        raise FormatError(f"{path} holds {_kind(loaded)}, a mark file holds a list of marks; see {_EXAMPLE}")
    return loaded


def _mark(entry: Json, where: str, assume_canonical: bool) -> Landmark:
    if not isinstance(entry, dict):
        raise FormatError(f"{where} is {_kind(entry)}, a mark is an object; see {_EXAMPLE}")
    if _CANONICAL not in entry and not assume_canonical:
        raise FormatError(
            f"{where} has no {_CANONICAL!r}: an old file, from before mel had that field, which today's mel refuses; "
            f"add it, or read with assume_canonical=True to take such identities as confirmed by a person"
        )
    for name in ("uuid", "x", "y"):
        if name not in entry:
            raise FormatError(f"{where} has no {name!r}; add it or remove the mark")
    if entry["uuid"] is None:
        raise LandmarkError(f"{where} has the uuid null, so no identity; give it a uuid or remove the mark")
    if problem := _not_json(entry):
        raise FormatError(f"{where} cannot be kept: {problem}; mend or remove the mark")
    return Landmark(
        uuid=entry["uuid"],
        x=_whole(entry["x"], "x", where),
        y=_whole(entry["y"], "y", where),
        is_uuid_canonical=entry.get(_CANONICAL, True),
        extra={name: value for name, value in entry.items() if name not in _FIELDS},
    )


def _whole(value: Any, name: str, where: str) -> int:
    """A coordinate as mel reads it: Python's `int`, which cuts towards zero and takes "12" and true."""
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise FormatError(f"{where} has {name} = {value!r}, which is no pixel number; use a whole number") from error


def _not_json(record: dict[str, Any]) -> str:
    """Why strict JSON cannot hold `record`; empty if it can."""
    try:
        json.dumps(record, allow_nan=False)
    except ValueError:
        return "it holds NaN or Infinity, numbers that JSON does not have"
    except RecursionError:
        return "it is nested too deeply"
    except TypeError as error:
        return str(error)
    return ""


def _text(uuid: Json) -> str:
    return uuid if isinstance(uuid, str) else json.dumps(uuid)


def _kind(value: Json) -> str:
    if value is None:
        return "null"
    return {dict: "an object", list: "a list", str: "text", bool: "true or false"}.get(type(value), "a number")
