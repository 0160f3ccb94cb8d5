"""A build from end to end: open the manifest, cut it into units, have them worked on, merge what was finished."""

import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Literal

from patchatlas.datasets.build.executors import local
from patchatlas.datasets.build.loading import load_networks, make_pass
from patchatlas.datasets.build.merge import absorb, locked
from patchatlas.datasets.build.opening import open_manifest, require_folders
from patchatlas.datasets.build.owner import claim
from patchatlas.datasets.build.passes import FeaturePass
from patchatlas.datasets.build.report import PassReport, Progress, Report, Skipped, Step
from patchatlas.datasets.build.settings import Settings
from patchatlas.datasets.build.units import Unit, cut_units, limit
from patchatlas.datasets.fidelity import choose_sample
from patchatlas.datasets.recipe import Recipe
from patchatlas.io.disk import disk_errors
from patchatlas.io.feature_store import FeatureStore
from patchatlas.io.manifest import FeatureEntry, Record, RecordError, read_manifest, write_manifest
from patchatlas.io.writers import writing

Executor = Literal["local", "ray"]

OnProgress = Callable[[Progress], None]


def build(settings: Settings, *, executor: Executor = "local", on_progress: OnProgress | None = None) -> Report:
    """Make or continue a manifest and the features of its pictures.

    What is done is known from the manifest, the journals and the files, by stamp and size; so the same call after any
    end, also that of a killed process, goes on where the last one stopped, and ends in the same bytes.

    Args:
        settings: what to do.
        executor: where the units are worked on.
        on_progress: called after each batch.

    Raises:
        UsageError: options that contradict each other.
        InputError: pictures, manifest or features that cannot be used, among them features made in another way.
        WeightsError: a network that cannot be had.
        ResourceError: memory or disk; what was finished before is kept.
    """
    began = time.monotonic()
    tell = on_progress or (lambda _: None)
    networks = load_networks(settings)
    require_folders(settings)
    with writing(settings.derived_dir):  # around all that is written there, or another process sweeps it away
        claim(settings.derived_dir, settings.manifest)
        opened = open_manifest(
            settings, on_scan=lambda done, total: tell(Progress(stage="scan", done=done, total=total))
        )
        records = opened.records
        placed = (record.image_id for record in records if record.aspect_bucket is not None)
        settings = replace(settings, sample=choose_sample(placed))
        passes: list[PassReport] = []
        errors: dict[str, RecordError] = {}
        for name in networks:
            feature_pass = make_pass(settings, name, networks, opened.recipe)
            with FeatureStore(settings.derived_dir) as store:
                records = _open_sets(store, feature_pass, settings, records)
                report, skipped = _run_pass(records, feature_pass, store, settings, opened.recipe, executor, tell)
            with locked(settings.manifest):
                records = absorb(settings.manifest, read_manifest(settings.manifest), settings.derived_dir)
                logs = local.fidelity_logs(store, feature_pass, settings)
                measured = {kind: one for kind, log in logs.items() if (one := log.save()) is not None}
            passes.append(replace(report, fidelity=measured))
            errors.update(skipped)
        return Report(
            manifest=settings.manifest,
            pictures=len(records),
            passes=tuple(passes),
            skipped=tuple(_skipped(records, errors, first=settings.shard.index == 0)),
            seconds=time.monotonic() - began,
        )


def _open_sets(
    store: FeatureStore, feature_pass: FeaturePass, settings: Settings, records: list[Record]
) -> list[Record]:
    """Open the set of each kind; the records lose entries of sets that were moved aside, now or before a kill."""
    for kind in feature_pass.kinds:
        store.open_set(
            kind.name,
            kind.stamp,
            spec=feature_pass.spec,
            config=feature_pass.config,
            backup_old=settings.backup_old,
        )
    stamps = {kind.name: kind.stamp.digest for kind in feature_pass.kinds}

    def valid(record: Record) -> dict[str, FeatureEntry]:
        return {name: entry for name, entry in record.features.items() if stamps.get(name, entry.stamp) == entry.stamp}

    if all(len(valid(record)) == len(record.features) for record in records):
        return records
    with locked(settings.manifest):
        kept = [replace(record, features=valid(record)) for record in read_manifest(settings.manifest)]
        with disk_errors(settings.manifest):
            write_manifest(settings.manifest, kept)
    return kept


def _run_pass(
    records: Sequence[Record],
    feature_pass: FeaturePass,
    store: FeatureStore,
    settings: Settings,
    recipe: Recipe,
    executor: Executor,
    tell: OnProgress,
) -> tuple[PassReport, dict[str, RecordError]]:
    """Have this worker's part of the units worked on, and report."""
    began = time.monotonic()
    mine = settings.shard.of(cut_units(records, cost=feature_pass.cost))
    sizes = {kind.name: _sizes(store.folder(kind.name, kind.stamp)) for kind in feature_pass.kinds}
    there = {record.image_id for unit in mine for record in unit.records if _is_done(record, feature_pass, sizes)}
    todo = [unit.only(lambda record: record.image_id not in there) for unit in mine]
    if settings.limit is not None:
        todo = limit(todo, settings.limit)
    todo = [unit for unit in todo if unit.wanted]
    total = sum(len(unit.wanted) for unit in todo)
    done = tokens = written = 0
    skipped: dict[str, RecordError] = {}
    tell(Progress(stage=feature_pass.name, done=0, total=total))
    with closing(_steps(executor, todo, feature_pass, store=store, settings=settings, recipe=recipe)) as steps:
        for step in steps:
            done, tokens, written = done + step.done, tokens + step.tokens, written + step.bytes
            skipped.update(step.skipped)
            ended = done + len(skipped)
            tell(Progress(stage=feature_pass.name, done=ended, total=total, skipped=len(skipped), tokens=tokens))
    report = PassReport(
        name=feature_pass.name,
        done=done,
        there=len(there),
        tokens=tokens,
        bytes=written,
        seconds=time.monotonic() - began,
        sets={kind.name: store.folder(kind.name, kind.stamp).name for kind in feature_pass.kinds},
    )
    return report, skipped


def _steps(
    executor: Executor,
    units: Sequence[Unit],
    feature_pass: FeaturePass,
    *,
    store: FeatureStore,
    settings: Settings,
    recipe: Recipe,
) -> Generator[Step, None, None]:
    """What the executor finishes; to be closed, which ends its threads."""
    if not units:
        return
    if executor == "ray":
        from patchatlas.datasets.build.executors import ray

        yield from ray.run_units(units, feature_pass, settings=settings, recipe=recipe)
    else:
        yield from local.run_units(units, feature_pass, store=store, settings=settings, recipe=recipe)


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file of a set, by path below the derived folder."""
    return {f"{folder.name}/{entry.name}": entry.stat().st_size for entry in os.scandir(folder) if entry.is_file()}


def _is_done(record: Record, feature_pass: FeaturePass, sizes: Mapping[str, Mapping[str, int]]) -> bool:
    """Whether every kind of the pass is stored: an entry (of its stamp, see `_open_sets`) and a file of that size."""
    for kind in feature_pass.kinds:
        entry = record.features.get(kind.name)
        if entry is None or sizes[kind.name].get(entry.file) != entry.bytes:
            return False
    return True


def _skipped(records: Sequence[Record], errors: Mapping[str, RecordError], *, first: bool) -> Iterator[Skipped]:
    """Pictures that failed in this run; those without a readable header are listed by the first of the shards."""
    for record in records:
        error = record.error if first and record.aspect_bucket is None else errors.get(record.image_id)
        if error is not None:
            yield Skipped(image_path=record.image_path, error=error)
