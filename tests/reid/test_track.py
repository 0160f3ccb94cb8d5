"""Tracks: fresh boxes only, first boxes too, patience in seconds, labels apart, and the same for any order of boxes."""

import pytest
import torch

from patchatlas.errors import UsageError
from patchatlas.reid.boxes import Detections, Observation
from patchatlas.reid.track import Tracker, TrackRules, tracklets_of

METHODS = ["bytetrack", "ocsort"]


def found(*boxes: tuple[float, float, str], score: float = 0.9) -> Detections:
    """People 20 wide and 40 high at (x, y), each with a label."""
    corners = torch.tensor([(x, y, x + 20, y + 40) for x, y, _ in boxes], dtype=torch.float64).reshape(-1, 4)
    scores = torch.full((len(boxes),), score, dtype=torch.float64)
    return Detections(corners, scores, tuple(label for *_, label in boxes))


def walk(tracker: Tracker, frames: dict[int, Detections], fps: float) -> list[Observation]:
    return [seen for frame, boxes in frames.items() for seen in tracker.update(frame, frame / fps, boxes)]


@pytest.mark.parametrize("method", METHODS)
def test_two_people_keep_their_tracks_from_the_first_box_on(method: str) -> None:
    tracker = Tracker(fps=10.0, rules=TrackRules(method=method))
    frames = {f: found((10 + 3 * f, 50, "a"), (200 - 3 * f, 150, "a")) for f in range(12)}
    seen = walk(tracker, frames, 10)
    assert [(one.frame, one.track) for one in seen] == sorted((f, t) for f in range(12) for t in (1, 2))
    for one in seen:
        x = 10 + 3 * one.frame if one.box[1] == 50 else 200 - 3 * one.frame
        assert one.box[0] == x
        assert one.time_s == one.frame / 10
    assert len({one.track for one in seen if one.box[1] == 50}) == 1


@pytest.mark.parametrize("method", METHODS)
def test_a_lost_track_says_nothing(method: str) -> None:
    """Defect 12: lost tracks came out with stale boxes."""
    tracker = Tracker(fps=10.0, rules=TrackRules(method=method))
    frames = {f: found((10 + 2 * f, 50, "a")) for f in range(6)}
    frames |= {f: Detections.none() for f in (6, 7)}
    frames |= {f: found((10 + 2 * f, 50, "a")) for f in range(8, 12)}
    seen = walk(tracker, frames, 10)
    assert [one.frame for one in seen] == [*range(6), *range(8, 12)]
    assert {one.track for one in seen} == {1}


@pytest.mark.parametrize("fps", [5.0, 10.0, 30.0])
def test_patience_is_a_time_whatever_the_frame_rate(fps: float) -> None:
    def tracks(gap_s: float) -> int:
        tracker = Tracker(fps=fps, rules=TrackRules(patience_s=1.0))
        there = found((50, 50, "a"))
        back = 5 + round(gap_s * fps)
        frames = {f: there if f < 5 or f >= back else Detections.none() for f in range(back + 5)}
        return len({seen.track for seen in walk(tracker, frames, fps)})

    assert tracks(0.6) == 1
    assert tracks(1.8) == 2


@pytest.mark.parametrize("method", METHODS)
def test_speed_does_not_depend_on_the_frame_rate(method: str) -> None:
    """Defect 11: speed in pixels a second, used as pixels a frame."""
    for fps in (4.0, 30.0):
        tracker = Tracker(fps=fps, rules=TrackRules(method=method))
        frames = {f: found((5 + 4 * f, 50, "a")) for f in range(30)}
        frames[12] = Detections.none()
        assert {seen.track for seen in walk(tracker, frames, fps)} == {1}


@pytest.mark.parametrize("fps", [4.0, 30.0])
def test_unsteady_boxes_are_one_track_whatever_the_frame_rate(fps: float) -> None:
    """How far a box may be from where it is expected is counted in frames of the rate that is shown, not of thirty."""
    frames = {f: found((54 if f % 2 else 46, 50, "a")) for f in range(30)}
    assert {seen.track for seen in walk(Tracker(fps=fps), frames, fps)} == {1}


def test_a_skipped_stretch_of_time_moves_the_prediction_on() -> None:
    """Frames 10 to 13 are not looked at; the object is where its speed says, its boxes do not overlap any more."""
    tracker = Tracker(fps=10.0)
    frames = {f: found((5 + 6 * f, 50, "a")) for f in range(30) if f not in range(10, 14)}
    assert {seen.track for seen in walk(tracker, frames, 10)} == {1}


def test_labels_do_not_share_a_track_unless_asked() -> None:
    frames = {f: found((10, 50, "car" if f < 5 else "truck")) for f in range(10)}
    apart = walk(Tracker(fps=10.0), frames, 10)
    assert {(one.track, one.label) for one in apart} == {(1, "car"), (2, "truck")}
    rules = TrackRules(label_by_label=False)
    assert {one.track for one in walk(Tracker(fps=10.0, rules=rules), frames, 10)} == {1}


def test_the_order_of_boxes_does_not_matter() -> None:
    def boxes(turned: bool) -> dict[int, Detections]:
        all_of = {f: found((10 + 3 * f, 50, "a"), (120, 60, "b"), (200 - 2 * f, 150, "a")) for f in range(8)}
        return {f: one.pick([2, 1, 0]) if turned else one for f, one in all_of.items()}

    def places(turned: bool) -> set[frozenset[tuple[int, float]]]:
        tracklets, _ = tracklets_of(walk(Tracker(fps=10.0), boxes(turned), 10))
        return {frozenset((seen.frame, seen.box[0]) for seen in one.observations) for one in tracklets}

    assert places(False) == places(True)
    assert len(places(False)) == 3


def test_unsure_boxes_continue_a_track_and_begin_none() -> None:
    frames = {f: found((50, 50, "a"), score=0.9 if f < 4 else 0.3) for f in range(8)}
    seen = walk(Tracker(fps=10.0), frames, 10)
    assert [one.frame for one in seen] == list(range(8))
    assert walk(Tracker(fps=10.0), {f: found((50, 50, "a"), score=0.3) for f in range(8)}, 10) == []


def test_frames_without_boxes_are_fine() -> None:
    assert walk(Tracker(fps=10.0), {f: Detections.none() for f in range(4)}, 10) == []


def test_what_is_refused() -> None:
    with pytest.raises(UsageError, match="frames a second"):
        Tracker(fps=0.0)
    with pytest.raises(UsageError, match="choose bytetrack or ocsort"):
        TrackRules(method="sort")
    with pytest.raises(UsageError, match="least_iou"):
        TrackRules(least_iou=1.5)
    with pytest.raises(UsageError, match="patience"):
        TrackRules(patience_s=-1.0)
    tracker = Tracker(fps=10.0)
    tracker.update(3, 0.3, Detections.none())
    with pytest.raises(UsageError, match="in order"):
        tracker.update(2, 0.2, Detections.none())


def test_tracklets_have_the_label_of_their_boxes() -> None:
    def one(track: int, frame: int, score: float, label: str) -> Observation:
        return Observation(track, frame, frame / 10, (0.0, 0.0, 1.0, 1.0), score, label)

    seen = [one(7, 2, 0.4, "cat"), one(7, 0, 0.5, "cat"), one(7, 1, 0.8, "dog"), one(3, 0, 1.0, "cat")]
    (only,), left_out = tracklets_of(seen, least_boxes=2)
    assert (only.id, only.label, left_out) == (7, "cat", 1)
    assert [row.frame for row in only.observations] == [0, 1, 2]


def test_a_lone_box_begins_nothing_much_later() -> None:
    """The tracker of a label that is not in the frame sees that time goes on."""
    frames = {0: found((50, 50, "a"))} | {f: found((200, 50, "b")) for f in range(1, 8)}
    frames |= {f: found((50, 50, "a")) for f in (8, 9)}
    assert [seen.frame for seen in walk(Tracker(fps=10.0), frames, 10) if seen.label == "a"] == [8, 9]
