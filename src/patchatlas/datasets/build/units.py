"""The work of a build, cut the same way whoever does it: units of pictures of one bucket, batches of a unit.

What is in a unit depends on the records alone, not on what is done already, nor on the number or kind of workers, and
the batches of a unit on the token budget besides. So an encoder sees the same shapes in every run.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from patchatlas.geometry.buckets import Hw, bucket_name
from patchatlas.io.manifest import Record

UNIT_TOKENS = 65_536
"""Tokens of a unit at most: 16 pictures of one megapixel at patch 16, as large a batch as any GPU profits from."""

UNIT_TOKENS_LEAST = 2048
"""Tokens of a unit where a data set is small: fewer make slower batches."""

UNITS_WANTED = 64
"""Units that a data set between these is cut into, so that the last ones to work do not work alone."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Pictures of one bucket that are encoded together.

    Attributes:
        bucket: (h, w).
        records: one a row.
        wanted: rows to be stored; the others are rows of zeros.
    """

    bucket: Hw
    records: tuple[Record, ...]
    wanted: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Work that one worker takes at once.

    Attributes:
        name: bucket and index, such as `1216x832-00007`.
        bucket: (h, w).
        records: sorted by image_id.
        wanted: ids of the pictures to be stored.
        cost: tokens of a picture.
    """

    name: str
    bucket: Hw
    records: tuple[Record, ...]
    wanted: frozenset[str]
    cost: int

    def only(self, wanted: Callable[[Record], bool]) -> "Unit":
        """The same unit with fewer pictures wanted."""
        kept = (record.image_id for record in self.records if record.image_id in self.wanted and wanted(record))
        return replace(self, wanted=frozenset(kept))

    def batches(self, budget: int) -> Iterator[Batch]:
        """Slices of at most `budget` tokens, at least one picture each; those without a wanted picture are left out."""
        rows = max(1, budget // self.cost)
        for first in range(0, len(self.records), rows):
            part = self.records[first : first + rows]
            wanted = tuple(row for row, record in enumerate(part) if record.image_id in self.wanted)
            if wanted:
                yield Batch(bucket=self.bucket, records=part, wanted=wanted)


def cut_units(records: Iterable[Record], *, cost: Callable[[Hw], int]) -> list[Unit]:
    """All records that have a bucket, as units, the costly first, so that all workers end at about the same time.

    Args:
        records: skipped ones count too, if they have a bucket: whether a picture can be read must not move the others.
        cost: tokens of a picture of a bucket.
    """
    placed = sorted(
        ((record.aspect_bucket, record) for record in records if record.aspect_bucket is not None),
        key=lambda pair: (bucket_name(pair[0]), pair[1].image_id),
    )
    share = sum(cost(bucket) for bucket, _ in placed) // UNITS_WANTED
    tokens = min(UNIT_TOKENS, max(UNIT_TOKENS_LEAST, share))
    units = []
    for bucket, pairs in groupby(placed, key=lambda pair: pair[0]):
        rows = max(1, tokens // cost(bucket))
        of_bucket = [record for _, record in pairs]
        for index, first in enumerate(range(0, len(of_bucket), rows)):
            part = tuple(of_bucket[first : first + rows])
            wanted = frozenset(record.image_id for record in part)
            name = f"{bucket_name(bucket)}-{index:05d}"
            units.append(Unit(name=name, bucket=bucket, records=part, wanted=wanted, cost=cost(bucket)))
    return sorted(units, key=lambda unit: (-unit.cost * len(unit.records), unit.name))


def limit(units: Iterable[Unit], count: int) -> list[Unit]:
    """The first units, with `count` wanted pictures in all."""
    kept = []
    for unit in units:
        part = replace(unit, wanted=frozenset(sorted(unit.wanted)[:count]))
        count -= len(part.wanted)
        kept.append(part)
    return [unit for unit in kept if unit.wanted]
