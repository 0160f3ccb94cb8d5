"""What every detector does, and the choice that is made among its boxes."""

from collections import Counter
from typing import Protocol, runtime_checkable

from patchatlas.io.video import VideoFrame
from patchatlas.reid.boxes import Detections
from patchatlas.reid.detect.boxes_file import BoxesFile


@runtime_checkable
class Detector(Protocol):
    """Finds boxes in the frames of one video, shown in order; some learn from what they have seen.

    Attributes:
        facts: what made the boxes, for the record: name, settings, licence, hash of weights; plain JSON.
        dropped: boxes left out so far, by reason.
    """

    facts: dict[str, object]
    dropped: Counter[str]

    def __call__(self, frame: VideoFrame, /) -> Detections:
        """The boxes in a frame, in its pixels, clipped to it."""
        ...


class Chosen:
    """A detector of which only some boxes are taken.

    Args:
        detector: finds the boxes.
        least_score: boxes with a lower score are left out.
        least_side: boxes that are narrower or lower are left out, pixels.
        labels: only these are taken; all if empty.
    """

    def __init__(
        self, detector: Detector, *, least_score: float = 0.0, least_side: float = 0.0, labels: tuple[str, ...] = ()
    ) -> None:
        self._detector = detector
        self._least_score, self._least_side, self._labels = least_score, least_side, frozenset(labels)
        self.facts = {
            **detector.facts,
            "least_score": least_score,
            "least_side": least_side,
            "labels": sorted(self._labels),
        }
        self.dropped = detector.dropped

    def unasked(self) -> int:
        """How many boxes of a file lie at frames that were not shown; 0 for other detectors."""
        return self._detector.unasked() if isinstance(self._detector, BoxesFile) else 0

    def __call__(self, frame: VideoFrame, /) -> Detections:
        """The boxes that are taken, in the detector's order; the others are counted."""
        found = self._detector(frame)
        kept = []
        sides = (found.boxes[:, 2:] - found.boxes[:, :2]).min(dim=1).values.tolist() if len(found) else []
        for row, (score, side, label) in enumerate(zip(found.scores.tolist(), sides, found.labels, strict=True)):
            if self._labels and label not in self._labels:
                self.dropped["another label"] += 1
            elif score < self._least_score:
                self.dropped["low score"] += 1
            elif side < self._least_side:
                self.dropped["small"] += 1
            else:
                kept.append(row)
        return found.pick(kept)
