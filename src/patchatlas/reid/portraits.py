"""The looks of a tracklet: vectors of a few of its crops, when each was taken, what it is worth; and who is together.

Axes: k crops of a tracklet in time order, n tracklets, d features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from patchatlas.errors import InputError, ShapeError
from patchatlas.reid.boxes import Box, Tracklet
from patchatlas.reid.overlap import iou

SAME_PLACE_IOU = 0.5
"""Boxes of one frame that overlap by this much are likely to be two boxes of one object."""


@dataclass(frozen=True, eq=False)
class Portrait:
    """A tracklet and its looks.

    Attributes:
        tracklet: whose looks.
        frames: frame of each crop, rising; empty where no crop could be embedded.
        vectors: unit length, one a crop.
        weights: quality of each crop, above 0.

    Raises:
        ShapeError: frames, vectors and weights differ in number.
        InputError: a vector that is not finite or not of unit length, a weight that is not positive, frames that do not
            rise.
    """

    tracklet: Tracklet
    frames: tuple[int, ...]
    vectors: Float[Tensor, "k d"]
    weights: Float[Tensor, " k"]

    def __post_init__(self) -> None:
        count, name = len(self.frames), f"tracklet {self.tracklet.id}"
        if self.vectors.ndim != 2 or len(self.vectors) != count or tuple(self.weights.shape) != (count,):
            raise ShapeError(
                f"{name}: {count} frames, vectors {tuple(self.vectors.shape)} and weights {tuple(self.weights.shape)} "
                "do not belong together"
            )
        lengths = torch.linalg.vector_norm(self.vectors.double(), dim=1)
        if not bool(((lengths - 1).abs() < 1e-3).all()):
            raise InputError(
                f"{name}: every vector must have length 1, given {lengths.tolist()}; leave out masked rows"
            )
        if not bool((self.weights > 0).all()):
            raise InputError(f"{name}: weights must be above 0, given {self.weights.tolist()}")
        if any(after <= before for before, after in zip(self.frames, self.frames[1:], strict=False)):
            raise InputError(f"{name}: the frames of its crops do not rise: {self.frames}")

    def pooled(self, rows: Sequence[int] | None = None) -> Float64[Tensor, " d"]:
        """Mean of the vectors by their weights, at unit length again; of some rows only if given.

        Raises:
            InputError: there is no vector to pool.
        """
        chosen = list(range(len(self.frames))) if rows is None else list(rows)
        if not chosen:
            raise InputError(f"tracklet {self.tracklet.id} has no vector to pool")
        mean = (self.vectors[chosen].double() * self.weights[chosen].double()[:, None]).sum(dim=0)
        return F.normalize(mean, dim=0)


def likeness(portraits: Sequence[Portrait]) -> Float64[Tensor, "n n"]:
    """Cosine of the pooled vectors of each pair.

    Raises:
        InputError: a portrait without a vector.
    """
    pooled = torch.stack([portrait.pooled() for portrait in portraits])
    return pooled @ pooled.T


HANDOVER_S = 0.5
"""Seconds for which two tracklets of one object may be there at once, touching, where a tracker hands over late."""


def looked_every(tracklets: Sequence[Tracklet]) -> float:
    """Seconds between neighbouring boxes of a tracklet, as a rule; 0 where nothing was looked at twice."""
    steps = [after.time_s - before.time_s for one in tracklets for before, after in pairwise(one.observations)]
    return median(steps) if steps else 0.0


def handover_frames(tracklets: Sequence[Tracklet], seconds: float = HANDOVER_S) -> int:
    """How many frames that were looked at lie in a time; none where nothing was looked at twice."""
    step = looked_every(tracklets)
    return round(seconds / step) if step else 0


def together(tracklets: Sequence[Tracklet], *, tolerance: int) -> Bool[Tensor, "n n"]:
    """Which pairs cannot be one object, since both are seen in the same frames.

    A tracker may hand an object over from one tracklet to the next late, so a pair is let off whose boxes touch in all
    the frames that they share, if these are no more than `tolerance`.
    """
    boxes = [{seen.frame: seen.box for seen in tracklet.observations} for tracklet in tracklets]
    apart = torch.zeros(len(tracklets), len(tracklets), dtype=torch.bool)
    for one in range(len(tracklets)):
        for other in range(one + 1, len(tracklets)):
            shared = sorted(boxes[one].keys() & boxes[other].keys())
            if not shared:
                continue
            handover = len(shared) <= tolerance and bool((_overlap(boxes[one], boxes[other], shared) > 0).all())
            apart[one, other] = apart[other, one] = not handover
    return apart


def second_boxes(tracklets: Sequence[Tracklet]) -> dict[int, int]:
    """Tracklets that are second boxes of an object that has a longer tracklet, as detectors make them.

    Returns:
        Number of such a tracklet to number of the one that it lies on, by `SAME_PLACE_IOU`, in most of its frames.
    """
    boxes = [{seen.frame: seen.box for seen in tracklet.observations} for tracklet in tracklets]
    order = sorted(range(len(tracklets)), key=lambda k: (-len(boxes[k]), tracklets[k].id))
    found: dict[int, int] = {}
    for place, short in enumerate(order):
        for long in order[:place]:
            shared = sorted(boxes[short].keys() & boxes[long].keys())
            if tracklets[long].id in found or 2 * len(shared) <= len(boxes[short]):
                continue
            on_top = int((_overlap(boxes[short], boxes[long], shared) >= SAME_PLACE_IOU).sum())
            if 2 * on_top > len(boxes[short]):
                found[tracklets[short].id] = tracklets[long].id
                break
    return found


def _overlap(one: dict[int, Box], other: dict[int, Box], frames: Sequence[int]) -> Float64[Tensor, " t"]:
    """IoU of two objects' boxes in each of some frames."""
    first, second = (torch.tensor([boxes[frame] for frame in frames], dtype=torch.float64) for boxes in (one, other))
    return iou(first, second).diagonal()
