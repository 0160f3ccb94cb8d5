"""Units and batches: every picture once, the same whatever is done, whoever works, and in whatever order it comes."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchatlas.datasets.build.units import UNIT_TOKENS, cut_units, limit
from patchatlas.io.manifest import Record

BUCKETS = ((64, 64), (64, 96), (96, 64))


def record(name: str, bucket: tuple[int, int] | None = (64, 64)) -> Record:
    return Record(image_path=f"{name}.jpg", image_id=name, aspect_bucket=bucket)


def cost(bucket: tuple[int, int]) -> int:
    return bucket[0] * bucket[1] // 256


def many(count: int) -> list[Record]:
    return [record(f"p{n:04d}", BUCKETS[n % 3]) for n in range(count)]


def test_units_have_a_name_a_bucket_and_sorted_pictures():
    units = cut_units([record("b"), record("c", (64, 96)), record("a"), record("no bucket yet", None)], cost=cost)
    assert [(unit.name, [r.image_id for r in unit.records]) for unit in units] == [
        ("64x64-00000", ["a", "b"]),  # 32 tokens, before the 24 of the other
        ("96x64-00000", ["c"]),
    ]


@settings(max_examples=25)
@given(st.integers(0, 400), st.integers(1, 5), st.randoms(use_true_random=False))
def test_shards_of_units_hold_every_picture_once_in_whatever_order_they_come(count, shards, chance):
    records = many(count)
    units = cut_units(records, cost=cost)
    shuffled = list(records)
    chance.shuffle(shuffled)
    assert cut_units(shuffled, cost=cost) == units
    parts = [units[n::shards] for n in range(shards)]
    seen = [record.image_id for part in parts for unit in part for record in unit.records]
    assert sorted(seen) == sorted(record.image_id for record in records)


def test_large_sets_have_many_units_of_limited_size_and_small_ones_few():
    def megapixel(_: tuple[int, int]) -> int:
        return 4096

    records = [record(f"{n:05d}") for n in range(5000)]
    units = cut_units(records, cost=megapixel)
    assert {len(unit.records) for unit in units[:-1]} == {UNIT_TOKENS // 4096}
    assert len(cut_units(records[:64], cost=megapixel)) == 64
    assert len(cut_units(records[:64], cost=lambda _: 16)) == 1


def test_batches_are_fixed_slices_and_holes_do_not_move_the_others():
    (unit,) = cut_units([record(f"p{n}") for n in range(7)], cost=cost)
    whole = list(unit.batches(3 * 16 + 15))  # three pictures of 16 tokens, and not quite a fourth
    assert [[r.image_id for r in batch.records] for batch in whole] == [["p0", "p1", "p2"], ["p3", "p4", "p5"], ["p6"]]
    rest = list(unit.only(lambda r: r.image_id in ("p1", "p6")).batches(63))
    assert [(batch.records, batch.wanted) for batch in rest] == [(whole[0].records, (1,)), (whole[2].records, (0,))]


def test_a_batch_has_at_least_one_picture():
    (unit,) = cut_units([record("a"), record("b")], cost=cost)
    assert [len(batch.records) for batch in unit.batches(1)] == [1, 1]


def test_only_narrows():
    (unit,) = cut_units([record("a"), record("b")], cost=cost)
    assert unit.only(lambda r: r.image_id == "a").only(lambda _: True).wanted == {"a"}


@pytest.mark.parametrize("count", [0, 1, 5, 1000])
def test_limit_takes_the_first(count):
    units = cut_units(many(60), cost=cost)
    kept = limit(units, count)
    assert sum(len(unit.wanted) for unit in kept) == min(count, 60)
    assert [unit.name for unit in kept] == [unit.name for unit in units][: len(kept)]
    assert all(unit.records == whole.records for unit, whole in zip(kept, units, strict=False))


def test_skipped_pictures_keep_their_row():
    records = many(30)
    random.Random(0).shuffle(records)
    assert [u.records for u in cut_units(records, cost=cost)] == [u.records for u in cut_units(many(30), cost=cost)]
