"""Boxes: what is refused, what is clipped, and that every box left out is counted."""

import math

import pytest
import torch

from patchatlas.errors import InputError, ShapeError
from patchatlas.reid.boxes import Detections, Observation, Tracklet, clean


def rows(*boxes: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)


def test_clean_clips_drops_and_counts() -> None:
    boxes = rows(
        (1, 2, 5, 6),
        (-3, 2, 4, 99),  # sticks out: clipped
        (20, 20, 30, 30),  # outside, to the right and below
        (-9, 0, 0, 5),  # touches the border from outside
        (math.nan, 0, 1, 1),
        (0, 0, math.inf, 1),
        (3, 3, 3, 5),
        (5, 5, 4, 6),
        (0, 0, 10, 8),
        (0, 0, 2, 2),
    )
    scores = torch.tensor([0.5, 1, 1, 1, 1, 1, 1, 1, math.nan, 1.5], dtype=torch.float64)
    found, dropped = clean(boxes, scores, list("abcdefghij"), (8, 10))
    assert found.boxes.tolist() == [[1, 2, 5, 6], [0, 2, 4, 8]]
    assert found.scores.tolist() == [0.5, 1]
    assert found.labels == ("a", "b")
    assert dropped == {"empty": 2, "not a number": 3, "outside the frame": 2, "score not in 0..1": 1}


def test_clean_of_nothing() -> None:
    found, dropped = clean(rows(), torch.zeros(0), [], (8, 10))
    assert (len(found), dropped) == (0, {})


def test_clean_refuses_rows_that_do_not_belong_together() -> None:
    with pytest.raises(ShapeError, match="2 boxes, 2 scores and 1 labels"):
        clean(rows((0, 0, 1, 1), (0, 0, 1, 1)), torch.ones(2), ["a"], (8, 10))


@pytest.mark.parametrize(
    ("box", "score", "reason"),
    [
        ((math.nan, 0, 1, 1), 1.0, "not a number"),
        ((0, 0, 0, 1), 1.0, "empty"),
        ((0, 0, 1, 1), math.nan, "not a number"),
        ((0, 0, 1, 1), 1.01, r"score not in 0\.\.1"),
    ],
)
def test_detections_hold_usable_boxes_only(box: tuple[float, ...], score: float, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Detections(rows(box), torch.tensor([score], dtype=torch.float64), ("a",))


def test_detections_refuse_other_shapes_and_types() -> None:
    with pytest.raises(ShapeError, match="do not belong"):
        Detections(rows((0, 0, 1, 1)), torch.ones(1, dtype=torch.float64), ("a", "b"))
    with pytest.raises(ShapeError, match="float64"):
        Detections(rows((0, 0, 1, 1)).float(), torch.ones(1, dtype=torch.float64), ("a",))


def test_pick_keeps_rows_together() -> None:
    scores = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    three = Detections(rows((0, 0, 1, 1), (0, 0, 2, 2), (0, 0, 3, 3)), scores, ("a", "b", "c"))
    picked = three.pick([2, 0])
    assert (picked.boxes[:, 2].tolist(), picked.scores.tolist(), picked.labels) == ([3, 1], [0.3, 0.1], ("c", "a"))
    assert len(three.pick([])) == len(Detections.none()) == 0


def test_tracklet_is_in_order_and_not_empty() -> None:
    first, second = (Observation(1, frame, frame / 4, (0.0, 0.0, 1.0, 1.0), 0.5, "a") for frame in (3, 4))
    assert Tracklet(1, "a", (first, second)).observations[1].frame == 4
    with pytest.raises(InputError, match="no observation"):
        Tracklet(1, "a", ())
    for wrong in ((second, first), (first, first)):
        with pytest.raises(InputError, match="do not rise"):
            Tracklet(1, "a", wrong)
