"""Looks: pooling by quality, what is refused, and who is seen together."""

from collections.abc import Callable

import pytest
import torch

from patchatlas.errors import InputError, ShapeError
from patchatlas.reid.boxes import Tracklet
from patchatlas.reid.portraits import Portrait, handover_frames, likeness, second_boxes, together

MakeTracklet = Callable[..., Tracklet]
MakePortrait = Callable[..., Portrait]


def test_pooled_by_weight_at_unit_length(tracklet: MakeTracklet, portrait: MakePortrait) -> None:
    one = portrait(tracklet(1, range(4)), (1.0, 0.0), (0.0, 1.0), weights=(3.0, 4.0))
    torch.testing.assert_close(one.pooled(), torch.tensor([0.6, 0.8], dtype=torch.float64))
    torch.testing.assert_close(one.pooled([1]), torch.tensor([0.0, 1.0], dtype=torch.float64))
    other = portrait(tracklet(2, range(4)), (1.0, 0.0))
    torch.testing.assert_close(likeness([one, other])[0, 1].item(), 0.6)


def test_what_a_portrait_refuses(tracklet: MakeTracklet, portrait: MakePortrait) -> None:
    """Defects 6 to 8: zero vectors, and vectors that shift onto other boxes."""
    one = tracklet(1, range(4))
    zero, unit, weights = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), torch.ones(1)
    with pytest.raises(InputError, match="length 1"):
        Portrait(one, (0,), zero, weights)
    with pytest.raises(InputError, match="length 1"):
        Portrait(one, (0,), unit * torch.nan, weights)
    with pytest.raises(InputError, match="above 0"):
        Portrait(one, (0,), unit, weights * 0)
    with pytest.raises(ShapeError, match="do not belong"):
        Portrait(one, (0, 1), unit, weights)
    with pytest.raises(InputError, match="do not rise"):
        Portrait(one, (1, 1), unit.repeat(2, 1), weights.repeat(2))
    with pytest.raises(InputError, match="no vector to pool"):
        portrait(one).pooled()


@pytest.mark.parametrize(
    ("frames", "x", "apart"),
    [
        (range(10, 20), 0, False),  # one after the other
        (range(5, 15), 100, True),  # five frames together, never touching
        (range(5, 15), 9, False),  # five frames together, touching in each: a late handover
        (range(4, 14), 9, True),  # six are too many
        (range(9, 19), 100, True),  # one frame together, far apart
    ],
)
def test_who_is_seen_together(tracklet: MakeTracklet, frames: range, x: int, apart: bool) -> None:
    one, other = tracklet(1, range(10)), tracklet(2, frames, (x, 0, x + 10, 20))
    table = together([one, other], tolerance=5)
    assert table.tolist() == [[False, apart], [apart, False]]


def test_second_boxes_lie_on_a_longer_tracklet(tracklet: MakeTracklet) -> None:
    long = tracklet(1, range(20), dx=2)
    on_top = tracklet(2, range(5, 9), (11, 0, 21, 20), dx=2)
    beside = tracklet(3, range(5, 9), (40, 0, 50, 20), dx=2)
    longer = tracklet(4, range(8, 30), (16, 0, 26, 20), dx=2)  # lies on the first in 12 of its 22 frames
    assert second_boxes([on_top, long, beside]) == {2: 1}
    assert second_boxes([long, longer]) == {1: 4}


def test_a_meeting_is_no_second_box(tracklet: MakeTracklet) -> None:
    """On each other in four of the six frames that they share, but the shorter one is seen in ten."""
    long = tracklet(1, range(20))
    passes = tracklet(2, range(14, 24), (-4, 0, 6, 20), dx=1.5)
    assert second_boxes([long, passes]) == {}


def test_a_hand_over_is_a_time_not_a_count(tracklet: MakeTracklet) -> None:
    """Half a second is five looks at ten a second, and one at two a second."""
    often, seldom = tracklet(1, range(10)), tracklet(2, range(0, 40, 5))
    assert handover_frames([often]) == 5
    assert handover_frames([seldom]) == 1
    assert handover_frames([often], 1.0) == 10
    assert handover_frames([tracklet(3, [4])]) == 0
