"""Second stage: from boxes to tracks, and what each box is worth as a picture; fast, so nothing is kept of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from patchatlas.reid.boxes import Box, Detections, Observation, Tracklet
from patchatlas.reid.config import TrackingConfig
from patchatlas.reid.embed.quality import Quality, qualities, steadiness
from patchatlas.reid.files.detections import read_detections
from patchatlas.reid.stages.clock import Clock
from patchatlas.reid.track import Tracker, TrackRules, tracklets_of


@dataclass(frozen=True)
class Followed:
    """The tracks of a video.

    Attributes:
        tracklets: by number.
        short: tracks that were left out.
        quality: of each box, by track and frame.
        ranks: place of each frame among those looked at, from 0.
        boxes: how many were found in all.
    """

    tracklets: tuple[Tracklet, ...]
    short: int
    quality: dict[tuple[int, int], Quality]
    ranks: dict[int, int]
    boxes: int


def follow(folder: Path, config: TrackingConfig, *, fps: float, size_hw: tuple[int, int], clock: Clock) -> Followed:
    """Track the boxes of `detections.jsonl`.

    Args:
        fps: frames a second that were looked at.
        size_hw: of the frames.
    """
    rules = TrackRules(
        method=config.method,
        patience_s=config.patience_s,
        least_iou=config.least_iou,
        sure=config.sure,
        start=config.start,
        label_by_label=config.label_by_label,
    )
    tracker = Tracker(fps=fps, rules=rules)
    observations: list[Observation] = []
    sharp: dict[tuple[int, Box], float] = {}
    ranks: dict[int, int] = {}
    boxes = 0
    for seen in read_detections(folder):
        ranks[seen.number] = len(ranks)
        boxes += len(seen.detections)
        for (x0, y0, x1, y1), fine in zip(seen.detections.boxes.tolist(), seen.sharp, strict=True):
            sharp[seen.number, (x0, y0, x1, y1)] = fine
        with clock.timing("track"):
            observations += tracker.update(seen.number, seen.time_s, seen.detections)
    tracklets, short = tracklets_of(observations, least_boxes=config.least_boxes)
    with clock.timing("quality"):
        quality = judged(tracklets, size_hw, sharp)
    return Followed(tuple(tracklets), short, quality, ranks, boxes)


def judged(
    tracklets: list[Tracklet], size_hw: tuple[int, int], sharp: Mapping[tuple[int, Box], float]
) -> dict[tuple[int, int], Quality]:
    """What each box is worth, by track and frame; only boxes of tracks hide each other.

    Args:
        sharp: sharpness, by frame and box.
    """
    frames: dict[int, list[Observation]] = {}
    for tracklet in tracklets:
        for seen in tracklet.observations:
            frames.setdefault(seen.frame, []).append(seen)
    steady = {tracklet.id: steadiness(tracklet) for tracklet in tracklets}
    found = {}
    for frame, together in frames.items():
        here = Detections(
            torch.tensor([seen.box for seen in together], dtype=torch.float64),
            torch.tensor([seen.score for seen in together], dtype=torch.float64),
            tuple(seen.label for seen in together),
        )
        worth = qualities(here, size_hw, [sharp[frame, seen.box] for seen in together])
        for seen, one in zip(together, worth, strict=True):
            found[seen.track, frame] = replace(one, steadiness=steady[seen.track][frame])
    return found
