"""Ways to give identities to the boxes of a generated video: stock trackers, the earlier project's way, and ours.

All see the same boxes, and all that look at crops use the same descriptor without weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import supervision
import torch
import trackers

from benchmarks.reid import looks
from benchmarks.reid.generator import Episode
from patchatlas.arrays import ImageU8
from patchatlas.reid.boxes import Observation, Tracklet
from patchatlas.reid.calibrate import Calibration, fit, known_pairs
from patchatlas.reid.config import EmbeddingConfig, LinkConfig, TrackingConfig
from patchatlas.reid.embed.backend import Embedder
from patchatlas.reid.embed.quality import Quality, choose
from patchatlas.reid.files.embeddings import Embeddings
from patchatlas.reid.link import LinkRules, observations_of
from patchatlas.reid.motchallenge import MotRow, rows_of
from patchatlas.reid.portraits import Portrait, together
from patchatlas.reid.stages.linking import join
from patchatlas.reid.track import Tracker, TrackRules, tracklets_of

CROPS = EmbeddingConfig().crops_per_track
LEAST_BOXES = TrackingConfig().least_boxes
FIRM_BOXES = 10
"""Tracklets with fewer boxes are left out of the calibration."""

EARLIER_CROPS, EARLIER_THRESHOLD = 5, 0.70
"""Of the earlier project's command line."""


@dataclass(frozen=True)
class Outcome:
    """What a method says of a video.

    Attributes:
        rows: boxes with identities.
        tracklets: what the identities were put together from; empty for stock trackers.
        identities: of each tracklet.
        notes: further numbers, by name.
    """

    rows: list[MotRow]
    tracklets: list[Tracklet] = field(default_factory=list)
    identities: dict[int, int] = field(default_factory=dict)
    notes: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """An episode with its tracklets and the vectors of their crops, made once for all methods that need them."""

    episode: Episode
    tracklets: list[Tracklet]
    best: Embeddings
    first: Embeddings
    seconds: dict[str, float]

    def portraits(self, made: Embeddings) -> list[Portrait]:
        """Looks of all tracklets."""
        return looks.portraits(self.tracklets, made)


@dataclass(frozen=True)
class Cut:
    """An episode tracked, with the crop of every box and what it is worth; all that is left to do is to embed."""

    episode: Episode
    tracklets: list[Tracklet]
    crops: dict[looks.Key, ImageU8]
    quality: dict[looks.Key, Quality]
    seconds: dict[str, float]


def look(episode: Episode, *, embedder: Embedder | None = None) -> Seen:
    """Track, choose crops and embed them; by colour alone where no embedder is given."""
    return embed(track(episode), embedder=embedder)


def track(episode: Episode) -> Cut:
    """Track, and cut every box out of its picture."""
    fps = episode.world.fps
    tracker = Tracker(fps=fps, rules=TrackRules())
    observations: list[Observation] = []
    for frame, detections in enumerate(episode.detections):
        observations += tracker.update(frame, frame / fps, detections)
    tracklets, _ = tracklets_of(observations, least_boxes=LEAST_BOXES)
    crops = looks.crops_of(episode.frames(), tracklets)
    quality, seconds = looks.qualities(tracklets, crops, episode.world.size_hw)
    return Cut(episode, tracklets, crops, quality, {"quality": seconds})


def embed(cut: Cut, *, embedder: Embedder | None = None) -> Seen:
    """Embed the chosen crops, and the first ones; by colour alone where no embedder is given."""
    best = [
        choose(one, {seen.frame: cut.quality[one.id, seen.frame].worth for seen in one.observations}, count=CROPS)
        for one in cut.tracklets
    ]
    first = [[seen.frame for seen in tracklet.observations[:EARLIER_CROPS]] for tracklet in cut.tracklets]
    made = [
        looks.embedded(cut.tracklets, frames, cut.crops, cut.quality, embedder=embedder) for frames in (best, first)
    ]
    return Seen(cut.episode, cut.tracklets, *made, cut.seconds)


def stock(make: Callable[[], Any], *, pictures: bool = False) -> Callable[[Seen], Outcome]:
    """A tracker of the `trackers` package, as it comes."""

    def run(seen: Seen) -> Outcome:
        tracker, rows = make(), []
        frames = seen.episode.frames()
        for frame, detections in enumerate(seen.episode.detections):
            given = supervision.Detections(
                xyxy=detections.boxes.numpy().astype(np.float32),
                confidence=detections.scores.numpy().astype(np.float32),
                class_id=np.zeros(len(detections), dtype=int),
            )
            extra = {"frame": np.ascontiguousarray(next(frames)[..., ::-1])} if pictures else {}
            found = tracker.update(given, **extra)
            if len(found):
                for box, number, score in zip(found.xyxy, found.tracker_id, found.confidence, strict=True):
                    if number >= 0:
                        x0, y0, x1, y1 = map(float, box)
                        rows.append(MotRow(frame + 1, int(number) + 1, (x0, y0, x1, y1), float(score)))
        return Outcome(rows)

    return run


def tracks_only(seen: Seen) -> Outcome:
    """Our tracks, each an identity of its own."""
    identities = {tracklet.id: tracklet.id for tracklet in seen.tracklets}
    return Outcome(rows_of(observations_of(seen.tracklets, identities)), seen.tracklets, identities)


def greedy(*, first: bool, threshold: float | None) -> Callable[[Seen], Outcome]:
    """As the earlier project does: each tracklet in turn joins the most alike group from a threshold on, or begins one;
    a group is the mean of its members. Nothing keeps apart who is seen together.

    Args:
        first: take the first crops, unweighted; else the chosen ones by their quality.
        threshold: None for the calibrated one.
    """

    def run(seen: Seen) -> Outcome:
        portraits = seen.portraits(seen.first if first else seen.best)
        if first:
            portraits = [Portrait(p.tracklet, p.frames, p.vectors, torch.ones_like(p.weights)) for p in portraits]
        limit = calibrated(seen.portraits(seen.best)).cosine_at(0.5) if threshold is None else threshold
        sums: list[torch.Tensor] = []
        identities = {}
        for one in portraits:
            vector = one.pooled()
            near = [float(torch.nn.functional.cosine_similarity(vector, total, dim=0)) for total in sums]
            if near and max(near) >= limit:
                group = near.index(max(near))
                sums[group] = sums[group] + vector
            else:
                group = len(sums)
                sums.append(vector)
            identities[one.tracklet.id] = group + 1
        return Outcome(rows_of(observations_of(seen.tracklets, identities)), seen.tracklets, identities)

    return run


def calibrated(portraits: Sequence[Portrait]) -> Calibration:
    """p(same), learnt from the tracklets that are seen long enough."""
    firm = [one for one in portraits if len(one.tracklet.observations) >= FIRM_BOXES]
    return fit(known_pairs(firm, together([one.tracklet for one in firm], tolerance=LinkRules().tolerance)))


def ours(**link: Any) -> Callable[[Seen], Outcome]:
    """Split, calibrate on this video alone, link: the fourth stage of the engine, with its own settings but `link`."""

    def run(seen: Seen) -> Outcome:
        world = seen.episode.world
        tracklets, memory = join(
            seen.tracklets,
            seen.best,
            LinkConfig(**link),
            ranks={frame: frame for frame in range(world.frames)},
            fps=world.fps,
        )
        links = memory.links
        notes = {
            "threshold": links.threshold,
            "ece": memory.calibration.ece if memory.calibration is not None else float("nan"),
            "cuts": len(memory.cuts),
            "unknown": len(links.unknown),
            "second boxes": len(links.second_boxes),
            "doubts": len(links.doubts),
        }
        return Outcome(rows_of(observations_of(tracklets, links.identities)), tracklets, links.identities, notes)

    return run


METHODS: dict[str, Callable[[Seen], Outcome]] = {
    "ByteTrack": stock(trackers.ByteTrackTracker),
    "OC-SORT": stock(trackers.OCSORTTracker),
    "BoT-SORT": stock(lambda: trackers.BoTSORTTracker(enable_cmc=False)),
    "BoT-SORT, camera motion": stock(trackers.BoTSORTTracker, pictures=True),
    "our tracks, unlinked": tracks_only,
    "earlier way (first 5, greedy, 0.70)": greedy(first=True, threshold=EARLIER_THRESHOLD),
    "earlier way, our threshold": greedy(first=True, threshold=None),
    "greedy on chosen crops": greedy(first=False, threshold=None),
    "ours without splitting": ours(split=False),
    "ours, shared neighbours": ours(rerank=True),
    "ours": ours(),
}
