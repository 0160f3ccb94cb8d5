"""Input sizes: the published bucket tables, exact rounding, and nothing lost to truncation."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchatlas.errors import ShapeError
from patchatlas.geometry.buckets import MEGAPIXEL_BUCKETS, cover, fit, nearest_bucket, to_patches
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.grid import PatchGrid
from patchatlas.geometry.rounding import round_half_up, round_to_multiple


@pytest.mark.parametrize(
    ("patch", "bucket_hw", "shape"),
    [
        (14, (1024, 1024), (73, 73)),
        (14, (832, 1216), (59, 87)),
        (14, (768, 1280), (55, 91)),
        (14, (704, 1344), (50, 96)),
        (16, (1024, 1024), (64, 64)),
        (16, (832, 1216), (52, 76)),
        (16, (768, 1280), (48, 80)),
        (16, (704, 1344), (44, 84)),
    ],
)
def test_patches_of_the_seven_buckets_and_their_twins(patch, bucket_hw, shape):
    for hw, expected in ((bucket_hw, shape), (bucket_hw[::-1], shape[::-1])):
        assert hw in MEGAPIXEL_BUCKETS
        assert PatchGrid.on(to_patches(Frame.whole(hw), (patch, patch)), (patch, patch)).shape == expected


def test_halves_go_up():
    assert [round_half_up(Fraction(n, 2)) for n in (-3, -1, 1, 3, 5)] == [-1, 0, 1, 2, 3]
    assert (round_to_multiple(1032, 16), round_to_multiple(1048, 16), round_to_multiple(3, 16)) == (1040, 1056, 16)


def test_fit_keeps_the_row_that_float_truncation_loses():
    # 5992 * (896 / 5992) is 895.99.. in floats; truncated it is 895 and one row of patches is gone.
    frame = fit((5992, 3995), long_side=896, patch=(16, 16))
    assert frame.content()[0] == (0, 896)
    assert frame.content()[1] == (0, 597)
    assert frame.size == (896, 608)
    assert frame.scale == (Fraction(5992, 896), Fraction(3995, 597))


@given(h=st.integers(200, 9000), w=st.integers(200, 9000), patch=st.sampled_from([8, 14, 16]))
def test_fit_fills_the_long_side_and_pads_less_than_a_patch(h, w, patch):
    if min(h, w) * 896 < max(h, w) * patch * 2:
        return
    frame = fit((h, w), long_side=896, patch=(patch, patch))
    assert max(high for _, high in frame.content()) == 896
    assert all(n - high < patch for n, (_, high) in zip(frame.size, frame.content(), strict=True))
    assert all(
        abs(high - Fraction(n * 896, max(h, w))) <= Fraction(1, 2)
        for n, (_, high) in zip((h, w), frame.content(), strict=True)
    )


@pytest.mark.parametrize(
    ("size", "long_side", "message"),
    [
        ((300, 400), 900, "900 is not a multiple of the patch 16; take 896 or 912"),
        ((300, 400), 8, "take 16"),
        ((10, 4000), 896, "smaller than one patch"),
    ],
)
def test_fit_refuses(size, long_side, message):
    with pytest.raises(ShapeError, match=message):
        fit(size, long_side=long_side, patch=(16, 16))


def test_nearest_bucket_is_mirror_symmetric():
    assert nearest_bucket((3024, 4032)) == (832, 1216)
    assert nearest_bucket((4032, 3024)) == (1216, 832)
    assert nearest_bucket((500, 500)) == (1024, 1024)
    # 5:6 against 6:5: the linear rule sends only one of them to the square.
    assert nearest_bucket((600, 500)) == nearest_bucket((500, 600))[::-1]


@given(h=st.integers(64, 9000), w=st.integers(64, 9000))
def test_the_linear_rule_compares_widths_over_heights(h, w):
    chosen = nearest_bucket((h, w), rule="linear")
    distance = [abs(b[1] / b[0] - w / h) for b in MEGAPIXEL_BUCKETS]
    assert distance[MEGAPIXEL_BUCKETS.index(chosen)] <= min(distance) + 1e-12


def test_rules_differ_and_the_first_of_equals_wins():
    assert nearest_bucket((600, 500), rule="log") == (1024, 1024)
    assert nearest_bucket((600, 500), rule="linear") == (1216, 832)
    assert nearest_bucket((1, 1), ((1, 2), (2, 1))) == (1, 2)
    assert nearest_bucket((1, 1), ((2, 1), (1, 2))) == (2, 1)
    assert nearest_bucket((4, 5), ((2, 2), (2, 3)), rule="linear") == (2, 2)
    assert nearest_bucket((4, 5), ((2, 3), (2, 2)), rule="linear") == (2, 3)
    for rule in ("log", "linear"):
        with pytest.raises(ShapeError, match="the bucket table is empty"):
            nearest_bucket((3, 4), (), rule=rule)


@given(h=st.integers(64, 9000), w=st.integers(64, 9000))
def test_nearest_bucket_equals_the_log_rule(h, w):
    chosen = nearest_bucket((h, w))
    distance = [abs(math.log(w / h) - math.log(b[1] / b[0])) for b in MEGAPIXEL_BUCKETS]
    assert distance[MEGAPIXEL_BUCKETS.index(chosen)] <= min(distance) + 1e-12


def test_cover_is_exact_where_floats_add_a_pixel():
    # ceil(2864 * (832 / 2864)) in floats is 833.
    frame = cover((4256, 2864), (1216, 832))
    assert frame.size == (1216, 832)
    assert frame.scale == (Fraction(4256, 1237), Fraction(2864, 832))
    assert frame.shift == (Fraction(4256, 1237) * 10, 0)


@given(h=st.integers(64, 9000), w=st.integers(64, 9000), bucket=st.sampled_from(MEGAPIXEL_BUCKETS))
def test_cover_shows_source_everywhere(h, w, bucket):
    frame = cover((h, w), bucket)
    assert frame.content() == ((0, bucket[0]), (0, bucket[1]))
