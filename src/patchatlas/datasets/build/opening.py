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
from patchatlas.geometry.bucket_tables import learn_table, parse_table
from patchatlas.geometry.buckets import Hw, bucket_name
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


def open_manifest(settings: Settings, *, on_scan: OnScan | None = None) -> Opened:
    """Make or continue the manifest; one worker at a time, and the others then find it done.

    Raises:
        InputError: there is no such folder, or a record has no bucket and `migrate` is not among the passes.
        FormatError: a manifest, journal or captions file that cannot be read.
        PictureError: a picture that cannot be used, if `strict`.
        ResourceError: the disk is full, or a folder may not be written.
    """
    if not settings.input_dir.is_dir():
        raise InputError(f"there is no folder {settings.input_dir}; check --input-dir")
    if not settings.manifest.parent.is_dir():
        raise InputError(f"there is no folder {settings.manifest.parent} for {settings.manifest.name}; create it first")
    with locked(settings.manifest):
        known, on_disk = _current(settings) if settings.manifest.exists() else ([], None)
        recipe = settings.recipe
        if settings.learn_buckets is not None:
            recipe = replace(recipe, buckets=_learnt_table(settings, known))
        records = _scanned(settings, recipe, known, on_scan)
        if settings.captions is not None:
            merged = merge_captions(records, settings.captions)
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


def _current(settings: Settings) -> tuple[list[Record], list[Record] | None]:
    """The records with what killed runs left, migrated if so asked, and what the file holds, if that is current."""
    if "migrate" not in settings.passes:
        records = absorb(settings.manifest, read_manifest(settings.manifest), settings.derived_dir)
        return records, records
    before = read_if_current(settings.manifest)
    if before is not None:  # what a journal says is of the pictures as they were: it goes first
        before = absorb(settings.manifest, before, settings.derived_dir)
    table = settings.recipe.buckets
    if settings.learn_buckets is not None:
        table = _kept_table(settings) or table
    after = migrate(
        ManifestRows(settings.manifest),
        input_dir=settings.input_dir,
        derived_dir=settings.derived_dir,
        table=table,
        rule=settings.recipe.rule,
        max_pixels=settings.max_pixels,
        workers=settings.workers or 4,
    )
    if before is None:
        return after, None
    return [_still_skipped(old, new) for old, new in zip(before, after, strict=True)], before


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


def _learnt_table(settings: Settings, known: list[Record]) -> tuple[Hw, ...]:
    """The table learnt before, or one learnt now from all pictures and kept."""
    kept = _kept_table(settings)
    if kept is not None:
        return kept
    assert settings.learn_buckets is not None
    records = _scanned(settings, settings.recipe, known, None)
    sizes = [(record.height, record.width) for record in records if record.height and record.width]
    table = learn_table(sizes, count=settings.learn_buckets)
    with disk_errors(settings.derived_dir):
        settings.derived_dir.mkdir(parents=True, exist_ok=True)
        write_text(settings.derived_dir / LEARNT_TABLE, "".join(f"{bucket_name(bucket)}\n" for bucket in table))
    return table


def _kept_table(settings: Settings) -> tuple[Hw, ...] | None:
    path = settings.derived_dir / LEARNT_TABLE
    return parse_table(path.read_text(encoding="utf-8")) if path.is_file() else None


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
