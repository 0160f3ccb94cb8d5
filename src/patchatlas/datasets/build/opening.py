"""The manifest before work begins: read or migrated, with what killed runs left, new pictures, and captions."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from patchatlas.datasets.build.merge import absorb, locked
from patchatlas.datasets.build.settings import Settings
from patchatlas.datasets.captions import merge_captions
from patchatlas.datasets.migrate import migrate
from patchatlas.datasets.placement import require_bucket
from patchatlas.datasets.recipe import Recipe
from patchatlas.datasets.scan import read_record, scan_folder, source_path
from patchatlas.errors import InputError
from patchatlas.files import write_text
from patchatlas.geometry.bucket_tables import learn_table
from patchatlas.geometry.buckets import Hw, bucket_name
from patchatlas.io.bucket_tables import read_table
from patchatlas.io.disk import disk_errors
from patchatlas.io.manifest import FORMAT_VERSION, MIGRATE, ManifestRows, Record, read_manifest, write_manifest
from patchatlas.io.reasons import PictureError

log = logging.getLogger(__name__)

LEARNT_TABLE = "_buckets.txt"
"""Where a learnt bucket table is kept, below the derived folder: pictures that come later must not move the others."""

OnScan = Callable[[int, int], None]
"""Called with pictures read and pictures to be read."""


@dataclass(frozen=True)
class Opened:
    """A manifest that is ready, on the disk as here.

    Attributes:
        records: all of them.
        recipe: with the bucket table that is in force.
    """

    records: list[Record]
    recipe: Recipe


def require_folders(settings: Settings) -> None:
    """Refuse a folder of pictures, or one for the manifest, that is not there.

    Raises:
        InputError: it is not.
    """
    if not settings.input_dir.is_dir():
        raise InputError(f"there is no folder {settings.input_dir}; check --input-dir")
    if not settings.manifest.parent.is_dir():
        raise InputError(f"there is no folder {settings.manifest.parent} for {settings.manifest.name}; create it first")


def open_manifest(settings: Settings, *, on_scan: OnScan | None = None) -> Opened:
    """Make or continue the manifest; one worker at a time, and the others then find it done.

    Raises:
        InputError: a record has no bucket and `migrate` is not among the passes, a table was learnt otherwise, or
            pictures would lose their features to another table.
        FormatError: a manifest, journal or captions file that cannot be read.
        PictureError: a picture that cannot be used, if `strict`.
        ResourceError: the disk is full, or a folder may not be written.
    """
    with locked(settings.manifest):
        recipe = settings.recipe
        if settings.learn_buckets is not None:
            recipe = replace(recipe, buckets=_kept_table(settings) or _learnt_table(settings))
        known, on_disk = _current(settings, recipe)
        records = _scanned(settings, recipe, known, on_scan)
        if settings.captions is not None:
            merged = merge_captions(records, settings.captions, input_dir=settings.input_dir)
            records = merged.records
            if merged.unmatched:
                log.warning(
                    "%d captions are of no picture here, the first of %r", len(merged.unmatched), merged.unmatched[0]
                )
        if settings.strict:
            _require_read(records)
        if records != on_disk:
            with disk_errors(settings.manifest):
                write_manifest(settings.manifest, records)
    _require_buckets(records, recipe)
    return Opened(records, recipe)


def read_if_current(manifest: Path) -> list[Record] | None:
    """The records of a manifest, or `None` if a line of it is of an earlier version."""
    if any(row.get("format_version") != FORMAT_VERSION for row in ManifestRows(manifest)):
        return None
    return read_manifest(manifest)


def _current(settings: Settings, recipe: Recipe) -> tuple[list[Record], list[Record] | None]:
    """The records with what killed runs left, migrated if so asked, and what the file holds, if that is current."""
    if not settings.manifest.exists():
        return [], None
    if "migrate" not in settings.passes:
        records = absorb(settings.manifest, read_manifest(settings.manifest), settings.derived_dir)
        return records, records
    before = read_if_current(settings.manifest)
    if before is not None:  # what a journal says is of the pictures as they were: it goes first
        before = absorb(settings.manifest, before, settings.derived_dir)
    after = migrate(
        ManifestRows(settings.manifest),
        input_dir=settings.input_dir,
        derived_dir=settings.derived_dir,
        table=recipe.buckets,
        rule=recipe.rule,
        max_pixels=settings.max_pixels,
        workers=settings.workers or 4,
    )
    if before is None:
        return after, None
    if not settings.backup_old:
        _require_same_buckets(before, after)
    return [_still_skipped(old, new) for old, new in zip(before, after, strict=True)], before


def _require_same_buckets(before: list[Record], after: list[Record]) -> None:
    """Refuse another table for pictures that have features; nothing is written yet.

    Raises:
        InputError: unchanged pictures would get another bucket and so lose features.
    """
    moved = [
        (old, new)
        for old, new in zip(before, after, strict=True)
        if old.features and old.sha256 == new.sha256 and old.aspect_bucket != new.aspect_bucket
    ]
    if moved:
        old, new = moved[0]
        names = [bucket_name(record.aspect_bucket) for record in (old, new) if record.aspect_bucket is not None]
        raise InputError(
            f"{len(moved)} of {len(before)} pictures would get another bucket ({old.image_path}: {' -> '.join(names)}) "
            "and lose the features that they have; give the bucket table that these were made with, or --backup-old to "
            "begin anew, or another --output-jsonl and --derived-dir"
        )


def _still_skipped(before: Record, after: Record) -> Record:
    """A picture whose pixels could not be read stays skipped until its file is another one, or it can be encoded."""
    same_file = before.sha256 is not None and before.sha256 == after.sha256
    if before.status == "skipped" and before.aspect_bucket is not None and same_file:
        return replace(after, status="skipped", error=before.error)
    return after


def _scanned(settings: Settings, recipe: Recipe, known: list[Record], on_scan: OnScan | None) -> list[Record]:
    """The known records, those of them that could not be read tried again, and new ones after them."""
    read = partial(read_record, table=recipe.buckets, rule=recipe.rule, max_pixels=settings.max_pixels)
    again = [
        read(record, source_path(record.image_path, settings.input_dir))
        if record.status == "skipped" and record.aspect_bucket is None
        else record
        for record in known
    ]
    new = scan_folder(
        settings.input_dir,
        table=recipe.buckets,
        rule=recipe.rule,
        skip_dirs=[settings.derived_dir],
        known=known,
        max_pixels=settings.max_pixels,
        workers=settings.workers or 4,
        on_progress=None if on_scan is None else lambda done, total, _: on_scan(done, total),
    )
    return [*again, *new]


def _learnt_table(settings: Settings) -> tuple[Hw, ...]:
    """A table learnt now from all pictures, and kept."""
    assert settings.learn_buckets is not None
    known, _ = _current(settings, settings.recipe)
    records = _scanned(settings, settings.recipe, known, None)
    sizes = [(record.height, record.width) for record in records if record.height and record.width]
    table = learn_table(sizes, count=settings.learn_buckets)
    path = settings.derived_dir / LEARNT_TABLE
    with disk_errors(path):
        lines = [_learnt_by(settings.learn_buckets), *map(bucket_name, table)]
        write_text(path, "".join(f"{line}\n" for line in lines))
    return table


def _kept_table(settings: Settings) -> tuple[Hw, ...] | None:
    """The table that was learnt before, if one was.

    Raises:
        InputError: another number of buckets was asked for then.
        FormatError: the file holds no table.
    """
    assert settings.learn_buckets is not None
    path = settings.derived_dir / LEARNT_TABLE
    if not path.is_file():
        return None
    table = read_table(path)
    wanted, found = _learnt_by(settings.learn_buckets), path.read_text(encoding="utf-8").partition("\n")[0]
    if found != wanted:
        raise InputError(
            f"{path} does not begin with {wanted!r} but with {found!r}; give --buckets as it was learnt, or another "
            "--derived-dir, or remove the file to learn anew (with --pass-filter migrate and --backup-old)"
        )
    return table


def _learnt_by(count: int) -> str:
    """First line of a learnt table, a comment to all other readers."""
    return f"# learn:{count}"


def _require_read(records: list[Record]) -> None:
    for record in records:
        if record.error is not None and record.aspect_bucket is None:
            raise PictureError(record.error.message, reason=record.error.type)


def _require_buckets(records: list[Record], recipe: Recipe) -> None:
    for record in records:
        if record.status == "ok" and record.aspect_bucket is None:
            raise InputError(f"aspect_bucket not found, {MIGRATE}: {record.image_path}")
        if record.aspect_bucket is not None and record.aspect_bucket not in recipe.buckets:
            require_bucket(record, recipe.buckets, rule=recipe.rule)
