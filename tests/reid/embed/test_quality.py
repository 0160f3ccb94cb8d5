"""What a crop is worth, part by part, and that the chosen ones are the best and spread over time."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from patchatlas.errors import UsageError
from patchatlas.reid.boxes import Detections, Tracklet
from patchatlas.reid.embed.quality import (
    BEHIND,
    CUT_OFF,
    ENOUGH_PX,
    LEAST_SHARP,
    LEAST_WORTH,
    Quality,
    choose,
    qualities,
    sharpness,
    steadiness,
)
from tests.reid.conftest import MakeTracklet


def noise(h: int, w: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (h, w, 3), np.uint8)


def found(*boxes: tuple[float, float, float, float], scores: tuple[float, ...] | None = None) -> Detections:
    rows = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
    sure = torch.tensor(scores or (1.0,) * len(boxes), dtype=torch.float64)
    return Detections(rows, sure, ("person",) * len(boxes))


def test_each_part_by_hand() -> None:
    boxes = found((10, 10, 30, 90), (20, 10, 40, 80), (280, 50, 299, 60), scores=(0.5, 1, 1))
    one, other, edge = qualities(boxes, (200, 300), (0.25, 0.5, 1.0))
    assert (one.sharpness, other.sharpness, edge.sharpness) == (0.25, 0.5, 1.0)
    assert (one.confidence, other.confidence) == (0.5, 1.0)
    assert one.area == pytest.approx(40 / ENOUGH_PX)  # sqrt(20 * 80)
    assert (one.border, edge.border) == (1.0, CUT_OFF)
    # They share 10 x 70; the first reaches further down, so it stands in front.
    assert one.visibility == pytest.approx((1 - BEHIND * 700 / 1600) ** 2)
    assert other.visibility == pytest.approx((1 - 700 / 1400) ** 2)
    assert edge.visibility == 1.0
    assert one.worth == pytest.approx(0.5 * one.area * one.visibility * 0.25)
    assert qualities(found(scores=()), (200, 300), ()) == ()


@pytest.mark.parametrize("box", [(2.0, 50, 40, 90), (50, 1.5, 90, 40), (250, 50, 298.5, 90), (50, 150, 90, 199)])
def test_every_border_counts(box) -> None:
    assert qualities(found(box), (200, 300), (1.0,))[0].border == CUT_OFF


def test_a_large_box_gains_nothing_more() -> None:
    assert qualities(found((10, 10, 390, 390)), (400, 400), (1.0,))[0].area == 1.0


def test_worth_is_never_zero() -> None:
    """Weights of a portrait are above 0, so the only crop of a tracklet still counts."""
    assert Quality(0.0, 1.0, 1.0, 1.0, 1.0).worth == LEAST_WORTH
    hidden = qualities(found((50, 50, 60, 60), (40, 40, 80, 90)), (200, 300), (1.0, 1.0))[0]
    assert hidden.visibility == 0.0
    assert hidden.worth == LEAST_WORTH


def test_blur_is_seen_at_any_size() -> None:
    picture = noise(48, 48)
    sharp = np.kron(noise(48, 24), np.ones((4, 4, 1), np.uint8))  # detail larger than the drawn pixel
    small = noise(6, 3)  # enlarged, so blurred
    ramp = np.broadcast_to(np.arange(48, dtype=np.uint8)[:, None, None] * 5, (48, 48, 3)).copy()
    assert sharpness(picture) > 0.9
    assert sharpness(sharp) > 0.9
    assert LEAST_SHARP < sharpness(small) < sharpness(sharp) - 0.1
    assert LEAST_SHARP < sharpness(ramp) < 0.3
    assert sharpness(np.full((20, 20, 3), 80, np.uint8)) == LEAST_SHARP
    assert sharpness(picture[:0]) == LEAST_SHARP
    dim = (picture // 8).astype(np.uint8)
    assert sharpness(dim) == pytest.approx(sharpness(picture), abs=0.02)  # light does not count


def test_not_the_first_crops_but_the_best_of_each_part(tracklet: MakeTracklet) -> None:
    one = tracklet(1, range(0, 24, 2))  # frames 0, 2 .. 22
    worth = dict.fromkeys(range(0, 24, 2), 0.5)
    worth |= {4: 0.9, 12: 0.7, 14: 0.7, 22: 0.6}
    assert choose(one, worth, count=3) == (4, 12, 22)
    assert choose(one, worth, count=1) == (4,)
    assert choose(one, worth, count=99) == tuple(range(0, 24, 2))
    with pytest.raises(UsageError, match="one crop or more, given 0"):
        choose(one, worth, count=0)


def test_a_tracklet_of_one_box(tracklet: MakeTracklet) -> None:
    assert choose(tracklet(1, range(7, 8)), {7: 1e-6}, count=8) == (7,)


def resized(made: Tracklet, frame: int, box: tuple[float, float, float, float]) -> Tracklet:
    """The tracklet with another box in one frame."""
    seen = tuple(replace(one, box=box) if one.frame == frame else one for one in made.observations)
    return replace(made, observations=seen)


def test_a_box_of_unusual_size_is_unsteady(tracklet: MakeTracklet) -> None:
    steady = tracklet(1, range(30), (0, 0, 10, 20), dx=3)
    assert set(steadiness(steady).values()) == {1.0}
    with_another = resized(steady, 12, (36.0, 0.0, 56.0, 20.0))  # twice as wide
    found = steadiness(with_another)
    assert found.pop(12) == pytest.approx(0.25)
    assert set(found.values()) == {1.0}
    half_hidden = steadiness(resized(steady, 12, (36.0, 0.0, 46.0, 10.0)))
    assert half_hidden[12] == pytest.approx(0.25)


def test_what_is_usual_is_so_at_that_time(tracklet: MakeTracklet) -> None:
    """Somebody who stays twice as large has come nearer."""
    made = tracklet(1, range(100), (0, 0, 10, 20))
    for frame in range(50, 100):
        made = resized(made, frame, (0.0, 0.0, 20.0, 40.0))
    found = steadiness(made)
    assert found[10] == found[90] == 1.0
    assert steadiness(tracklet(1, range(1)))[0] == 1.0


def test_steadiness_is_part_of_the_worth() -> None:
    assert Quality(1.0, 1.0, 1.0, 1.0, 1.0, 0.25).worth == 0.25
