"""What travels through re-identification: boxes of one frame, and one object's boxes through time.

Boxes are (x0, y0, x1, y1), end excluded, in pixels of the upright source frame. Times are seconds of the video's own
clock. n boxes.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.errors import InputError, ShapeError

Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Detections:
    """The boxes found in one frame, in the order in which they were found.

    Attributes:
        boxes: float64, finite, each with a positive width and height.
        scores: how sure the detector is, 0..1, float64.
        labels: class of each box.

    Raises:
        ShapeError: the three do not have one row a box.
        InputError: a number that is not finite, an empty box, or a score outside 0..1; `clean` sorts those out.
    """

    boxes: Float[Tensor, "n 4"]
    scores: Float[Tensor, " n"]
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        count = len(self.labels)
        if tuple(self.boxes.shape) != (count, 4) or tuple(self.scores.shape) != (count,):
            raise ShapeError(
                f"boxes {tuple(self.boxes.shape)}, scores {tuple(self.scores.shape)} and {count} labels do not belong "
                "together; give n x 4, n and n"
            )
        if self.boxes.dtype != torch.float64 or self.scores.dtype != torch.float64:
            raise ShapeError(f"boxes and scores are float64, given {self.boxes.dtype} and {self.scores.dtype}")
        for row, reason in enumerate(_faults(self.boxes, self.scores)):
            if reason is not None:
                raise InputError(
                    f"box {row}, {self.boxes[row].tolist()} with score {self.scores[row].item()}, is unusable: "
                    f"{reason}; pass raw boxes through `clean`"
                )

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def none(cls) -> "Detections":
        """A frame in which nothing was found."""
        return Detections(torch.zeros(0, 4, dtype=torch.float64), torch.zeros(0, dtype=torch.float64), ())

    def pick(self, rows: Sequence[int]) -> "Detections":
        """The boxes of these rows, in this order."""
        index = torch.tensor(list(rows), dtype=torch.long)
        return Detections(self.boxes[index], self.scores[index], tuple(self.labels[row] for row in rows))


@dataclass(frozen=True)
class Observation:
    """One box of one track.

    Attributes:
        track: number of the track, from 1.
        frame: number of the frame in the video's own count, from 0, gaps where frames were not sampled.
        time_s: when the frame is shown, seconds.
        box: where, clipped to the frame.
        score: of the detection, 0..1.
        label: class of the detection.
    """

    track: int
    frame: int
    time_s: float
    box: Box
    score: float
    label: str


@dataclass(frozen=True)
class Tracklet:
    """One object's boxes in one shot.

    Attributes:
        id: number of the track.
        label: class of the whole tracklet.
        observations: at least one, in time order, at most one a frame.

    Raises:
        InputError: there is no observation, or their frames do not rise.
    """

    id: int
    label: str
    observations: tuple[Observation, ...]

    def __post_init__(self) -> None:
        if not self.observations:
            raise InputError(f"tracklet {self.id} has no observation; leave it out")
        frames = [seen.frame for seen in self.observations]
        if any(after <= before for before, after in pairwise(frames)):
            raise InputError(f"the frames of tracklet {self.id} do not rise: {frames}; sort them, one box a frame")


def clean(
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, " n"],
    labels: Sequence[str],
    size_hw: tuple[int, int],
) -> tuple[Detections, dict[str, int]]:
    """Clip raw boxes to the frame and leave out what cannot be used.

    Args:
        boxes: any numbers, source pixels.
        scores: any numbers.
        labels: one a box.
        size_hw: rows and columns of the frame.

    Returns:
        The usable boxes in their order, and how many were dropped for which reason: `not a number`, `empty`,
        `outside the frame` or `score not in 0..1`. Reasons that did not occur are absent.

    Raises:
        ShapeError: boxes, scores and labels differ in number.
    """
    if len(boxes) != len(labels) or len(scores) != len(labels):
        raise ShapeError(f"{len(boxes)} boxes, {len(scores)} scores and {len(labels)} labels do not belong together")
    raw, sure = boxes.to(torch.float64), scores.to(torch.float64)
    rows, columns = size_hw
    limit = raw.new_tensor([columns, rows, columns, rows])
    clipped = torch.minimum(raw.clamp(min=0), limit)
    dropped: Counter[str] = Counter()
    kept = []
    # A box that is empty only once it is clipped lies outside.
    for row, (before, after) in enumerate(zip(_faults(raw, sure), _faults(clipped, sure), strict=True)):
        reason = before or ("outside the frame" if after else None)
        if reason is None:
            kept.append(row)
        else:
            dropped[reason] += 1
    return Detections(clipped[kept], sure[kept], tuple(labels[row] for row in kept)), dict(sorted(dropped.items()))


def _faults(boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"]) -> list[str | None]:
    """For each box why it cannot be used, or None."""
    finite = boxes.isfinite().all(dim=1) & scores.isfinite()
    full = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    sure = (scores >= 0) & (scores <= 1)
    return [
        "not a number" if not f else "empty" if not b else "score not in 0..1" if not s else None
        for f, b, s in zip(finite.tolist(), full.tolist(), sure.tolist(), strict=True)
    ]
