"""What moves before a still camera, by OpenCV's MOG2 background model: no weights, no classes.

Zivkovic, "Improved adaptive Gaussian mixture model for background subtraction", ICPR 2004. It sees movement, not
objects: people who touch are one box, who stands still fades, and a camera that moves makes everything move.
"""

from collections import Counter

import numpy as np
import torch

from patchatlas.errors import MissingExtraError, UsageError
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.sampling import resample_picture
from patchatlas.io.video import VideoFrame
from patchatlas.reid.boxes import Detections, clean

LABEL = "moving"

_SHADOW_BELOW = 200  # OpenCV marks shadows 127 and what moves 255
_ADAPT_S = 30.0
_THRESHOLD = 25.0  # squared distance from the background in standard deviations; OpenCV's own 16 lets noise through

_BRIDGE = (0.008, 0.024)
"""Gaps across and down that are closed, shares of the long side. In vtest.avi (OpenCV) 13 % of boxes then hold two or
more people or are too wide for one; with 0.012 across 17 %."""


class MotionDetector:
    """Boxes around what moves.

    The score of a box runs from one half to one with the share of it that moves: blobs of several objects and loose
    ends fill their boxes badly.

    Args:
        fps: frames a second that will be shown to it.
        work_side: long side at which movement is looked for, pixels; smaller frames are taken as they are.
        least_share: blobs that are smaller than this share of the frame are noise.
        most_share: boxes larger than this share of the frame are a change of light or camera.

    Raises:
        MissingExtraError: OpenCV is not installed.
        UsageError: a rate that is not positive.
    """

    def __init__(
        self, *, fps: float, work_side: int = 640, least_share: float = 0.0005, most_share: float = 0.5
    ) -> None:
        try:
            import cv2
        except ImportError as error:
            raise MissingExtraError("cv2", extra="opencv", needed_for="the motion detector") from error
        if not fps > 0:
            raise UsageError(f"frames a second must be positive, given {fps}")
        self._cv2 = cv2
        history = max(20, round(_ADAPT_S * fps))
        self._background = cv2.createBackgroundSubtractorMOG2(history, _THRESHOLD, detectShadows=True)
        self._work_side, self._least_share, self._most_share = work_side, least_share, most_share
        self._seen = 0
        self.facts: dict[str, object] = {
            "name": "motion",
            "method": "MOG2",
            "opencv": cv2.__version__,
            "history": history,
            "threshold": _THRESHOLD,
            "bridge": list(_BRIDGE),
            "work_side": work_side,
            "least_share": least_share,
            "most_share": most_share,
            "licence": "Apache-2.0",
        }
        self.dropped: Counter[str] = Counter()

    def __call__(self, frame: VideoFrame, /) -> Detections:
        """Boxes of what differs from the frames before; none in the first."""
        size_hw = frame.pixels.shape[:2]
        drawn = _at_most(size_hw, self._work_side)
        pixels = frame.pixels
        if drawn.size != size_hw:
            pixels = np.rint(resample_picture(pixels, drawn).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        mask = self._background.apply(pixels)
        self._seen += 1
        if self._seen == 1:
            return Detections.none()
        boxes, scores = self._blobs(mask)
        found, dropped = clean(drawn.boxes_to_source(boxes), scores, (LABEL,) * len(boxes), size_hw)
        self.dropped.update(dropped)
        return found

    def _blobs(self, mask: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes and scores of the connected parts of a mask, in its pixels, from top to bottom."""
        cv2 = self._cv2
        area = mask.shape[0] * mask.shape[1]
        moving = np.where(mask > _SHADOW_BELOW, 255, 0).astype(np.uint8)
        long = max(mask.shape)
        moving = cv2.morphologyEx(moving, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3)))
        # Higher than wide: the gaps within a person lie above each other, those between people side by side.
        across, down = (max(3, round(share * long)) | 1 for share in _BRIDGE)
        bridge = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (across, down))
        joined = cv2.morphologyEx(moving, cv2.MORPH_CLOSE, bridge)
        _, parts, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
        boxes, scores = [], []
        for part, (left, top, width, height, count) in enumerate(stats.tolist()):
            if part == 0 or count < self._least_share * area:  # part 0 is what stands still
                continue
            if width * height > self._most_share * area:
                self.dropped["most of the frame moves"] += 1
                continue
            within = slice(top, top + height), slice(left, left + width)
            share = float(((parts[within] == part) & (moving[within] > 0)).mean())
            boxes.append((left, top, left + width, top + height))
            scores.append(0.5 + 0.5 * share)
        return torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4), torch.tensor(scores, dtype=torch.float64)


def _at_most(size_hw: tuple[int, int], side: int) -> Frame:
    """The picture with its long side scaled down to `side`, where it is longer."""
    shrink = min(1.0, side / max(size_hw))
    return Frame.whole(size_hw).resize([max(1, round(n * shrink)) for n in size_hw])
