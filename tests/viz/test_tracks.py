"""Boxes on frames: pixels where the box says, colours that belong to identities, a strip whose line tells the time."""

import numpy as np
import pytest

from patchatlas.errors import UsageError
from patchatlas.viz.tracks import THINNEST, Lane, Seen, Strip, draw_boxes, identity_colour, outline, with_strip

RED = (255, 60, 60)


def seen(x0: float, y0: float, x1: float, y1: float, colour: tuple[int, int, int] = RED, **more) -> Seen:
    return Seen((float(x0), float(y0), float(x1), float(y1)), more.pop("name", ""), colour, **more)


def lane(name: str, *spans: tuple[float, float]) -> Lane:
    return Lane(name, RED, tuple((float(start), float(end)) for start, end in spans))


def black(h: int = 120, w: int = 200) -> np.ndarray:
    return np.zeros((h, w, 3), dtype=np.uint8)


def where(picture: np.ndarray, colour: tuple[int, int, int]) -> tuple[list[int], list[int]]:
    """Rows and columns from first to last that have a colour."""
    rows, columns = np.nonzero((picture == colour).all(axis=2))
    return [rows.min(), rows.max()], [columns.min(), columns.max()]


def test_the_outline_is_on_the_pixels_that_the_box_touches():
    assert outline((10.0, 20.0, 30.0, 60.0)) == (10, 20, 29, 59)
    assert outline((10.5, 20.25, 29.5, 59.1)) == (10, 20, 29, 59)


def test_a_box_is_drawn_on_its_own_border():
    picture = black()
    drawn = draw_boxes(picture, [seen(50, 40, 90, 100)])
    below = drawn[45:]  # the name's background, of the same colour, stands above
    assert where(below, RED) == ([0, 99 - 45], [50, 89])
    assert (drawn[70, 60:80] == 0).all()
    assert not picture.any()


def test_who_is_not_known_has_a_thin_line():
    def thickness(sure: bool) -> int:
        drawn = draw_boxes(black(), [seen(50, 40, 90, 100, sure=sure)])
        return int((drawn[70, 50:70] == RED).all(axis=1).sum())

    assert thickness(False) == 1
    assert thickness(True) == 2


def test_the_nearer_one_is_drawn_last():
    near, far = seen(20, 40, 60, 110), seen(40, 20, 100, 100, (0, 255, 0))
    for order in ([near, far], [far, near]):
        assert draw_boxes(black(), order)[40, 40].tolist() == list(RED)


@pytest.mark.parametrize("box", [(0, 0, 12, 12), (188, 100, 200, 120), (0, 0, 200, 120), (5, 5, 6, 6)])
def test_names_stay_in_the_picture(box: tuple[float, float, float, float]):
    name = "somebody 12"
    drawn = draw_boxes(black(), [seen(*box, name=name)])
    widest = (drawn == RED).all(axis=2).sum(axis=1).max()
    assert widest >= 50  # the name's background is whole


def test_colours_belong_to_numbers_and_are_apart():
    colours = np.array([identity_colour(n) for n in range(1, 13)], dtype=float)
    assert identity_colour(3) == tuple(colours[2])
    gaps = np.linalg.norm(colours[:, None] - colours[None], axis=2) + 999 * np.eye(12)
    assert gaps.min() > 25
    near = np.linalg.norm(np.diff(colours, axis=0), axis=1)
    assert near.min() > 90
    luma = colours @ (0.299, 0.587, 0.114)
    assert luma.min() > 100  # dark letters can be read on them
    with pytest.raises(UsageError, match="from 1"):
        identity_colour(0)


def strip(lanes: list[Lane], *, width: int = 400, most_height: int = 90) -> Strip:
    return Strip(width, lanes, duration_s=10.0, most_height=most_height)


def test_a_lane_is_coloured_while_it_is_seen():
    made = strip([lane("a", (2, 4), (8, 9))])
    picture = made.at(0.0)
    assert picture.shape == (made.height, 400, 3)
    row = picture[made.height - 10]
    at = {time: tuple(row[made.column(time)].tolist()) for time in (1.0, 3.0, 5.0, 8.5, 9.5)}
    assert [time for time, colour in at.items() if colour == RED] == [3.0, 8.5]


def test_a_short_sight_can_be_seen():
    made = Strip(400, [lane("a", (5000, 5000))], duration_s=1e4, most_height=90)
    assert (made.at(0.0) == RED).all(axis=2).any()


def test_the_line_is_at_the_time():
    made = strip([lane("a", (0, 10))])
    for time in (0.0, 2.5, 10.0, 99.0):
        row = made.at(time)[made.height - 8]
        assert np.flatnonzero((row == 255).all(axis=1)).tolist() == [made.column(time)]
    assert made.column(99.0) == made.column(10.0) < 400
    middle = (made.column(0.0) + made.column(10.0)) / 2
    assert abs(made.column(5.0) - middle) <= 0.5


def test_too_many_lanes_leave_out_the_briefest_and_say_so():
    lanes = [Lane(str(k), identity_colour(k), ((0.0, k / 10),)) for k in range(1, 51)]
    made = strip(lanes, most_height=20 * THINNEST)
    assert [lane.name for lane in made.lanes] == [str(k) for k in range(31, 51)]
    assert made.height < 20 * THINNEST + 40
    assert not np.array_equal(made.at(5.0), strip(lanes[30:], most_height=20 * THINNEST).at(5.0))


def test_nobody_is_no_trouble_but_no_time_is():
    assert strip([]).at(1.0).shape[1] == 400
    with pytest.raises(UsageError, match="lasts"):
        Strip(400, [], duration_s=0.0, most_height=90)


def test_a_strip_stands_below_its_frame():
    made = strip([])
    both = with_strip(black(60, 400), made.at(0.0))
    assert both.shape == (60 + made.height, 400, 3)
    assert np.array_equal(both[60:], made.at(0.0))
