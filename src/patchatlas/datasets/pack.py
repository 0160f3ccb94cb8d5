"""Pack stored features into WebDataset shards, one folder a bucket: the same features give the same bytes.

What each shard will hold is planned from the manifest alone, to the byte, so that a rerun knows finished shards, with
or without an index, and finds damaged ones. The format is described in docs/formats/shards-v1.md.
"""

import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from patchatlas.datasets.packable import Member, Sample, choose, facts, first_reason, wanted_kinds
from patchatlas.datasets.shard_plan import Form, Plan
from patchatlas.errors import FormatError, InputError, ResourceError, StampError, UsageError
from patchatlas.io.disk import disk_errors
from patchatlas.io.feature_store import FeatureStore
from patchatlas.io.manifest import Record
from patchatlas.io.shards import (
    INDEX,
    RECORD,
    STAMP_MEMBER,
    Column,
    Shard,
    ShardFile,
    ShardIndex,
    read_index,
    shard_plan,
    write_index,
)
from patchatlas.io.tar import TarWriter, hash_of_tar, part_file

log = logging.getLogger(__name__)

MEGABYTE = 1_000_000

LOCK = ".pack.lock"

_SHARD_NAME = re.compile(r"shard-\d{6}(\.[a-z0-9_-]+)?\.tar(\.part)?")

OnProgress = Callable[[int, int], None]
"""Called with samples done and samples in all."""


@dataclass(frozen=True, kw_only=True)
class PackReport:
    """What was done.

    Attributes:
        index: what is now there.
        written: paths of the shards that were written.
        kept: paths of the shards that were there and, read again, as they should be.
        removed: paths of shards of ours that are no longer part of the set, and of parts that killed runs left.
    """

    index: ShardIndex
    written: tuple[str, ...]
    kept: tuple[str, ...]
    removed: tuple[str, ...]


def pack(
    records: Sequence[Record],
    derived_dir: str | Path,
    output_dir: str | Path,
    *,
    kinds: Sequence[str] | None = None,
    max_mb: int | float = 512,
    split: bool = False,
    strict: bool = False,
    replace_other: bool = False,
    on_progress: OnProgress | None = None,
) -> PackReport:
    """Write the features of `records` as shards with an index.

    Args:
        records: in any order.
        derived_dir: where the features were built.
        output_dir: gets `bucket_{W}x{H}/shard-000000.tar` and `index.json`; finished shards in it are read again and
            kept if they are whole.
        kinds: what to pack; without it all kinds that occur.
        max_mb: largest size of a file in megabytes (1,000,000 bytes); a sample that alone is larger has its own shard.
        split: one file a kind, `shard-000000.KIND.tar`, with equal samples in equal order.
        strict: stop at the first record that cannot be packed, instead of listing it.
        replace_other: write over shards of features that were made in another way, or of other kinds.
        on_progress: told after each shard.

    Returns:
        The report; `index.skipped` lists records that were skipped, lack a feature or have a damaged one.

    Raises:
        UsageError: `max_mb` not above 0, or kinds that no record has.
        InputError: nothing can be packed; with `strict`, one record cannot.
        StampError: features of one kind were made in different ways, kinds lie differently in their pictures, or the
            folder holds shards made in another way; the message names what differs.
        ResourceError: the disk is full, or another process packs into the folder.
    """
    if not max_mb > 0:
        raise UsageError(f"max_mb {max_mb} must be more than 0")
    store, output = FeatureStore(derived_dir), Path(output_dir)
    wanted = wanted_kinds(records, kinds)
    samples, skipped = choose(records, wanted, store, strict=strict)
    if not samples:
        raise InputError(f"none of {len(records)} records can be packed{first_reason(skipped)}")
    form = Form(*facts(samples, wanted, store), split=split)
    with disk_errors(output):
        output.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(output / LOCK, timeout=0):
                _require_alike(output, form, replace_other=replace_other)
                packer = _Packer(store, output, form, on_progress)
                return packer.run(samples, skipped, most_bytes=int(max_mb * MEGABYTE), strict=strict)
        except Timeout as error:
            raise ResourceError(f"another process packs into {output}; wait for it or take another folder") from error


class _DamagedError(FormatError):
    """A feature file that is not what the manifest says, found when it was read."""

    def __init__(self, image_id: str, reason: str) -> None:
        super().__init__(reason)
        self.image_id = image_id


class _Packer:
    """Writes what is planned and not yet there."""

    def __init__(
        self,
        store: FeatureStore,
        output: Path,
        form: Form,
        on_progress: OnProgress | None,
    ) -> None:
        self._store, self._output, self._form = store, output, form
        self._on_progress = on_progress
        self._written: list[str] = []

    def run(self, samples: list[Sample], skipped: dict[str, str], *, most_bytes: int, strict: bool) -> PackReport:
        """Write all shards, then the index. A record whose file is damaged is left out, and the shards planned anew."""
        while True:
            try:
                shards = [self._shard(*one) for one in self._counted(samples, most_bytes)]
                break
            except _DamagedError as error:
                if strict:
                    raise
                log.warning("%s: %s", error.image_id, error)
                skipped[error.image_id] = str(error)
                samples = [sample for sample in samples if sample.image_id != error.image_id]
                if not samples:
                    raise InputError(f"no record can be packed{first_reason(skipped)}") from error
        paths = {file.path for shard in shards for file in shard.files.values()}
        index = ShardIndex(
            kinds=self._form.kinds,
            stamps=self._form.stamps,
            shards=tuple(shards),
            config={"max_bytes": most_bytes, "split": self._form.split},
            skipped=tuple(sorted(skipped.items())),
        )
        removed = self._sweep(paths)
        write_index(self._output, index)
        written = paths & set(self._written)
        return PackReport(
            index=index, written=tuple(sorted(written)), kept=tuple(sorted(paths - written)), removed=removed
        )

    def _counted(self, samples: list[Sample], most_bytes: int) -> Iterator[tuple[str, int, list[Sample]]]:
        done = 0
        for bucket, number, members in self._form.cut(samples, most_bytes):
            yield bucket, number, members
            done += len(members)
            if self._on_progress is not None:
                self._on_progress(done, len(samples))

    def _shard(self, bucket: str, number: int, samples: list[Sample]) -> Shard:
        files: dict[str, ShardFile] = {}
        columns: dict[str, Column] = {}
        for plan in self._form.plans(bucket, number, samples):
            path = self._output / plan.path
            sha256 = _hash_of(path, plan, samples)
            if sha256 is None:
                self._withdraw_index()
                sha256 = self._write(path, plan, samples)
                self._written.append(plan.path)
            files[plan.part] = ShardFile(plan.path, plan.size, sha256, plan.plan)
            columns |= {kind: self._form.column(kind, plan, samples) for kind in plan.kinds}
        return Shard(bucket, tuple(sample.image_id for sample in samples), files, columns)

    def _write(self, path: Path, plan: Plan, samples: Sequence[Sample]) -> str:
        """Write one tar and return its hash."""
        path.parent.mkdir(exist_ok=True)
        with disk_errors(path), part_file(path) as handle:
            tar = TarWriter(handle)
            tar.add(STAMP_MEMBER, plan.head)
            for sample in samples:
                for member in sample.of(plan.kinds):
                    tar.add(member.name, self._content(sample, member))
            sha256 = tar.finish()
            assert handle.tell() == plan.size, "planned and written places are the same"
        return sha256

    def _content(self, sample: Sample, member: Member) -> bytes:
        if member.kind == RECORD:
            return sample.record_bytes()
        path = self._store.derived_dir / sample.files[member.kind]
        content = path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != member.sha256:
            raise _DamagedError(
                sample.image_id, f"{path} has SHA-256 {found}, the manifest says {member.sha256}; build it again"
            )
        return content

    def _withdraw_index(self) -> None:
        """An index must never speak of files that are about to change."""
        (self._output / INDEX).unlink(missing_ok=True)

    def _sweep(self, wanted: set[str]) -> tuple[str, ...]:
        """Remove shards of ours that are not part of the set, and what killed runs left; nobody else writes here."""
        removed = []
        for path in sorted(self._output.glob("bucket_*/shard-*")):
            name = path.relative_to(self._output).as_posix()
            if name in wanted or not _SHARD_NAME.fullmatch(path.name):
                continue
            if path.suffix == ".part" or shard_plan(path) is not None:
                self._withdraw_index()
                path.unlink()
                removed.append(name)
                if not any(path.parent.iterdir()):
                    path.parent.rmdir()
        return tuple(removed)


def _require_alike(output: Path, form: Form, *, replace_other: bool) -> None:
    """Refuse a folder whose shards, by its index, are of other features.

    Raises:
        StampError: they were made in another way or hold other kinds, and must not be replaced.
    """
    if not (output / INDEX).is_file():
        return
    try:
        index = read_index(output)
        for kind in sorted(form.kinds.keys() & index.kinds.keys()):
            what = f"{kind} (to be packed, and in {output})"
            form.stamps[form.kinds[kind].stamp].require(index.stamp(kind), what=what)
        if form.kinds.keys() != index.kinds.keys():
            raise StampError(
                f"{output} holds shards of {', '.join(sorted(index.kinds))}, these would be of "
                f"{', '.join(sorted(form.kinds))}"
            )
    except (StampError, FormatError) as error:
        if not replace_other:
            raise type(error)(
                f"{error}. Take another folder, or replace the shards in this one with --replace"
            ) from error


def _hash_of(path: Path, plan: Plan, samples: Sequence[Sample]) -> str | None:
    """The hash of a file that is what was planned, to the last byte; `None` if it must be written."""
    if not path.is_file():
        return None
    first = (STAMP_MEMBER, len(plan.head), hashlib.sha256(plan.head).hexdigest())
    members = [(one.name, one.size, one.sha256) for sample in samples for one in sample.of(plan.kinds)]
    sha256 = hash_of_tar(path, [first, *members])
    if sha256 is None and shard_plan(path) == plan.plan:
        log.warning("%s is damaged; it is written again", path)
    return sha256
