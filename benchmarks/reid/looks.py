"""Crops of tracklets, chosen and embedded, for the measurements of tracking and linking.

A tracklet's time is cut into equal parts and the best crop of each part is taken. Best is a high score, little covered
by boxes that stand in front (lower in the picture), whole within the picture, and large.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from patchatlas.arrays import ImageU8
from patchatlas.reid.boxes import Observation, Tracklet
from patchatlas.reid.embed.lab import LabEmbedder
from patchatlas.reid.overlap import areas, intersections
from patchatlas.reid.portraits import Portrait

Key = tuple[int, int]
"""Track and frame."""

BORDER_PX = 2
CUT_OFF = 0.3
"""What a crop at the edge of the picture is worth."""

BEHIND = 0.3
"""How much a box counts as covering that stands behind."""


def qualities(observations: Sequence[Observation], size_hw: tuple[int, int]) -> dict[Key, float]:
    """How much each box is worth, above 0."""
    frames: dict[int, list[Observation]] = {}
    for seen in observations:
        frames.setdefault(seen.frame, []).append(seen)
    worth = {}
    h, w = size_hw
    for together in frames.values():
        boxes = torch.tensor([seen.box for seen in together], dtype=torch.float64)
        in_front = torch.where(boxes[None, :, 3] > boxes[:, None, 3], 1.0, BEHIND)
        covered = (intersections(boxes, boxes) / areas(boxes)[:, None] * in_front).fill_diagonal_(0).amax(dim=1)
        for seen, hidden, area in zip(together, covered.tolist(), areas(boxes).tolist(), strict=True):
            x0, y0, x1, y1 = seen.box
            whole = x0 > BORDER_PX and y0 > BORDER_PX and x1 < w - BORDER_PX and y1 < h - BORDER_PX
            value = seen.score * (1 - hidden) ** 2 * (1.0 if whole else CUT_OFF) * math.sqrt(area) / 84
            worth[seen.track, seen.frame] = max(value, 1e-6)
    return worth


def chosen(tracklet: Tracklet, worth: dict[Key, float], *, crops: int) -> list[int]:
    """Frames of the best crops, spread over the time of the tracklet."""
    frames = np.array([seen.frame for seen in tracklet.observations])
    parts = np.array_split(frames, min(crops, len(frames)))
    return [int(max(part, key=lambda frame: worth[tracklet.id, int(frame)])) for part in parts]


def embedded(
    pictures: Iterable[ImageU8], tracklets: Sequence[Tracklet], frames: Sequence[Sequence[int]]
) -> list[dict[int, torch.Tensor]]:
    """For each tracklet the vectors of the crops in the frames named, in one pass over the video."""
    embedder = LabEmbedder()
    wanted: dict[int, list[tuple[int, Observation]]] = {}
    for index, (tracklet, own) in enumerate(zip(tracklets, frames, strict=True)):
        for seen in tracklet.observations:
            if seen.frame in set(own):
                wanted.setdefault(seen.frame, []).append((index, seen))
    vectors: list[dict[int, torch.Tensor]] = [{} for _ in tracklets]
    for frame, picture in enumerate(pictures):
        for index, seen in wanted.get(frame, []):
            x0, y0, x1, y1 = seen.box
            crop = picture[math.floor(y0) : math.ceil(y1), math.floor(x0) : math.ceil(x1)]
            found, valid = embedder.embed_crops([crop])
            if bool(valid[0]):
                vectors[index][frame] = found[0]
    return vectors


def portrait(
    tracklet: Tracklet, vectors: dict[int, torch.Tensor], frames: Sequence[int], worth: dict[Key, float]
) -> Portrait:
    """The looks of a tracklet from the crops in the frames named, those that could be embedded."""
    usable = [frame for frame in frames if frame in vectors]
    rows = [vectors[frame] for frame in usable]
    stacked = torch.stack(rows) if rows else torch.zeros(0, LabEmbedder().spec.dim)
    weights = torch.tensor([worth[tracklet.id, frame] for frame in usable], dtype=torch.float64)
    return Portrait(tracklet, tuple(usable), stacked, weights)
