"""Which samples go into which tar, and where in it each member will lie: planned before anything is written."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from patchatlas.datasets.packable import Sample
from patchatlas.io.shards import FORMAT, RECORD, STAMP_MEMBER, VERSION, WHOLE, Column, Kind
from patchatlas.io.tar import Place, layout, stored_bytes
from patchatlas.stamp import Stamp


@dataclass(frozen=True)
class Plan:
    """One tar file before it is written.

    Attributes:
        path: below the folder of the set, with slashes.
        part: which part of its shard it is, see `Form.parts`.
        kinds: what it holds, the record among them.
        head: content of the first member.
        plan: hash over all that determines the bytes of the file.
        size: of the file, in bytes.
        places: kind -> where its member lies, one a sample.
    """

    path: str
    part: str
    kinds: tuple[str, ...]
    head: bytes
    plan: str
    size: int
    places: Mapping[str, list[Place]]


@dataclass(frozen=True)
class Form:
    """What all shards of a set have in common.

    Attributes:
        kinds: facts of each kind of feature.
        stamps: digest -> stamp.
        split: whether each kind has a tar of its own.
    """

    kinds: Mapping[str, Kind]
    stamps: Mapping[str, Stamp]
    split: bool

    def parts(self) -> dict[str, tuple[str, ...]]:
        """Which kinds lie in which part of a shard."""
        kinds = (RECORD, *sorted(self.kinds))
        return {kind: (kind,) for kind in kinds} if self.split else {WHOLE: kinds}

    def head(self, bucket: str, part: str, *, plan: str) -> bytes:
        """Content of a tar's first member: what it holds and how that was made."""
        # The records of a split set speak of features of all kinds.
        kinds = (
            self.kinds if part == RECORD else {kind: self.kinds[kind] for kind in self.parts()[part] if kind != RECORD}
        )
        return _canonical(
            {
                "format": FORMAT,
                "version": VERSION,
                "bucket": bucket,
                "part": part,
                "kinds": {name: vars(kind) for name, kind in kinds.items()},
                "stamps": {kind.stamp: json.loads(self.stamps[kind.stamp].to_json()) for kind in kinds.values()},
                "plan": plan,
            }
        )

    def cut(self, samples: Sequence[Sample], most_bytes: int) -> Iterator[tuple[str, int, list[Sample]]]:
        """Shards as (bucket, number in the bucket, samples): as many samples as the largest file may hold."""
        parts = self.parts()
        current: list[Sample] = []
        room: dict[str, int] = {}
        number = 0
        for sample in samples:
            grown = {part: room.get(part, 0) + _stored(sample, kinds) for part, kinds in parts.items()}
            new_bucket = bool(current) and current[0].bucket != sample.bucket
            if new_bucket or (current and max(grown.values()) > most_bytes):
                yield current[0].bucket, number, current
                number, current = 0 if new_bucket else number + 1, []
            if not current:
                empty = {part: self._empty_bytes(sample.bucket, part) for part in parts}
                grown = {part: empty[part] + _stored(sample, kinds) for part, kinds in parts.items()}
            current.append(sample)
            room = grown
        yield current[0].bucket, number, current

    def plans(self, bucket: str, number: int, samples: Sequence[Sample]) -> Iterator[Plan]:
        """Each tar of a shard."""
        for part, kinds in self.parts().items():
            members = [member for sample in samples for member in sample.of(kinds)]
            content = [json.loads(self.head(bucket, part, plan="")), [(one.name, one.sha256) for one in members]]
            plan = hashlib.sha256(_canonical(content)).hexdigest()
            head = self.head(bucket, part, plan=plan)
            places, size = layout([(STAMP_MEMBER, len(head)), *((one.name, one.size) for one in members)])
            by_kind: dict[str, list[Place]] = {kind: [] for kind in kinds}
            for member, place in zip(members, places[1:], strict=True):
                by_kind[member.kind].append(place)
            name = f"shard-{number:06d}.{part}.tar" if part else f"shard-{number:06d}.tar"
            yield Plan(f"bucket_{bucket}/{name}", part, kinds, head, plan, size, by_kind)

    def column(self, kind: str, plan: Plan, samples: Sequence[Sample]) -> Column:
        """Where the members of a kind lie."""
        grid = None
        if kind != RECORD and self.kinds[kind].layout != "vectors":
            grid = np.array([sample.record.features[kind].grid for sample in samples], dtype=np.int64)
        offset = np.array([place.offset for place in plan.places[kind]], dtype=np.int64)
        size = np.array([place.size for place in plan.places[kind]], dtype=np.int64)
        return Column(plan.part, offset, size, grid)

    def _empty_bytes(self, bucket: str, part: str) -> int:
        """Bytes of a tar without samples; every plan is as long as this one."""
        return layout([(STAMP_MEMBER, len(self.head(bucket, part, plan="0" * 64)))])[1]


def _stored(sample: Sample, kinds: tuple[str, ...]) -> int:
    return sum(stored_bytes(member.name, member.size) for member in sample.of(kinds))


def _canonical(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":"), sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
