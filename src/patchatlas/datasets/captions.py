"""Put the user's own captions, from a JSONL file of theirs, into the records of a manifest."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from patchatlas.datasets.scan import source_path
from patchatlas.errors import FormatError
from patchatlas.io.manifest import ManifestRows, Record


@dataclass(frozen=True)
class Merged:
    """Records with their captions.

    Attributes:
        records: all records, in their order.
        changed: how many of them have another caption than before.
        unmatched: image_path or image_id of the lines that fit no record, in their order.
    """

    records: list[Record]
    changed: int
    unmatched: list[str]


def merge_captions(records: Sequence[Record], path: str | Path, *, input_dir: str | Path | None = None) -> Merged:
    """Records with the captions of a JSONL file: objects with `caption` and `image_path` or `image_id`.

    A line that names both must mean one record. Other keys are passed over; records that no line names keep their
    caption.

    Args:
        records: those of the manifest.
        path: the JSONL file.
        input_dir: where relative image paths begin. With it a line may name a picture by any path that leads to it
            (see `source_path`), without it only by the path of the record.

    Raises:
        InputError: there is no such file.
        FormatError: a line without caption or name, one that names two records, or two lines that differ about one.
    """

    def place(image_path: str) -> str:
        plain = str(PurePosixPath(image_path))
        return plain if input_dir is None else os.path.abspath(source_path(plain, input_dir))

    by_path = {place(record.image_path): n for n, record in enumerate(records)}
    by_id = {record.image_id: n for n, record in enumerate(records)}
    captions: dict[int, str] = {}
    unmatched = []
    for number, row in enumerate(ManifestRows(path), start=1):
        caption, name = row.get("caption"), row.get("image_path", row.get("image_id"))
        if not isinstance(caption, str) or not isinstance(name, str):
            raise FormatError(
                f"{path}, line {number}: a line needs a text `caption` and an `image_path` or `image_id`, given {row!r}"
            )
        found = set()
        if isinstance(row.get("image_path"), str) and place(row["image_path"]) in by_path:
            found.add(by_path[place(row["image_path"])])
        if isinstance(row.get("image_id"), str) and row["image_id"] in by_id:
            found.add(by_id[row["image_id"]])
        if len(found) > 1:
            raise FormatError(f"{path}, line {number}: its image_path and image_id are of different records; mend one")
        if not found:
            unmatched.append(name)
            continue
        which = found.pop()
        if captions.setdefault(which, caption) != caption:
            raise FormatError(f"{path}, line {number}: {name!r} has another caption on an earlier line; remove one")
    merged = [replace(r, caption=captions[n]) if n in captions else r for n, r in enumerate(records)]
    changed = sum(before.caption != after.caption for before, after in zip(records, merged, strict=True))
    return Merged(merged, changed, unmatched)
