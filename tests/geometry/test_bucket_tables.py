"""Bucket tables by hand and from data: order kept, errors named, the learnt choice the best there is."""

import itertools
import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchatlas.errors import FormatError, InputError, ShapeError
from patchatlas.geometry.bucket_tables import format_table, learn_table, parse_table
from patchatlas.geometry.buckets import MEGAPIXEL_BUCKETS, nearest_bucket
from patchatlas.io.bucket_tables import read_table

NAMES = "1024x1024,1216x832,832x1216,1280x768,768x1280,1344x704,704x1344"


def test_tables_as_text_and_json():
    assert format_table(MEGAPIXEL_BUCKETS) == NAMES
    assert parse_table(NAMES.replace(",", "\n")) == MEGAPIXEL_BUCKETS
    assert parse_table("# mine\n\n 96x64 # wide\r\n64x96") == ((64, 96), (96, 64))
    assert parse_table('["96x64", "64x64"]') == ((64, 96), (64, 64))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("[]", "is empty"),
        ("64x64\n64 x 96", "'64 x 96' is no bucket"),
        ("64x64\n64x96\n64x64\n64x64", "names 64x64, 64x64 twice"),
        ("[[64, 96]]", r"\[64, 96\] is no bucket; write its name"),
        ("[1, ", "JSON list, this is none"),
    ],
)
def test_tables_that_are_none(text, message, tmp_path):
    with pytest.raises(FormatError, match=message):
        parse_table(text)
    (tmp_path / "table.txt").write_text(text)
    with pytest.raises(FormatError, match=rf"table\.txt: .*{message}"):
        read_table(tmp_path / "table.txt")


def test_tables_from_files(tmp_path):
    (tmp_path / "table.txt").write_text("96x64\n")
    assert read_table(tmp_path / "table.txt") == ((64, 96),)
    (tmp_path / "table.txt").write_bytes(b"\xff")
    with pytest.raises(FormatError, match=r"table\.txt: .*utf-8"):
        read_table(tmp_path / "table.txt")
    with pytest.raises(InputError, match="no bucket table"):
        read_table(tmp_path / "gone.txt")


def test_a_table_learnt_from_photos():
    # 4:3 both ways and full HD: 1152 x 896 is 9:7, 1344 x 768 is 7:4; the bucket that nobody needs is left out.
    sizes = [(3024, 4032)] * 5 + [(4032, 3024)] * 5 + [(1080, 1920)]
    assert format_table(learn_table(sizes, count=7)) == "896x1152,1152x896,1344x768"
    assert format_table(learn_table(sizes, count=2)) == "896x1152,1152x896"
    assert format_table(learn_table([(3, 4), (4, 3), (1, 1)], count=1, area=512 * 512)) == "512x512"


def kept(size, bucket):
    ratio = Fraction(size[1] * bucket[0], size[0] * bucket[1])
    return min(ratio, 1 / ratio)


@settings(max_examples=30)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), min_size=1, max_size=12),
    count=st.integers(1, 3),
)
def test_no_other_choice_keeps_more(sizes, count):
    options = {"area": 256 * 256, "multiple": 64}
    candidates = [
        (256, 256),
        (384, 192),
        (192, 384),
        (448, 128),
        (128, 448),
        (320, 192),
        (192, 320),
        (512, 128),
        (128, 512),
    ]
    table = learn_table(sizes, count=count, **options)
    assert len(table) <= count
    every = learn_table([(h, w) for h, w in candidates], count=99, **options)
    best = max(
        sum(max(kept(s, b) for b in choice) for s in sizes)
        for choice in itertools.combinations(every, min(count, len(every)))
    )
    found = sum(max(kept(s, b) for b in table) for s in sizes)
    assert found >= best - Fraction(len(sizes), 2**30)  # what counting in whole parts of 2**-30 may cost
    assert {nearest_bucket(s, table) for s in sizes} == set(table)


def test_the_order_of_pictures_does_not_matter():
    rng = random.Random(0)
    sizes = [(rng.randint(300, 6000), rng.randint(300, 6000)) for _ in range(400)]
    table = learn_table(sizes, count=5)
    rng.shuffle(sizes)
    assert learn_table(sizes, count=5) == table
    ratios = [Fraction(w, h) for h, w in table]
    assert ratios == sorted(ratios)
    for h, w in table:
        assert h % 64 == w % 64 == 0
        assert abs(h * w / 2**20 - 1) < 0.07
        assert max(h, w) <= 4 * min(h, w)


def test_sizes_beyond_64_bits_are_counted_exactly():
    huge = 2**31 - 1
    assert learn_table([(huge, huge)], count=3) == ((1024, 1024),)


@pytest.mark.parametrize(("sizes", "count"), [([], 3), ([(3, 4)], 0)])
def test_nothing_to_learn(sizes, count):
    with pytest.raises(ShapeError, match="give some of both"):
        learn_table(sizes, count=count)
