"""Upright people by OpenCV's HOG detector, where OpenCV still has it: version 4 and the contrib build of 5.

Dalal and Triggs, "Histograms of oriented gradients for human detection", CVPR 2005. Its weights come with OpenCV. Old,
slow and often wrong; for people at 96 pixels and more, of whom all can be seen.
"""

import math
from collections import Counter

import numpy as np
import torch

from patchatlas.errors import MissingExtraError
from patchatlas.io.video import VideoFrame
from patchatlas.reid.boxes import Detections, clean

LABEL = "person"

# Its 64 x 128 window has a margin of about 16 pixels around the person on all sides (section 4 of the paper).
_MARGIN_X, _MARGIN_Y = 16 / 64, 16 / 128

_STEP = 8  # pixels between windows, one cell
_SCALE = 1.05  # between sizes of the window


class HogDetector:
    """Boxes around people; the score is the margin of the linear classifier through a logistic curve, not calibrated.

    Raises:
        MissingExtraError: OpenCV is not installed, or is a build without HOG.
    """

    def __init__(self) -> None:
        try:
            import cv2
        except ImportError as error:
            raise MissingExtraError("cv2", extra="opencv", needed_for="the detector hog") from error
        if not hasattr(cv2, "HOGDescriptor"):
            raise MissingExtraError(
                f"OpenCV 4, or the contrib build of 5 (this is {cv2.__version__})",
                extra="opencv",
                needed_for="the detector hog",
            )
        self._hog = cv2.HOGDescriptor()
        self._hog.setSVMDetector(np.array(cv2.HOGDescriptor.getDefaultPeopleDetector(), dtype=np.float32))
        self.facts: dict[str, object] = {
            "name": "hog",
            "opencv": cv2.__version__,
            "step": _STEP,
            "scale": _SCALE,
            "licence": "Apache-2.0",
        }
        self.dropped: Counter[str] = Counter()

    def __call__(self, frame: VideoFrame, /) -> Detections:
        """Boxes of people, from left to right; frames smaller than the window of 64 x 128 have none."""
        rows, columns = frame.pixels.shape[:2]
        if rows < 128 or columns < 64:
            return Detections.none()
        found, weights = self._hog.detectMultiScale(
            frame.pixels, winStride=(_STEP, _STEP), padding=(_STEP, _STEP), scale=_SCALE
        )
        # Threads hand the windows in as they come.
        ordered = sorted((tuple(map(float, box)), float(one)) for box, one in zip(found, weights, strict=True))
        boxes = [
            (x + _MARGIN_X * w, y + _MARGIN_Y * h, x + (1 - _MARGIN_X) * w, y + (1 - _MARGIN_Y) * h)
            for (x, y, w, h), _ in ordered
        ]
        scores = [1 / (1 + math.exp(-weight)) for _, weight in ordered]
        kept, dropped = clean(
            torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4),
            torch.tensor(scores, dtype=torch.float64),
            [LABEL] * len(boxes),
            (rows, columns),
        )
        self.dropped.update(dropped)
        return kept
