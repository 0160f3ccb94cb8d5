"""Which records can be packed into shards, as what, and whether their features belong together."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from patchatlas.errors import FormatError, InputError, StampError, UsageError
from patchatlas.geometry.buckets import bucket_name
from patchatlas.io.codecs import read_header, suffix
from patchatlas.io.feature_store import FeatureStore, require_own
from patchatlas.io.manifest import MIGRATE, Record, to_line
from patchatlas.io.shards import RECORD, Kind, Layout
from patchatlas.stamp import Stamp

# Facts that say how a bucket lies in its picture; kinds that differ in them do not show the same rectangle.
_PLACING = ("buckets", "bucket_rule", "rounding")


@dataclass(frozen=True)
class Member:
    """One file of a sample.

    Attributes:
        kind: `json` for the record, otherwise the kind of feature.
        name: in the tar.
        size: bytes.
        sha256: of the content, in hex.
    """

    kind: str
    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Sample:
    """One record and what is packed of it.

    Attributes:
        record: its features name the members of the shard instead of the files of the store.
        bucket: `WxH`.
        files: kind -> file of the store, below the derived folder.
        members: the record's own first, then features by kind.
    """

    record: Record
    bucket: str
    files: Mapping[str, str]
    members: tuple[Member, ...]

    @property
    def image_id(self) -> str:
        """Its id."""
        return self.record.image_id

    def of(self, kinds: Sequence[str]) -> list[Member]:
        """Its members of some kinds."""
        return [member for member in self.members if member.kind in kinds]

    def record_bytes(self) -> bytes:
        """Content of the member that holds the record."""
        return to_line(self.record.to_json())


def wanted_kinds(records: Sequence[Record], kinds: Sequence[str] | None) -> tuple[str, ...]:
    """The kinds asked for, sorted, or all that occur.

    Raises:
        UsageError: no record has one of them, or it cannot be a name in a shard.
    """
    there = sorted({kind for record in records for kind in record.features})
    wanted = tuple(there) if kinds is None else tuple(sorted(set(kinds)))
    absent = [kind for kind in wanted if kind not in there]
    if absent or not wanted:
        has = f"the manifest has {', '.join(there)}" if there else "the manifest has no features; run `features build`"
        raise UsageError(f"no record has {', '.join(absent) or 'any feature'}; {has}")
    for kind in wanted:
        if kind == RECORD or not re.fullmatch(r"[a-z0-9_-]+", kind):
            raise UsageError(
                f"kind {kind!r} cannot be packed: WebDataset turns names to lower case and cuts them at dots, and "
                f"{RECORD!r} is the record's own"
            )
    return wanted


def choose(
    records: Sequence[Record], kinds: tuple[str, ...], store: FeatureStore, *, strict: bool
) -> tuple[list[Sample], dict[str, str]]:
    """The samples that can be packed, sorted by bucket and id, and why the other records cannot.

    Looks at headers and sizes of the feature files, not at their values.

    Raises:
        InputError: with `strict`, the first record that cannot be packed.
        FormatError: an id is there twice.
        StampError: a file was made in another way than the set it lies in.
    """
    samples: list[Sample] = []
    skipped: dict[str, str] = {}
    ids: set[str] = set()
    for record in records:
        if record.image_id in ids:
            raise FormatError(f"image_id {record.image_id!r} is there twice; {MIGRATE}")
        ids.add(record.image_id)
        try:
            _require_usable(record, kinds)
            for kind in kinds:
                require_own(record.features[kind], kind, record.image_id)
                store.require(record.features[kind])
        except StampError:
            raise
        except InputError as error:
            if strict:
                raise type(error)(f"{record.image_id}: {error}") from error
            skipped[record.image_id] = str(error)
            continue
        samples.append(_sample(record, kinds))
    return sorted(samples, key=lambda one: (one.bucket, one.image_id)), skipped


def facts(
    samples: Sequence[Sample], kinds: tuple[str, ...], store: FeatureStore
) -> tuple[dict[str, Kind], dict[str, Stamp]]:
    """Facts of each kind, and the stamps by digest.

    Raises:
        StampError: features of one kind were made in different ways, or two kinds lie differently in their pictures;
            the message names what differs.
    """
    by_kind: dict[str, Kind] = {}
    stamps: dict[str, Stamp] = {}
    for kind in kinds:
        entries = [(sample.record.features[kind], sample.files[kind]) for sample in samples]
        entry, file = entries[0]
        path = store.path(replace(entry, file=file))
        stamp = store.stamp_of(path.parent)
        for other, other_file in {one.stamp: (one, name) for one, name in entries}.values():
            stamp.require(store.stamp_of(store.path(replace(other, file=other_file)).parent), what=f"{kind} features")
        for name in ("dim", "dtype"):
            values = {getattr(one, name) for one, _ in entries}
            if len(values) > 1:
                raise StampError(f"{kind} features have more than one {name}: {sorted(values)}; build them again")
        header = read_header(path)
        layout: Layout = "vectors" if entry.grid is None else "tokens" if len(header.shape) == 2 else "channels"
        by_kind[kind] = Kind(
            suffix=suffix(header.dtype), dtype=header.dtype, dim=entry.dim, layout=layout, stamp=stamp.digest
        )
        stamps[stamp.digest] = stamp
    _require_one_placing(by_kind, stamps)
    return by_kind, stamps


def first_reason(skipped: Mapping[str, str]) -> str:
    """The first of some reasons as the end of a sentence; empty where there is none."""
    return "".join(f"; the first, {image_id}: {reason}" for image_id, reason in list(skipped.items())[:1])


def _require_usable(record: Record, kinds: tuple[str, ...]) -> None:
    if set("./\\") & set(record.image_id) or not record.image_id.isprintable():
        raise FormatError(
            f"image_id {record.image_id!r} has a dot, a slash or unprintable letters, and WebDataset cuts names at the "
            f"first dot; {MIGRATE}"
        )
    if record.status != "ok":
        reason = f" ({record.error.type}): {record.error.message}" if record.error else ""
        raise InputError(f"skipped when features were built{reason}")
    if record.aspect_bucket is None:
        raise FormatError(f"aspect_bucket not found, {MIGRATE}")
    absent = [kind for kind in kinds if kind not in record.features]
    if absent:
        raise InputError(f"lacks {', '.join(absent)}; run `features build` for it, or name the kinds to pack")


def _sample(record: Record, kinds: tuple[str, ...]) -> Sample:
    assert record.aspect_bucket is not None, "seen before"
    entries = {kind: record.features[kind] for kind in kinds}
    names = {kind: f"{record.image_id}.{kind}{PurePosixPath(entry.file).suffix}" for kind, entry in entries.items()}
    packed = replace(record, features={kind: replace(entry, file=names[kind]) for kind, entry in entries.items()})
    content = to_line(packed.to_json())
    own = Member(RECORD, f"{record.image_id}.json", len(content), hashlib.sha256(content).hexdigest())
    members = (own, *(Member(kind, names[kind], entry.bytes, entry.sha256) for kind, entry in entries.items()))
    return Sample(packed, bucket_name(record.aspect_bucket), {k: entry.file for k, entry in entries.items()}, members)


def _require_one_placing(kinds: Mapping[str, Kind], stamps: Mapping[str, Stamp]) -> None:
    """Refuse kinds whose buckets lie differently in their pictures."""
    seen: dict[str, tuple[str, object]] = {}
    for name, kind in kinds.items():
        facts_of_kind = dict(stamps[kind.stamp].facts)
        for fact in _PLACING:
            if fact not in facts_of_kind:
                continue
            other, value = seen.setdefault(fact, (name, facts_of_kind[fact]))
            if value != facts_of_kind[fact]:
                raise StampError(
                    f"{other} and {name} lie differently in their pictures ({fact}: {value!r} and "
                    f"{facts_of_kind[fact]!r}); build both with the same buckets"
                )
