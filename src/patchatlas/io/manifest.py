"""The manifest of a data set: one JSON object a line, one line a picture (docs/formats/manifest-v3.md).

Sizes are (h, w) in Python but `"WxH"` and `[w, h]` in the file, as the readers of earlier versions expect; grids are
`[rows, cols]` in both.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from patchatlas.errors import FormatError, InputError
from patchatlas.files import write_bytes
from patchatlas.geometry.buckets import Hw, bucket_name, parse_bucket
from patchatlas.io.reasons import REASONS, Reason

FORMAT_VERSION = 3
MIGRATE = "run with --pass-filter migrate"

Row = dict[str, Any]
"""One line of a manifest as JSON has it."""

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class FeatureEntry:
    """One stored feature of one picture.

    Attributes:
        file: posix path below the derived folder.
        grid: rows and columns of its patches, row-major; None for vectors that belong to no place.
        dim: length of a vector.
        dtype: how the numbers are stored: `fp32`, `fp16`, `bf16`, `int8`.
        bytes: size of the file.
        sha256: hash of the file, in hex.
        stamp: digest of the stamp of the feature, in hex.
    """

    file: str
    grid: tuple[int, ...] | None
    dim: int
    dtype: str
    bytes: int
    sha256: str
    stamp: str

    def to_json(self) -> Row:
        """Plain values, in the order of the format."""
        return {**vars(self), "grid": None if self.grid is None else list(self.grid)}

    @classmethod
    def from_json(cls, row: Row) -> "FeatureEntry":
        """The inverse of `to_json`.

        Raises:
            FormatError: a key that is absent or of another kind.
        """
        return FeatureEntry(
            file=_text(row, "file"),
            grid=_optional(row, "grid", _whole_numbers),
            dim=_whole(row, "dim"),
            dtype=_text(row, "dtype"),
            bytes=_whole(row, "bytes"),
            sha256=_hex(row, "sha256"),
            stamp=_hex(row, "stamp"),
        )


@dataclass(frozen=True, kw_only=True)
class RecordError:
    """Why a picture was skipped.

    Attributes:
        type: one of `patchatlas.io.reasons.REASONS`.
        message: a sentence for people.
    """

    type: Reason
    message: str

    def to_json(self) -> Row:
        """Plain values."""
        return {"type": self.type, "message": self.message}

    @classmethod
    def from_json(cls, row: Row) -> "RecordError":
        """The inverse of `to_json`.

        Raises:
            FormatError: a type that is not on the list.
        """
        kind = _text(row, "type")
        if kind not in REASONS:
            raise FormatError(f"error type {kind!r} does not exist; there are {', '.join(REASONS)}")
        return RecordError(type=kind, message=_text(row, "message"))


@dataclass(frozen=True, kw_only=True)
class Record:
    """One picture of a data set: where it is, how it lies in its bucket, what is stored of it.

    Attributes:
        image_path: posix path, relative to the input folder in records that a scan made.
        image_id: unique in the manifest and without a dot, so it can name files and shard members.
        width: columns of the upright picture; None until it could be read.
        height: rows of the upright picture; None until it could be read.
        aspect_bucket: (h, w) of its bucket; None until it has one.
        caption: what it shows, in words; None if nobody said.
        sha256: hash of the picture file's bytes, in hex.
        exif_orientation: how the stored raster is turned to stand upright, 1 to 8.
        resized: (w, h) of the upright picture after it was scaled to cover the bucket.
        crop: (x, y, w, h) of the bucket in pixels of the scaled picture.
        crop_source: (x0, y0, x1, y1) of the bucket in pixels of the upright picture, exact.
        features: what is stored, by kind.
        status: `ok`, or `skipped` with an `error`.
        error: why it was skipped.
        extra: fields that this version does not know, as they came.
    """

    image_path: str
    image_id: str
    width: int | None = None
    height: int | None = None
    aspect_bucket: Hw | None = None
    caption: str | None = None
    sha256: str | None = None
    exif_orientation: int | None = None
    resized: tuple[int, int] | None = None
    crop: tuple[int, int, int, int] | None = None
    crop_source: tuple[Fraction, Fraction, Fraction, Fraction] | None = None
    features: Mapping[str, FeatureEntry] = field(default_factory=dict)
    status: Literal["ok", "skipped"] = "ok"
    error: RecordError | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.status == "ok") != (self.error is None):
            raise FormatError(f"{self.image_path}: a record has an error if, and only if, it was skipped")
        if not self.image_id or not self.image_id.isprintable() or set("./\\") & set(self.image_id):
            problem = "must not be empty or hold a dot, a slash or what cannot be printed"
            raise FormatError(f"image_id {self.image_id!r} {problem}; {MIGRATE}")
        known = KNOWN.intersection(self.extra)
        if known:
            raise FormatError(f"{self.image_path}: {', '.join(sorted(known))} must not be among the unknown fields")

    def to_json(self) -> Row:
        """Plain values: known keys first, in the order of the format, then the unknown ones as they came."""
        row: Row = {
            "image_path": self.image_path,
            "image_id": self.image_id,
            "width": self.width,
            "height": self.height,
            "aspect_bucket": None if self.aspect_bucket is None else bucket_name(self.aspect_bucket),
            "caption": self.caption,
            "format_version": FORMAT_VERSION,
            "sha256": self.sha256,
            "exif_orientation": self.exif_orientation,
            "resized": None if self.resized is None else list(self.resized),
            "crop": None if self.crop is None else list(self.crop),
            "crop_source": None if self.crop_source is None else [str(edge) for edge in self.crop_source],
            "features": {kind: self.features[kind].to_json() for kind in sorted(self.features)},
            "status": self.status,
            "error": None if self.error is None else self.error.to_json(),
            **self.extra,
        }
        if self.caption is None:
            del row["caption"]
        return row

    @classmethod
    def from_json(cls, row: Row) -> "Record":
        """The inverse of `to_json`.

        Raises:
            FormatError: another format version (the message says to migrate), or a value that the format forbids.
        """
        version = row.get("format_version")
        refuse_later(version)
        if version != FORMAT_VERSION and "aspect_bucket" not in row:
            raise FormatError(f"aspect_bucket not found for {row.get('image_path')!r}; {MIGRATE}")
        if version != FORMAT_VERSION:
            raise FormatError(f"format_version {version!r} is not {FORMAT_VERSION}; {MIGRATE}")
        status = _text(row, "status")
        if status not in ("ok", "skipped"):
            raise FormatError(f"status {status!r} is neither 'ok' nor 'skipped'")
        bucket = _optional(row, "aspect_bucket", _text)
        error = _optional(row, "error", _object)
        features = _object(row, "features")
        return Record(
            image_path=_text(row, "image_path"),
            image_id=_text(row, "image_id"),
            width=_optional(row, "width", _whole),
            height=_optional(row, "height", _whole),
            aspect_bucket=None if bucket is None else parse_bucket(bucket),
            caption=_optional(row, "caption", _text),
            sha256=_optional(row, "sha256", _hex),
            exif_orientation=_optional(row, "exif_orientation", _whole),
            resized=_optional(row, "resized", _pair),
            crop=_optional(row, "crop", _box),
            crop_source=_optional(row, "crop_source", _edges),
            features={kind: FeatureEntry.from_json(_object(features, kind)) for kind in features},
            status=cast("Literal['ok', 'skipped']", status),
            error=None if error is None else RecordError.from_json(error),
            extra={key: value for key, value in row.items() if key not in KNOWN},
        )


KNOWN = frozenset({*Record.__dataclass_fields__, "format_version"} - {"extra"})
"""Keys of the format; any other is kept as it came."""


class ManifestRows:
    """The lines of a JSONL file of any version, as JSON has them, read anew whenever they are iterated.

    Empty lines are passed over. Lines with long vectors are thus never in memory all at once.

    Raises:
        InputError: there is no such file.
        FormatError: while iterated: a line that is no JSON object, or not UTF-8; it names the line.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(f"there is no file {path}; check the name (`features build --input-dir` makes a manifest)")

    def __iter__(self) -> Iterator[Row]:
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield self._parsed(line, number)

    def _parsed(self, line: bytes, number: int) -> Row:
        try:
            row = json.loads(line, parse_constant=_finite, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{self.path}, line {number}: not JSON ({error}); restore or remove the line") from error
        if not isinstance(row, dict):
            raise FormatError(f"{self.path}, line {number}: a line holds one JSON object, given {type(row).__name__}")
        return row


def read_manifest(path: str | Path) -> list[Record]:
    """The records of a manifest of version 3, in the order of its lines.

    Raises:
        InputError: there is no such file.
        FormatError: a line that is not of the format, or an id or path that occurs twice; it names the record.
    """
    records = []
    for number, row in enumerate(ManifestRows(path), start=1):
        try:
            records.append(Record.from_json(row))
        except FormatError as error:
            raise FormatError(f"{path}, record {number}: {error}") from error
    require_unique(records, where=str(path))
    return records


def write_manifest(path: str | Path, records: Iterable[Record]) -> None:
    """Write records in the given order, in one step; the same records give the same bytes.

    Raises:
        InputError: the folder does not exist.
        FormatError: an id or path occurs twice.
    """
    records = list(records)
    require_unique(records, where=str(path))
    write_bytes(path, b"".join(to_line(record.to_json()) for record in records))


def to_line(row: Row) -> bytes:
    """One JSON object as a line of UTF-8; where a name is no Unicode text, with escapes."""
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # a file name that is not UTF-8 has lone surrogates
        return json.dumps(row, allow_nan=False).encode() + b"\n"


def refuse_later(version: object) -> None:
    """Refuse a format version that is later than ours.

    Raises:
        FormatError: it is.
    """
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise FormatError(f"format_version {version} is later than {FORMAT_VERSION}; use a later patchatlas")


def require_unique(records: Iterable[Record], *, where: str) -> None:
    """Refuse an id or a path that occurs twice.

    Raises:
        FormatError: it names both pictures.
    """
    by_id: dict[str, str] = {}
    paths: set[str] = set()
    for record in records:
        if record.image_path in paths:
            raise FormatError(f"{where}: {record.image_path!r} has two records; remove one")
        paths.add(record.image_path)
        other = by_id.setdefault(record.image_id, record.image_path)
        if other != record.image_path:
            raise FormatError(
                f"{where}: {other!r} and {record.image_path!r} have the same image_id {record.image_id!r}; {MIGRATE}"
            )


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no finite number; write null")
    return number


def _optional(row: Row, key: str, read: Callable[[Row, str], Value]) -> Value | None:
    return None if row.get(key) is None else read(row, key)


def _text(row: Row, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise FormatError(f"{key} must be text, given {value!r}")
    return value


def _hex(row: Row, key: str) -> str:
    value = _text(row, key)
    if len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise FormatError(f"{key} must be a SHA-256 in 64 lower-case hex digits, given {value!r}")
    return value


def _whole(row: Row, key: str) -> int:
    value = row.get(key)
    if type(value) is not int or value < 0:
        raise FormatError(f"{key} must be a whole number that is not negative, given {value!r}")
    return value


def _whole_numbers(row: Row, key: str) -> tuple[int, ...]:
    value = row.get(key)
    if not isinstance(value, list) or any(type(n) is not int or n < 0 for n in value):
        raise FormatError(f"{key} must be a list of whole numbers that are not negative, given {value!r}")
    return tuple(value)


def _pair(row: Row, key: str) -> tuple[int, int]:
    numbers = _whole_numbers(row, key)
    if len(numbers) != 2:
        raise FormatError(f"{key} must be [w, h], given {list(numbers)}")
    return numbers[0], numbers[1]


def _box(row: Row, key: str) -> tuple[int, int, int, int]:
    numbers = _whole_numbers(row, key)
    if len(numbers) != 4:
        raise FormatError(f"{key} must be [x, y, w, h], given {list(numbers)}")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _edges(row: Row, key: str) -> tuple[Fraction, Fraction, Fraction, Fraction]:
    value = row.get(key)
    if not isinstance(value, list) or len(value) != 4 or not all(isinstance(edge, str) for edge in value):
        raise FormatError(f"{key} must be four fractions as text, such as '13/2', given {value!r}")
    try:
        x0, y0, x1, y1 = (Fraction(edge) for edge in value)
    except (ValueError, ZeroDivisionError) as error:
        raise FormatError(f"{key} must be four fractions as text, such as '13/2', given {value!r}") from error
    return x0, y0, x1, y1


def _object(row: Row, key: str) -> Row:
    value = row.get(key)
    if not isinstance(value, dict):
        raise FormatError(f"{key} must be an object, given {value!r}")
    return value
