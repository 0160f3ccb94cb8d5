"""Where patches lie: the published tables, exact rectangles both ways, and pixels that prove them."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from patchatlas.datasets.placement import (
    bucket_frame,
    cell_at,
    encoder_frame,
    patch_box,
    place,
    require_bucket,
    upright_frame,
)
from patchatlas.dense import to_pixels
from patchatlas.errors import FormatError, ShapeError
from patchatlas.geometry.buckets import MEGAPIXEL_BUCKETS, cover_sizes, parse_bucket
from patchatlas.geometry.grid import PatchGrid
from patchatlas.geometry.sampling import resample
from patchatlas.io.images import read_picture
from patchatlas.io.manifest import Record
from tests.datasets.bad_pictures import as_stored, exif


def as_it_is_stored(orientation, x, y, w, h):
    """The upright point (x, y) of a picture w x h, as (x, y) of the raster that an EXIF orientation stores."""
    return {
        1: (x, y),
        2: (w - x, y),
        3: (w - x, h - y),
        4: (x, h - y),
        5: (y, x),
        6: (y, w - x),
        7: (h - y, w - x),
        8: (h - y, x),
    }[orientation]


sides = st.integers(1, 9000)
patches = st.sampled_from([(14, 14), (16, 16), (14, 16)])
tables = st.sampled_from([MEGAPIXEL_BUCKETS, ((64, 64), (64, 96), (96, 64), (48, 80)), ((37, 91), (90, 41))])


def placed(width: int, height: int, *, table=MEGAPIXEL_BUCKETS, orientation: int = 1) -> Record:
    record = Record(image_path="a.jpg", image_id="a", width=width, height=height, exif_orientation=orientation)
    return place(record, table)


def spare(record: Record, patch: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the grid."""
    size = encoder_frame(record, patch).size
    return size[0] // patch[0], size[1] // patch[1]


@pytest.mark.parametrize(
    ("patch", "width", "height", "columns", "rows", "tokens"),
    [
        (14, 1024, 1024, 73, 73, 5329),
        (14, 1216, 832, 87, 59, 5133),
        (14, 1280, 768, 91, 55, 5005),
        (14, 1344, 704, 96, 50, 4800),
        (16, 1024, 1024, 64, 64, 4096),
        (16, 1216, 832, 76, 52, 3952),
        (16, 1280, 768, 80, 48, 3840),
        (16, 1344, 704, 84, 44, 3696),
    ],
)
def test_the_two_published_tables(patch, width, height, columns, rows, tokens):
    for w, h, across, down in ((width, height, columns, rows), (height, width, rows, columns)):
        record = placed(3 * w, 3 * h)
        assert record.aspect_bucket == (h, w)
        grid = PatchGrid.on(encoder_frame(record, (patch, patch)), (patch, patch))
        assert grid.shape == (down, across)
        assert grid.count == across * down == tokens


def test_bug_19_the_grid_is_rows_by_columns_and_the_last_patch_is_bottom_right():
    # 832 wide and 1216 high at patch 16: 76 rows of 52, not 52 x 76; patch (75, 51) ends in the corner.
    record = placed(832, 1216)
    assert spare(record, (16, 16)) == (76, 52)
    assert patch_box(record, (16, 16), 75, 51) == (816, 1200, 832, 1216)
    with pytest.raises(ShapeError, match=r"no patch \(51, 75\) in 76 rows x 52 columns"):
        patch_box(record, (16, 16), 51, 75)


def test_a_worked_example():
    # 4000 x 3000 covers 1216 x 832 at 832/3000 = 0.277..: 1109.3 is less than 1216, so 1216/4000 = 0.304 it is.
    record = placed(4000, 3000)
    assert record.aspect_bucket == (832, 1216)
    assert record.resized == (1216, 912)
    assert record.crop == (0, 40, 1216, 832)
    assert record.crop_source == (0, Fraction(2500, 19), 4000, Fraction(54500, 19))
    # Patch 14 sees it as 1218 x 826 pixels, 87 x 59 patches: each is 4000/87 wide and 52000/19/59 high.
    assert patch_box(record, (14, 14), 0, 0) == (
        0,
        Fraction(2500, 19),
        Fraction(4000, 87),
        Fraction(2500, 19) + Fraction(52000, 19 * 59),
    )
    assert cell_at(record, (14, 14), 3999.99, 2868) == (58, 86)


def test_bug_11_the_example_that_float_ceil_gets_wrong():
    # 2864 x 4256: 2864 * (832 / 2864) is 832.0000000000001 in floats, and its ceil 833.
    record = placed(2864, 4256)
    assert record.resized == (832, 1237)
    assert record.crop == (0, 10, 832, 1216)


def test_bug_11_no_size_in_a_wide_range_gets_a_pixel_too_many():
    wrong_in_floats = 0
    for width in range(400, 4400, 31):
        for height in range(300, 4300, 37):
            bucket = MEGAPIXEL_BUCKETS[(width + height) % 7]
            # Ceilings by integers: cover the width if the picture is relatively narrower, else the height.
            if width * bucket[0] <= height * bucket[1]:
                expected = (-(-height * bucket[1] // width), bucket[1])
            else:
                expected = (bucket[0], -(-width * bucket[0] // height))
            assert cover_sizes((height, width), bucket)[0] == expected, (width, height)
            scale = max(bucket[0] / height, bucket[1] / width)
            wrong_in_floats += (math.ceil(height * scale), math.ceil(width * scale)) != expected
    assert wrong_in_floats > 100  # so the range does hold such sizes


def test_bug_12_portraits_are_treated_as_landscapes_are():
    # 5:6 keeps 82.1 % in 832x1216 but 83.3 % in the square; the linear rule sends only 6:5 to the square.
    assert [placed(w, h).aspect_bucket for w, h in ((500, 600), (600, 500))] == [(1024, 1024)] * 2
    linear = [place(placed(w, h), MEGAPIXEL_BUCKETS, rule="linear").aspect_bucket for w, h in ((500, 600), (600, 500))]
    assert linear == [(1216, 832), (1024, 1024)]


@given(w=sides, h=sides)
def test_bug_12_a_picture_and_its_mirror_get_mirrored_buckets(w, h):
    bucket, twin = placed(w, h).aspect_bucket, placed(h, w).aspect_bucket
    assert bucket is not None
    kept = min(Fraction(w * bucket[0], h * bucket[1]), Fraction(h * bucket[1], w * bucket[0]))
    best = max(min(Fraction(w * a, h * b), Fraction(h * b, w * a)) for a, b in MEGAPIXEL_BUCKETS)
    assert kept == best
    assert twin == bucket[::-1]


def test_bug_13_sizes_are_rounded_half_up():
    # 1032 and 1048 lie half-way between multiples of 16; Python's round sends one down and one up.
    record = placed(1048, 1032, table=((1032, 1048),))
    assert encoder_frame(record, (16, 16)).size == (1040, 1056)


def test_bug_14_a_bucket_of_another_table_is_refused_not_reassigned():
    record = placed(1600, 1000)
    assert record.aspect_bucket == (768, 1280)
    require_bucket(record, MEGAPIXEL_BUCKETS)
    with pytest.raises(FormatError, match=r"bucket 1280x768, the table and the log rule give 1216x832; .* migrate"):
        require_bucket(record, MEGAPIXEL_BUCKETS[:3])
    assert bucket_frame(record).size == (768, 1280)


@given(w=sides, h=sides, table=tables, patch=patches, orientation=st.integers(1, 8), data=st.data())
def test_patches_and_rectangles_exactly_both_ways(w, h, table, patch, orientation, data):
    record = placed(w, h, table=table, orientation=orientation)
    rows, cols = spare(record, patch)
    row, col = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, cols - 1))
    x0, y0, x1, y1 = box = patch_box(record, patch, row, col)

    # The same from the numbers of the manifest: equal parts of the crop, in pixels of the source.
    assert record.crop is not None
    assert record.resized is not None
    left, top, across, down = record.crop
    assert box == (
        (left + Fraction(col * across, cols)) * w / record.resized[0],
        (top + Fraction(row * down, rows)) * h / record.resized[1],
        (left + Fraction((col + 1) * across, cols)) * w / record.resized[0],
        (top + Fraction((row + 1) * down, rows)) * h / record.resized[1],
    )
    assert record.crop_source is not None
    edges = record.crop_source
    assert edges[0] <= x0 < x1 <= edges[2]
    assert edges[1] <= y0 < y1 <= edges[3]
    assert edges[0] >= 0
    assert edges[1] >= 0
    assert edges[2] <= w
    assert edges[3] <= h

    # Back: its corner, its inside, and the very end, which is the neighbour's.
    almost = Fraction(10**9 - 1, 10**9)
    assert cell_at(record, patch, x0, y0) == (row, col)
    assert cell_at(record, patch, (x0 + x1) / 2, (y0 + y1) / 2) == (row, col)
    assert cell_at(record, patch, x0 + (x1 - x0) * almost, y0 + (y1 - y0) * almost) == (row, col)
    if col + 1 < cols:
        assert cell_at(record, patch, x1, y0) == (row, col + 1)
    else:
        with pytest.raises(ShapeError, match="no patch shows the point"):
            cell_at(record, patch, x1, y0)

    # In the raster of the file: the same rectangle, turned.
    corners = [as_it_is_stored(orientation, x, y, w, h) for x, y in ((x0, y0), (x1, y1))]
    stored = patch_box(record, patch, row, col, plane="stored")
    assert stored == (*map(min, *corners), *map(max, *corners))
    middle = (stored[0] + stored[2]) / 2, (stored[1] + stored[3]) / 2
    assert cell_at(record, patch, *middle, plane="stored") == (row, col)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("patch", [(14, 14), (16, 16)])
def test_the_grid_that_encoders_use_is_the_same(orientation, patch):
    record = placed(77, 53, table=((64, 96),), orientation=orientation)
    rows, cols = spare(record, patch)
    for plane in ("upright", "stored"):
        boxes = PatchGrid.on(encoder_frame(record, patch, plane=plane), patch).boxes()
        exact = [
            [float(edge) for edge in patch_box(record, patch, n // cols, n % cols, plane=plane)]
            for n in range(rows * cols)
        ]
        torch.testing.assert_close(boxes, torch.tensor(exact, dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_bug_10_a_turned_photo_is_placed_upright_and_its_pixels_land_in_their_patch(orientation, tmp_path):
    # One white 4 x 4 block on black, far from the centre and off every axis of symmetry.
    upright = np.zeros((60, 100, 3), np.uint8)
    upright[8:12, 70:74] = 255
    Image.fromarray(as_stored(upright, orientation)).save(tmp_path / "a.png", exif=exif(orientation))
    picture = read_picture(tmp_path / "a.png")
    record = placed(100, 60, table=((64, 64), (64, 96), (96, 64)), orientation=orientation)
    assert record.aspect_bucket == (64, 96)  # as it is seen, not as it is stored
    frame = encoder_frame(record, (8, 8))
    drawn = resample(to_pixels(picture.pixels), frame)[0]
    light = drawn.unfold(0, 8, 8).unfold(1, 8, 8).sum((2, 3))
    brightest = divmod(int(light.argmax()), light.shape[1])
    assert brightest == cell_at(record, (8, 8), 72, 10)
    x, y = as_it_is_stored(orientation, 72, 10, 100, 60)
    assert brightest == cell_at(record, (8, 8), x, y, plane="stored")
    assert upright_frame(record) == picture.frame


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(403, 301), (400, 304), (517, 260)])
def test_a_jpeg_that_was_shrunk_while_read_is_drawn_in_the_same_place(size, orientation, tmp_path):
    w, h = size
    # Grey values are the place: 20 + 200 x / w across, and down in the other picture.
    across = np.broadcast_to(20 + 200 * (np.arange(w) + 0.5) / w, (h, w))
    down = np.broadcast_to((20 + 200 * (np.arange(h) + 0.5) / h)[:, None], (h, w))
    upright = np.stack([across, down, np.full((h, w), 128.0)], axis=2).round().astype(np.uint8)
    stored = Image.fromarray(as_stored(upright, orientation))
    stored.save(tmp_path / "a.jpg", exif=exif(orientation), quality=100, subsampling=0)
    record = placed(w, h, table=((64, 64),), orientation=orientation)
    frame = encoder_frame(record, (14, 14))
    assert record.resized is not None
    stored_frame = encoder_frame(record, (14, 14), plane="stored")
    small = read_picture(tmp_path / "a.jpg", at_least_hw=record.resized[::-1])
    assert small.size_hw == (math.ceil(h / 4), math.ceil(w / 4))
    assert small.frame.source_size == stored.size[::-1]
    drawn = resample(to_pixels(small.pixels), stored_frame.then(small.frame.inverse()))
    whole = read_picture(tmp_path / "a.jpg")
    assert stored_frame.then(whole.frame.inverse()) == frame
    in_full = resample(to_pixels(whole.pixels), frame)
    # Away from the rim, within the noise of 8 bits.
    rim = (slice(None), slice(3, -3), slice(3, -3))
    torch.testing.assert_close(drawn[rim], in_full[rim], rtol=0, atol=1.6 / 255)
    shift = (drawn[rim] - in_full[rim]).mean((1, 2)) * 255
    assert shift.abs().max() < 0.1  # grey levels; a scale of 403/101 for 4 would give 0.25


def test_records_that_contradict_themselves_are_refused():
    record = placed(400, 300)
    assert bucket_frame(record).size == (832, 1216)
    for change, message in (
        ({"aspect_bucket": None}, r"aspect_bucket not found for 'a\.jpg'; run with --pass-filter migrate"),
        ({"resized": None}, "aspect_bucket not found"),
        ({"width": None}, "width and height not found .*migrate"),
        ({"aspect_bucket": (1216, 832)}, r"crop .* is not a bucket of 832x1216"),
        ({"crop": (0, 41, 1216, 900)}, "is not a bucket"),
        ({"crop": (1, 40, 1216, 832)}, "is not a bucket"),
        ({"crop": (0, 41, 1216, 832)}, "crop_source is not where crop and resized put it"),
        ({"width": 401}, "crop_source is not where"),
    ):
        with pytest.raises(FormatError, match=message):
            bucket_frame(replace(record, **change))
    with pytest.raises(FormatError, match="exif_orientation are not known"):
        upright_frame(replace(record, exif_orientation=None))
    with pytest.raises(FormatError, match="width and height are not known"):
        place(Record(image_path="a", image_id="a"), MEGAPIXEL_BUCKETS)


def test_points_that_were_cut_away_are_refused():
    record = placed(4000, 3000)
    with pytest.raises(ShapeError, match=r"no patch shows the point x 5, y 100: .* 0, 2500/19, 4000, 54500/19"):
        cell_at(record, (16, 16), 5, 100)
    assert cell_at(record, (16, 16), 5, Fraction(2500, 19)) == (0, 0)


def test_names_of_buckets():
    assert parse_bucket("1216x832") == (832, 1216)
    for name in ("1216X832", "0x8", "8x", "8x8x8", " 8x8", "8.0x8", "٨x8"):
        with pytest.raises(FormatError, match="is no bucket; write width"):
            parse_bucket(name)
