"""Have what is wrong made again: the entries leave the manifest, the files move aside, and nothing else changes.

The next `features build` finds exactly these pictures without features, and makes them as it made the others.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from patchatlas.datasets.build.merge import absorb, journals_of, locked
from patchatlas.datasets.verify.faults import MEANINGS
from patchatlas.datasets.verify.report import Finding
from patchatlas.errors import ResourceError
from patchatlas.io.disk import disk_errors
from patchatlas.io.feature_store import FeatureStore
from patchatlas.io.manifest import Record, read_manifest, write_manifest

BAD = "_bad"
"""Folder below the derived one that wrong files are moved to; nothing is deleted."""


@dataclass(frozen=True)
class Requeued:
    """What will be made again.

    Attributes:
        records: ids of the pictures.
        files: posix paths below the derived folder that were moved to `_bad/`.
        left: findings that building again does not mend.
    """

    records: tuple[str, ...]
    files: tuple[str, ...]
    left: tuple[Finding, ...]


def requeue(findings: Iterable[Finding], manifest: str | Path, derived_dir: str | Path) -> Requeued:
    """Take wrong features out of the manifest and out of their folders.

    A feature is taken out with all others of its forward (patches, CLS, registers), since a build makes them together.
    The manifest is written first, in one step: a run killed after that leaves files that no record names, which a build
    replaces.

    Args:
        findings: of `verify` and the probe.
        manifest: of version 3.
        derived_dir: where the features lie.

    Raises:
        InputError: there is no such manifest.
        FormatError: a manifest or journal that cannot be read; nothing has changed then.
        ResourceError: a build is at work here, or the disk refuses.
    """
    wrong, left = _sorted(findings)
    store = FeatureStore(derived_dir)
    path = Path(manifest)
    if not wrong:
        return Requeued((), (), left)
    with locked(path):
        records = absorb(path, read_manifest(path), store.derived_dir)
        if journals_of(store.derived_dir, manifest=path):
            raise ResourceError(f"a build is at work in {derived_dir}; run again when it has ended")
        kept, moving = [], []
        for record in records:
            out = _taken_out(record, wrong.get(record.image_id, frozenset()))
            moving += [record.features[kind].file for kind in out]
            kept.append(replace(record, features={k: e for k, e in record.features.items() if k not in out}))
        with disk_errors(path):
            write_manifest(path, kept)
        named = {entry.file for record in kept for entry in record.features.values()}
        moved = [file for file in dict.fromkeys(moving) if file not in named and _move(store, file)]
    ids = [record.image_id for record in records if record.image_id in wrong]
    return Requeued(tuple(ids), tuple(moved), left)


def _sorted(findings: Iterable[Finding]) -> tuple[dict[str, frozenset[str]], tuple[Finding, ...]]:
    """Kinds by picture that building again mends (all of them where a finding names none), and the other findings."""
    wrong: dict[str, set[str]] = defaultdict(set)
    left = []
    for finding in findings:
        if finding.record is None or not MEANINGS[finding.fault].requeue:
            left.append(finding)
        else:
            wrong[finding.record].add(finding.kind or "")
    return {name: frozenset(kinds) for name, kinds in wrong.items()}, tuple(left)


def _taken_out(record: Record, kinds: frozenset[str]) -> list[str]:
    """The kinds of a record that go: those of the same family as a wrong one."""
    families = {kind.partition("_")[0] for kind in kinds}
    return [kind for kind in sorted(record.features) if "" in kinds or kind.partition("_")[0] in families]


def _move(store: FeatureStore, file: str) -> bool:
    """Move a file below `_bad/`, beside earlier ones of its name; `False` if it is not there or lies elsewhere."""
    folder, _, name = file.partition("/")
    source = store.derived_dir / folder / name
    if "/" in name or ".." in (folder, name) or not source.is_file():
        return False
    target = store.derived_dir / BAD / folder
    with disk_errors(target):
        target.mkdir(parents=True, exist_ok=True)
        free = (target / (f"{source.stem}.{k}{source.suffix}" if k else name) for k in range(1 << 30))
        source.rename(next(path for path in free if not path.exists()))
    return True
