"""What each box of a tracklet is worth as a picture of its object, and which few are taken.

Axes: n boxes of one frame.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from patchatlas.arrays import ImageU8
from patchatlas.errors import UsageError
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.sampling import resample_picture
from patchatlas.reid.boxes import Detections, Tracklet
from patchatlas.reid.embed.crops import LEAST_SIDE
from patchatlas.reid.overlap import areas, intersections

ENOUGH_PX = 128
"""Square root of the area beyond which a crop gains nothing."""

BORDER_PX, CUT_OFF = 2, 0.3
"""A box that comes so near to the border of the frame is likely to be cut off, and what it is worth then."""

BEHIND = 0.3
"""How much a box counts as covering another that reaches further down, and so stands in front of it."""

SHARP_SIDE, SHARP_HALF, LEAST_SHARP = 48, 0.05, 0.1
"""Long side at which sharpness is measured; the value that counts half; what the most blurred crop counts."""

STEADY_S = 2.0
"""Seconds before and after a box in which its track has its usual size."""

LEAST_WORTH = 1e-6


@dataclass(frozen=True)
class Quality:
    """Why a box is worth what it is; each 0..1.

    Attributes:
        confidence: score of the detection.
        area: grows with the side, up to `ENOUGH_PX`.
        border: `CUT_OFF` at the border of the frame, else 1.
        visibility: falls with how much of it the box in front covers.
        sharpness: of the lightness, see `sharpness`.
        steadiness: see `steadiness`; 1 where the track is not known.
    """

    confidence: float
    area: float
    border: float
    visibility: float
    sharpness: float
    steadiness: float = 1.0

    @property
    def worth(self) -> float:
        """All of them, above 0."""
        of_box = self.confidence * self.area * self.border * self.visibility * self.sharpness
        return max(LEAST_WORTH, of_box * self.steadiness)


def qualities(detections: Detections, size_hw: tuple[int, int], sharp: Sequence[float]) -> tuple[Quality, ...]:
    """What the boxes of one frame are worth.

    Visibility is (1 - share covered)^2, by the box that covers most; a box stands in front of those whose lower edge is
    higher in the picture, as on a floor seen from above.

    Args:
        detections: those that cover each other; false ones would seem to hide somebody.
        size_hw: of the frame.
        sharp: `sharpness` of each box's crop, measured when the frame was at hand.
    """
    if not len(detections):
        return ()
    boxes, (h, w) = detections.boxes, size_hw
    visible = ((1 - _covered(boxes)) ** 2).tolist()
    found = []
    for (x0, y0, x1, y1), score, seen, fine in zip(
        boxes.tolist(), detections.scores.tolist(), visible, sharp, strict=True
    ):
        whole = x0 > BORDER_PX and y0 > BORDER_PX and x1 < w - BORDER_PX and y1 < h - BORDER_PX
        found.append(
            Quality(
                confidence=score,
                area=min(1.0, math.sqrt((x1 - x0) * (y1 - y0)) / ENOUGH_PX),
                border=1.0 if whole else CUT_OFF,
                visibility=seen,
                sharpness=fine,
            )
        )
    return tuple(found)


def sharpness(crop: ImageU8) -> float:
    """How much of the contrast of a crop is in its finest detail, `LEAST_SHARP`..1.

    The crop is drawn at one size, so that one that was small counts as blurred. Of its lightness, the mean square of
    differences between neighbours over twice the variance is taken: 0 for a smooth crop, 1 for noise. Even crops and
    those without a picture count least.
    """
    if min(crop.shape[:2]) < LEAST_SIDE:
        return LEAST_SHARP
    scale = SHARP_SIDE / max(crop.shape[:2])
    size = [max(2, round(n * scale)) for n in crop.shape[:2]]
    light = resample_picture(crop, Frame.whole(crop.shape[:2]).resize(size)).mean(dim=0).double()
    variance = float(light.var(correction=0))
    if variance < 1e-6:  # a tenth of a level of 8 bits
        return LEAST_SHARP
    steps = torch.cat([light.diff(dim=0).flatten(), light.diff(dim=1).flatten()])
    fine = float((steps**2).mean()) / (2 * variance)
    return LEAST_SHARP + (1 - LEAST_SHARP) * fine / (fine + SHARP_HALF)


def steadiness(tracklet: Tracklet) -> dict[int, float]:
    """How nearly each box has the usual size of its track at that time, 0..1, by frame.

    A box that is suddenly larger holds somebody else too, as where motion joins people who pass each other; one that is
    smaller lacks a part. The usual width and height are the medians over `STEADY_S` before and after; what the box
    differs from them by, as a factor, counts squared.
    """
    seen = tracklet.observations
    times = np.array([one.time_s for one in seen])
    sides = np.array([(one.box[2] - one.box[0], one.box[3] - one.box[1]) for one in seen])
    found = {}
    for k, one in enumerate(seen):
        usual = np.median(sides[np.abs(times - times[k]) <= STEADY_S], axis=0)
        found[one.frame] = float(np.minimum(sides[k] / usual, usual / sides[k]).prod() ** 2)
    return found


def choose(tracklet: Tracklet, worth: Mapping[int, float], *, count: int) -> tuple[int, ...]:
    """Frames of the best crops, spread over the life of the tracklet: of each of `count` equal parts the best one.

    The first boxes of a track are no better a sample than any others: most show the object as it enters, cut off.

    Args:
        worth: of each frame of the tracklet; of equals the earlier is taken.

    Raises:
        UsageError: `count` is below 1.
    """
    if count < 1:
        raise UsageError(f"a tracklet needs one crop or more, given {count}")
    frames = np.array([seen.frame for seen in tracklet.observations])
    parts = np.array_split(frames, min(count, len(frames)))
    return tuple(max((int(frame) for frame in part), key=lambda frame: worth[frame]) for part in parts)


def _covered(boxes: Float64[Tensor, "n 4"]) -> Float64[Tensor, " n"]:
    """The largest part of each box that another covers; one that stands behind counts less."""
    in_front = torch.where(boxes[None, :, 3] > boxes[:, None, 3], 1.0, BEHIND)
    shares = intersections(boxes, boxes) / areas(boxes)[:, None] * in_front
    return shares.fill_diagonal_(0).amax(dim=1)
