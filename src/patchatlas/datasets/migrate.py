"""Bring a manifest to version 3: sizes, orientation, hash and bucket of each picture; nothing that it held is lost.

Manifests of earlier projects (`format_version` 2, or none) hold image_path, image_id, width, height, aspect_bucket,
caption, sometimes a vector inline as a list of numbers, and fields that only they know.
"""

import hashlib
import io
import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from patchatlas.datasets.ids import image_id
from patchatlas.datasets.placement import place
from patchatlas.datasets.scan import OnProgress, in_order, read_record, source_path
from patchatlas.errors import FormatError
from patchatlas.files import write_bytes
from patchatlas.geometry.buckets import MEGAPIXEL_BUCKETS, BucketRule, Hw
from patchatlas.io.disk import disk_errors
from patchatlas.io.images import MAX_PIXELS
from patchatlas.io.manifest import (
    FORMAT_VERSION,
    KNOWN,
    Record,
    Row,
    refuse_later,
    require_unique,
)

log = logging.getLogger(__name__)

INLINE_VECTORS = ("dinov3_embedding",)
"""Fields that earlier projects filled with a vector of numbers. Here they become .npy files below `migrated/`.

They are no features of this manifest: nothing says which network, layer and input size made them."""

_OF_PICTURE = (
    "width", "height", "sha256", "exif_orientation", "aspect_bucket", "resized", "crop", "crop_source",
)  # fmt: skip
_UNSEEN = frozenset({"missing", "unreadable"})
"""Reasons that say nothing of what the picture's bytes are."""

_OLD, _VECTORS = "old_values", "migrated_vectors"
_FROM_PICTURE = ("width", "height", "aspect_bucket")
_LONGEST_ID = 200  # bytes; file names hold 255 on the usual file systems, and suffixes need some


def migrate(
    rows: Iterable[Row],
    *,
    input_dir: str | Path,
    derived_dir: str | Path,
    table: tuple[Hw, ...] = MEGAPIXEL_BUCKETS,
    rule: BucketRule = "log",
    max_pixels: int = MAX_PIXELS,
    min_side: int = 1,
    workers: int = 4,
    on_progress: OnProgress | None = None,
) -> list[Record]:
    """Records of version 3 from the lines of a manifest of any version, in their order.

    * An id that is unique and can name a file stays; others are made from the path.
    * Header and hash of every picture are read again. One that was read before and is not here now stays as it was.
    * A record gets the bucket that the table and the rule give. Where that moves the bucket, or size, orientation or
      bytes of the picture are others than before, the record loses its features: they are of something else.
    * A value that must give way is kept in `old_values`, and a field that is not known stays as it is.
    * Inline vectors become files below `derived_dir`/migrated, named in `migrated_vectors`.

    Args:
        rows: JSON objects, iterated twice: a `ManifestRows`, or a list.
        input_dir: where relative image paths begin, see `source_path`.
        derived_dir: where vectors are written.
        table: see `scan_folder`; so are the rest.

    Raises:
        FormatError: a line without image_path, one of version 3 that is not of the format, or of a later version.
        ResourceError: the disk is full, or the folder may not be written.
    """
    derived = Path(derived_dir)
    ids = _ids(rows)
    unseen: list[str] = []

    def work(item: tuple[int, Row, str]) -> Record:
        number, row, name = item
        try:
            before = _renamed(row, name) if row.get("format_version") == FORMAT_VERSION else _upgraded(row, name)
        except FormatError as error:
            raise FormatError(f"record {number}: {error}") from error
        record = replace(before, extra=_without_vectors(before, derived))
        path = source_path(record.image_path, input_dir)
        record = read_record(record, path, table=table, rule=rule, max_pixels=max_pixels, min_side=min_side)
        if record.error is not None and record.error.type not in _UNSEEN:  # whatever was known is of other bytes
            record = Record(
                image_path=record.image_path,
                image_id=record.image_id,
                caption=record.caption,
                status="skipped",
                error=record.error,
                extra=record.extra,
            )
        elif record.error is not None and _is_read(before):
            unseen.append(record.image_path)
            record = place(replace(record, status="ok", error=None), table, rule=rule)
        same = all(getattr(before, name) == getattr(record, name) for name in _OF_PICTURE)
        return replace(record, features=record.features if same else {}, extra=_without_repeats(record))

    items = ((number, row, name) for number, (row, name) in enumerate(zip(rows, ids, strict=True), start=1))
    records = list(in_order(work, items, total=len(ids), workers=workers, on_progress=on_progress))
    require_unique(records, where="the migrated manifest")
    if unseen:
        log.warning(
            "%d pictures are not here to be read again, the first of them %s; their records stay",
            len(unseen),
            min(unseen),
        )
    return records


def _ids(rows: Iterable[Row]) -> list[str]:
    """For each row its own id if it can stay, else one made from its path."""
    given: list[tuple[str, str | None]] = []
    users: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        path, own = row.get("image_path"), row.get("image_id")
        if not isinstance(path, str) or not path:
            raise FormatError(f"record {number}: image_path must be text, given {path!r}")
        usable = isinstance(own, str) and own.isprintable() and not set("./\\") & set(own)
        usable = usable and 0 < len(str(own).encode()) <= _LONGEST_ID
        given.append((path, str(own) if usable else None))
        key = str(own).casefold()  # some file systems take A.npy and a.npy for one
        users[key] = users.get(key, 0) + usable
    return [own if own is not None and users[own.casefold()] == 1 else image_id(path) for path, own in given]


def _upgraded(row: Row, name: str) -> Record:
    """A record of version 3, with nothing known of its picture yet, from a line of an earlier version.

    Raises:
        FormatError: the line is of a later version.
    """
    refuse_later(row.get("format_version"))
    stays = {"image_path", "format_version"}
    stays |= {"image_id"} if row.get("image_id") == name else set()
    stays |= {"caption"} if isinstance(row.get("caption"), str) else set()
    ours = KNOWN | {_OLD, _VECTORS}
    old = {key: value for key, value in row.items() if key in ours - stays and value is not None}
    extra = {key: value for key, value in row.items() if key not in ours}
    caption = row["caption"] if "caption" in stays else None
    return Record(
        image_path=row["image_path"], image_id=name, caption=caption, extra={**extra, _OLD: old} if old else extra
    )


def _renamed(row: Row, name: str) -> Record:
    """A record of version 3; if its id cannot stay, with a new one and without features, whose files that id names.

    Raises:
        FormatError: the line is not of the format.
    """
    if row.get("image_id") == name:
        return Record.from_json(row)
    old = {**row.get(_OLD, {}), "image_id": row.get("image_id")}
    return Record.from_json({**row, "image_id": name, "features": {}, _OLD: old})


def _is_read(record: Record) -> bool:
    known = (record.width, record.height, record.sha256, record.exif_orientation)
    return record.status == "ok" and None not in known


def _without_repeats(record: Record) -> dict[str, Any]:
    """The unknown fields, less old values that are equal to what the record now says."""
    extra = dict(record.extra)
    old = extra.pop(_OLD, None)
    if not isinstance(old, dict):
        return dict(record.extra)
    now = record.to_json()
    left = {key: value for key, value in old.items() if key not in _FROM_PICTURE or value != now[key]}
    return {**extra, _OLD: left} if left else extra


def _without_vectors(record: Record, derived: Path) -> dict[str, Any]:
    """The unknown fields, with inline vectors written to files and what these are in `migrated_vectors`."""
    extra = dict(record.extra)
    moved = {}
    for name in INLINE_VECTORS:
        values = extra.get(name)
        if isinstance(values, list) and values and all(_is_number(value) for value in values):
            moved[name] = _write_vector(values, derived, f"migrated/{name}/{record.image_id}.npy")
            del extra[name]
    return {**extra, _VECTORS: {**extra.get(_VECTORS, {}), **moved}} if moved else extra


def _is_number(value: Any) -> bool:
    """Whether JSON's value is a number that float64 holds exactly."""
    return type(value) is float or (type(value) is int and abs(value) <= 2**53)


def _write_vector(values: list[float | int], derived: Path, file: str) -> Row:
    """Write numbers as .npy: float32 where that keeps each of them exactly, else float64."""
    exact = np.array(values, dtype=np.float64)
    with np.errstate(over="ignore"):
        short = exact.astype(np.float32)
    stored = short if np.array_equal(short.astype(np.float64), exact) else exact
    content = io.BytesIO()
    np.lib.format.write_array(content, stored, allow_pickle=False)
    path = derived / file
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content.getvalue())
    return {
        "file": file,
        "dim": len(values),
        "dtype": "fp32" if stored is short else "fp64",
        "bytes": len(content.getvalue()),
        "sha256": hashlib.sha256(content.getvalue()).hexdigest(),
    }
