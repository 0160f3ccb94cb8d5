"""Read and write MOTChallenge text: boxes of objects with identities, frame by frame, and `seqinfo.ini`.

One box a line, `frame,id,left,top,width,height,confidence,class,visibility` in ground truth and
`frame,id,left,top,width,height,confidence,-1,-1,-1` in detections and results (Milan et al., MOT16, arXiv 1603.00831,
section 4 and table 6). There frames, identities and pixels count from 1: the first pixel's corner is (1, 1), here it is
(0, 0). That is changed here and nowhere else; frames keep the count of the file.
"""

import configparser
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchatlas.errors import FormatError, InputError
from patchatlas.files import write_text
from patchatlas.reid.boxes import Box, Observation

NO_ID = -1
"""Identity of a detection that has none."""

_LEAST_FIELDS = 6
_ABSENT = -1.0


@dataclass(frozen=True)
class MotRow:
    """One line.

    Attributes:
        frame: from 1.
        id: identity, from 1 as a rule; `NO_ID` for a detection.
        box: xyxy in the continuous plane, where the first pixel begins at 0; not clipped.
        confidence: of a detection; in ground truth 1 for rows that are scored and 0 for rows that are not.
        kind: number of the class in ground truth, None where the line has none.
        visibility: share of the object that can be seen, 0..1, None where the line has none.
    """

    frame: int
    id: int
    box: Box
    confidence: float = 1.0
    kind: int | None = None
    visibility: float | None = None


@dataclass(frozen=True)
class MotSequence:
    """What `seqinfo.ini` says of a sequence.

    Attributes:
        name: of the sequence.
        frames: how many.
        fps: frames a second.
        size_hw: rows and columns.
    """

    name: str
    frames: int
    fps: float
    size_hw: tuple[int, int]


def read_rows(path: str | Path) -> list[MotRow]:
    """The lines of a MOTChallenge text file, in file order. Empty lines are passed over.

    Numbers that are not finite are kept as they are: what a box is worth is for its reader to judge.

    Raises:
        InputError: the file cannot be opened.
        FormatError: a line with fewer than six fields, a field that is no number, a frame below 1; says which line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"cannot open {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is no UTF-8 text ({error}); MOTChallenge files are comma-separated text") from error
    return [_row(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()]


def write_rows(path: str | Path, rows: Iterable[MotRow]) -> None:
    """Write rows in their order, in one step; the same rows are the same bytes.

    Rows with a `kind` are written as ground truth, the others as results.

    Raises:
        InputError: the folder does not exist.
    """
    write_text(path, "".join(f"{_line(row)}\n" for row in rows))


def rows_of(observations: Iterable[Observation]) -> list[MotRow]:
    """Tracks as rows, by frame and then by track. The video's frame 0 becomes frame 1."""
    rows = [MotRow(seen.frame + 1, seen.track, seen.box, seen.score) for seen in observations]
    return sorted(rows, key=lambda row: (row.frame, row.id))


def read_sequence(path: str | Path) -> MotSequence:
    """What a `seqinfo.ini` says.

    Raises:
        InputError: the file cannot be opened.
        FormatError: it has no section `Sequence`, or a value is absent or no number.
    """
    path = Path(path)
    parser = configparser.ConfigParser()
    try:
        parser.read_string(path.read_text(encoding="utf-8-sig"), source=str(path))
        section = parser["Sequence"]
        return MotSequence(
            name=section["name"],
            frames=int(section["seqLength"]),
            fps=float(section["frameRate"]),
            size_hw=(int(section["imHeight"]), int(section["imWidth"])),
        )
    except OSError as error:
        raise InputError(f"cannot open {path}: {error.strerror}") from error
    except (configparser.Error, KeyError, ValueError) as error:
        raise FormatError(
            f"{path} is no seqinfo.ini ({error}); it needs [Sequence] with name, seqLength, frameRate, imWidth and "
            "imHeight"
        ) from error


def write_sequence(path: str | Path, sequence: MotSequence) -> None:
    """Write `seqinfo.ini` in one step.

    Raises:
        InputError: the folder does not exist.
    """
    rows, columns = sequence.size_hw
    write_text(
        path,
        f"[Sequence]\nname={sequence.name}\nimDir=img1\nframeRate={sequence.fps:g}\nseqLength={sequence.frames}\n"
        f"imWidth={columns}\nimHeight={rows}\nimExt=.jpg\n",
    )


def _row(line: str, where: str) -> MotRow:
    fields = [field.strip() for field in line.split(",")]
    if len(fields) < _LEAST_FIELDS:
        raise FormatError(
            f"{where} has {len(fields)} fields; a line is frame,id,left,top,width,height,confidence,... separated by "
            "commas"
        )
    try:
        numbers = [float(field) for field in fields]
    except ValueError as error:
        raise FormatError(f"{where}: {error}; every field is a number") from error
    frame, identity, left, top, width, height, *rest = numbers
    if not (_whole(frame) and frame >= 1 and _whole(identity)):
        raise FormatError(f"{where}: frame {fields[0]} and id {fields[1]} must be whole numbers, frames from 1")
    confidence = rest[0] if rest else 1.0
    # Ground truth has nine fields; results have ten, of which the last three are -1.
    has_kind = len(rest) >= 2 and rest[1] >= 1 and _whole(rest[1])
    has_visibility = has_kind and len(rest) >= 3
    return MotRow(
        frame=int(frame),
        id=int(identity),
        box=(left - 1, top - 1, left - 1 + width, top - 1 + height),
        confidence=confidence,
        kind=int(rest[1]) if has_kind else None,
        visibility=rest[2] if has_visibility else None,
    )


def _line(row: MotRow) -> str:
    x0, y0, x1, y1 = row.box
    box = (x0 + 1, y0 + 1, x1 - x0, y1 - y0)
    tail: Sequence[float] = (row.confidence, _ABSENT, _ABSENT, _ABSENT)
    if row.kind is not None:
        tail = (row.confidence, float(row.kind), 1.0 if row.visibility is None else row.visibility)
    return ",".join([str(row.frame), str(row.id), *(_number(value) for value in (*box, *tail))])


def _number(value: float) -> str:
    """At most six decimals, none that say nothing: a millionth of a pixel is below any rounding that matters."""
    return f"{round(value, 6) + 0.0:.6f}".rstrip("0").rstrip(".")


def _whole(value: float) -> bool:
    return math.isfinite(value) and value == int(value)
