"""Frames: hand-worked maps, round trips over everything a picture can go through."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchatlas.errors import ShapeError
from patchatlas.geometry.frame import Frame


def points(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize(
    ("frame", "in_frame", "in_source"),
    [
        # 40 x 30 (w x h) picture at half size: doubling brings a point back.
        (Frame.whole((30, 40)).resize((15, 20)), (10.0, 3.0), (20.0, 6.0)),
        # Each axis has its own scale.
        (Frame.whole((30, 40)).resize((60, 20)), (10.0, 3.0), (20.0, 1.5)),
        # A crop that begins at row 5, column 7.
        (Frame.whole((30, 40)).crop((5, 7), (10, 10)), (1.0, 2.0), (8.0, 7.0)),
        # A pad of 3 rows above and 4 columns left.
        (Frame.whole((30, 40)).pad((3, 4), (0, 0)), (4.0, 3.0), (0.0, 0.0)),
        # Left-right mirror: the left edge is the right edge.
        (Frame.whole((30, 40)).flip(1), (0.0, 1.0), (40.0, 1.0)),
        (Frame.whole((30, 40)).flip(0), (0.0, 1.0), (0.0, 29.0)),
        # Half size, then crop at (2, 3), then double: 0.5 * f + start, times 2.
        (Frame.whole((30, 40)).resize((15, 20)).crop((2, 3), (5, 5)).resize((10, 10)), (4.0, 2.0), (10.0, 6.0)),
        # A mirror after a crop mirrors the crop: column 7 + 10 - 1.
        (Frame.whole((30, 40)).crop((5, 7), (10, 10)).flip(1), (1.0, 0.0), (16.0, 5.0)),
        # A fractional crop keeps its fraction.
        (Frame.whole((30, 40)).crop((Fraction(1, 3), Fraction(-1, 4)), (5, 5)), (1.0, 1.0), (0.75, 4 / 3)),
        # Axes swapped: x and y change places.
        (Frame.whole((30, 40)).transpose((1, 0)), (2.0, 5.0), (5.0, 2.0)),
    ],
)
def test_hand_worked_maps(frame, in_frame, in_source):
    torch.testing.assert_close(frame.to_source(points(in_frame)), points(in_source), rtol=0, atol=1e-12)
    torch.testing.assert_close(frame.from_source(points(in_source)), points(in_frame), rtol=0, atol=1e-12)


def test_volume_points_run_x_y_z():
    frame = Frame.whole((10, 20, 40)).resize((5, 20, 10)).crop((1, 2, 3), (2, 2, 2))
    torch.testing.assert_close(frame.to_source(points((1.0, 1.0, 1.0))), points((16.0, 3.0, 4.0)))


# Where the upper-left stored pixel of a 3 x 2 (w x h) raster lands, as (x, y) of its centre in the upright picture.
@pytest.mark.parametrize(
    ("orientation", "upright_hw", "first_pixel"),
    [
        (1, (2, 3), (0.5, 0.5)),
        (2, (2, 3), (2.5, 0.5)),
        (3, (2, 3), (2.5, 1.5)),
        (4, (2, 3), (0.5, 1.5)),
        (5, (3, 2), (0.5, 0.5)),
        (6, (3, 2), (1.5, 0.5)),
        (7, (3, 2), (1.5, 2.5)),
        (8, (3, 2), (0.5, 2.5)),
    ],
)
def test_exif_orientations(orientation, upright_hw, first_pixel):
    frame = Frame.from_exif((2, 3), orientation)
    assert frame.size == upright_hw
    torch.testing.assert_close(frame.from_source(points((0.5, 0.5))), points(first_pixel))


def test_boxes_come_back_ordered():
    frame = Frame.whole((30, 40)).flip(1).resize((60, 80))
    box = frame.boxes_to_source(points((0.0, 10.0, 20.0, 30.0)))
    torch.testing.assert_close(box, points((30.0, 5.0, 40.0, 15.0)))


def test_content_is_what_is_not_padding():
    frame = Frame.whole((30, 40)).resize((15, 20)).pad((0, 2), (1, 10))
    assert frame.content() == ((0, 15), (2, 22))
    assert Frame.whole((30, 40)).crop((100, 0), (5, 5)).content()[0] == (0, 0)


def test_json_keeps_every_fraction():
    frame = Frame.whole((31, 47)).resize((7, 11)).crop((Fraction(1, 3), 2), (4, 4)).flip(0)
    assert Frame.from_json(frame.to_json()) == frame


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Frame.whole((30, 40)).crop((0, 0), (0, 5)), "empty side"),
        (lambda: Frame.from_exif((2, 3), 9), "orientation 9"),
        (lambda: Frame.whole((3, 4)).then(Frame.whole((4, 3))), "cannot compose"),
        (lambda: Frame.whole((3, 4)).to_source(torch.zeros(1, 3)), "2 coordinates"),
        (lambda: Frame.whole((3, 4)).boxes_to_source(torch.zeros(1, 6)), "4 numbers"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ShapeError, match=message):
        make()


sides = st.integers(1, 5000)
steps = st.one_of(
    st.tuples(st.just("resize"), sides, sides),
    st.tuples(st.just("crop"), st.fractions(-50, 50, max_denominator=64), st.fractions(-50, 50, max_denominator=64)),
    st.tuples(st.just("pad"), st.integers(0, 99), st.integers(0, 99)),
    st.tuples(st.just("flip"), st.integers(0, 1), st.just(0)),
    st.tuples(st.just("transpose"), st.just(0), st.just(0)),
)


def walk(frame: Frame, path) -> Frame:
    for name, a, b in path:
        if name == "resize":
            frame = frame.resize((a, b))
        elif name == "crop":
            frame = frame.crop((a, b), frame.size)
        elif name == "pad":
            frame = frame.pad((a, b), (b, a))
        elif name == "flip":
            frame = frame.flip(a)
        else:
            frame = frame.transpose((1, 0))
    return frame


@given(stored=st.tuples(sides, sides), orientation=st.integers(1, 8), path=st.lists(steps, max_size=5), data=st.data())
@settings(max_examples=300, deadline=None)
def test_points_and_boxes_survive_any_walk(stored, orientation, path, data):
    frame = walk(Frame.from_exif(stored, orientation), path)
    x = data.draw(st.floats(0, stored[1]))
    y = data.draw(st.floats(0, stored[0]))
    source = points((x, y), (stored[1] - x, y))
    torch.testing.assert_close(frame.to_source(frame.from_source(source)), source, rtol=0, atol=1e-4)
    box = points((min(x, 1.0), min(y, 1.0), max(x, 1.0), max(y, 1.0)))
    torch.testing.assert_close(frame.boxes_to_source(frame.boxes_from_source(box)), box, rtol=0, atol=1e-4)


@given(size=st.tuples(sides, sides), first=st.lists(steps, max_size=3), second=st.lists(steps, max_size=3))
@settings(max_examples=200, deadline=None)
def test_composition_is_walking_on(size, first, second):
    outer = walk(Frame.whole(size), first)
    assert walk(Frame.whole(outer.size), second).then(outer) == walk(outer, second)


@given(size=st.tuples(sides, sides), path=st.lists(steps, max_size=4))
@settings(max_examples=200, deadline=None)
def test_inverse_is_exact(size, path):
    frame = walk(Frame.whole(size), path)
    assert frame.inverse().inverse() == frame
    assert frame.inverse().then(frame).scale == (1, 1)
    assert frame.inverse().then(frame).shift == (0, 0)
