"""From the boxes of each frame to tracks: the trackers of the `trackers` package behind one small door.

A track here is one object in one stretch of being seen; who it is again after an absence is for `link`. Every row that
comes out is a box that the detector gave in that very frame: a lost track says nothing.

Time counts, not frames: patience is in seconds, and a gap in the frames moves the prediction on by as much.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from patchatlas.errors import MissingExtraError, UsageError
from patchatlas.reid.boxes import Box, Detections, Observation, Tracklet
from patchatlas.reid.overlap import iou

METHODS = ("bytetrack", "ocsort")

_FULL_FPS = 30.0
"""`trackers` counts patience in frames of a video of thirty a second."""


@dataclass(frozen=True, kw_only=True)
class TrackRules:
    """When a box continues a track.

    Attributes:
        method: `bytetrack` (Zhang et al., arXiv 2110.06864) or `ocsort` (Cao et al., arXiv 2203.14360).
        patience_s: a track that was not seen for longer has ended.
        least_iou: least overlap of a box with where its track is expected.
        sure: boxes with this score are matched first; the others only continue tracks.
        start: least score of a box that begins a track.
        label_by_label: boxes of different labels never share a track; without it a track may change its label.

    Raises:
        UsageError: a number outside its range.
    """

    method: str = "bytetrack"
    patience_s: float = 1.0
    least_iou: float = 0.1
    sure: float = 0.6
    start: float = 0.6
    label_by_label: bool = True

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"there is no tracker {self.method!r}; choose {' or '.join(METHODS)}")
        if self.patience_s < 0:
            raise UsageError(f"patience is a time of 0 seconds or more, given {self.patience_s}")
        for name in ("least_iou", "sure", "start"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is a share of 0..1, given {getattr(self, name)}")


@dataclass(frozen=True)
class _Unclaimed:
    """Boxes of the frame before that no track had yet."""

    frame: int
    time_s: float
    detections: Detections


class Tracker:
    """Follows the boxes of one video, frame by frame in order of time.

    Args:
        fps: frames a second that will be shown to it.
        rules: when a box continues a track.

    Raises:
        MissingExtraError: `trackers` is not installed.
        UsageError: `fps` is not positive.
    """

    def __init__(self, *, fps: float, rules: TrackRules | None = None) -> None:
        if not fps > 0:
            raise UsageError(f"frames a second must be positive, given {fps}")
        self._fps, self._rules = fps, rules or TrackRules()
        self._package = _package()
        self._by_label: dict[str, Any] = {}
        self._unclaimed: dict[str, _Unclaimed] = {}
        self._numbers: dict[tuple[str, int], int] = {}
        self._time_s: float | None = None

    def update(self, frame: int, time_s: float, detections: Detections) -> list[Observation]:
        """Take in the boxes of one frame.

        Returns:
            Boxes with their tracks, by frame and track. A track is known from its second box on; then its first one,
            of the frame before, comes too.

        Raises:
            UsageError: time does not rise.
        """
        if self._time_s is not None and time_s <= self._time_s:
            raise UsageError(f"frame {frame} at {time_s} s does not come after {self._time_s} s; give frames in order")
        self._time_s = time_s
        keys = ["" if not self._rules.label_by_label else label for label in detections.labels]
        out: list[Observation] = []
        # Trackers that see no box in this frame must know that time went on.
        for key in sorted(self._by_label.keys() | set(keys)):
            rows = [row for row, own in enumerate(keys) if own == key]
            out += self._update_one(key, frame, time_s, detections.pick(rows))
        return sorted(out, key=lambda seen: (seen.frame, seen.track))

    def _update_one(self, key: str, frame: int, time_s: float, detections: Detections) -> list[Observation]:
        if key not in self._by_label:
            self._by_label[key] = self._made()
        ids = self._ids(self._by_label[key], time_s, detections)
        before = self._unclaimed.pop(key, None)
        out = []
        for row, identity in enumerate(ids):
            if identity < 0:
                continue
            if (key, identity) not in self._numbers:
                self._numbers[key, identity] = len(self._numbers) + 1
                first = _first_box(before, detections, row, least_iou=self._rules.least_iou, start=self._rules.start)
                if before is not None and first is not None:
                    number = self._numbers[key, identity]
                    out.append(_observed(number, before.frame, before.time_s, before.detections, first))
                    before = _Unclaimed(before.frame, before.time_s, _without(before.detections, first))
            out.append(_observed(self._numbers[key, identity], frame, time_s, detections, row))
        rest = detections.pick([row for row, identity in enumerate(ids) if identity < 0])
        self._unclaimed[key] = _Unclaimed(frame, time_s, rest)
        return out

    def _made(self) -> Any:
        rules, package = self._rules, self._package
        # An id from the second box on: short tracks are left out later, by who knows the whole video.
        shared = {
            "lost_track_buffer": round(rules.patience_s * _FULL_FPS),
            "frame_rate": self._fps,
            "minimum_consecutive_frames": 1,
            "minimum_iou_threshold": rules.least_iou,
            "high_conf_det_threshold": rules.sure,
        }
        if rules.method == "ocsort":
            return package.OCSORTTracker(**shared)
        return package.ByteTrackTracker(**shared, track_activation_threshold=rules.start)

    def _ids(self, tracker: Any, time_s: float, detections: Detections) -> list[int]:
        """Id of each box, -1 for none. The package gives boxes back in another order, so each carries its row."""
        import supervision

        given = supervision.Detections(
            xyxy=detections.boxes.numpy().astype(np.float32),
            confidence=detections.scores.numpy().astype(np.float32),
            class_id=np.arange(len(detections)),
        )
        ids = [-1] * len(detections)
        tracked = tracker.update(given, timestamp=time_s)
        if len(tracked):
            for row, identity in zip(tracked.class_id.tolist(), tracked.tracker_id.tolist(), strict=True):
                ids[row] = identity
        return ids


def tracklets_of(observations: Iterable[Observation], *, least_boxes: int = 1) -> tuple[list[Tracklet], int]:
    """Tracks as tracklets, by number, each with the label that its boxes have, weighted by their scores.

    Args:
        observations: of one video, in any order.
        least_boxes: shorter tracks are left out.

    Returns:
        The tracklets, and how many tracks were left out.
    """
    tracks: dict[int, list[Observation]] = {}
    for seen in observations:
        tracks.setdefault(seen.track, []).append(seen)
    kept = []
    for number, rows in sorted(tracks.items()):
        if len(rows) >= least_boxes:
            kept.append(Tracklet(number, _label(rows), tuple(sorted(rows, key=lambda seen: seen.frame))))
    return kept, len(tracks) - len(kept)


def _label(rows: list[Observation]) -> str:
    weight: dict[str, float] = {}
    for seen in rows:
        weight[seen.label] = weight.get(seen.label, 0.0) + seen.score
    return min(weight, key=lambda label: (-weight[label], label))


def _first_box(
    before: _Unclaimed | None, detections: Detections, row: int, *, least_iou: float, start: float
) -> int | None:
    """Which box of the frame before began the track that is now known by box `row`."""
    if before is None or not len(before.detections):
        return None
    overlap = iou(before.detections.boxes, detections.boxes[row : row + 1])[:, 0]
    overlap = torch.where(before.detections.scores >= start, overlap, 0.0)
    best = int(overlap.argmax())
    return best if float(overlap[best]) >= max(least_iou, 1e-9) else None


def _without(detections: Detections, row: int) -> Detections:
    return detections.pick([other for other in range(len(detections)) if other != row])


def _observed(track: int, frame: int, time_s: float, detections: Detections, row: int) -> Observation:
    x0, y0, x1, y1 = detections.boxes[row].tolist()
    box: Box = (x0, y0, x1, y1)
    return Observation(track, frame, time_s, box, float(detections.scores[row]), detections.labels[row])


def _package() -> Any:
    try:
        import trackers
    except ImportError as error:
        raise MissingExtraError("trackers", extra="reid", needed_for="tracking") from error
    return trackers
