"""Crops of tracklets, judged, chosen and embedded by the package's own parts, for the measurements of linking.

One pass over the pictures, which are costly to draw: the crop of every tracked box is kept.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict

import torch

from patchatlas.arrays import ImageU8
from patchatlas.reid.boxes import Box, Tracklet
from patchatlas.reid.embed.backend import Embedder
from patchatlas.reid.embed.crops import cut
from patchatlas.reid.embed.lab import LabEmbedder
from patchatlas.reid.embed.looks import portrait_of
from patchatlas.reid.embed.quality import Quality, sharpness
from patchatlas.reid.files.embeddings import Embeddings, Row
from patchatlas.reid.portraits import Portrait
from patchatlas.reid.stages.follow import judged

Key = tuple[int, int]
"""Track and frame."""


def crops_of(pictures: Iterable[ImageU8], tracklets: Sequence[Tracklet]) -> dict[Key, ImageU8]:
    """The crop of every box."""
    by_frame: dict[int, list[tuple[int, Box]]] = {}
    for tracklet in tracklets:
        for seen in tracklet.observations:
            by_frame.setdefault(seen.frame, []).append((tracklet.id, seen.box))
    crops = {}
    for frame, picture in enumerate(pictures):
        for number, box in by_frame.get(frame, []):
            crops[number, frame] = cut(picture, box)
    return crops


def qualities(
    tracklets: list[Tracklet], crops: dict[Key, ImageU8], size_hw: tuple[int, int]
) -> tuple[dict[Key, Quality], float]:
    """What each box is worth, and the seconds that it took."""
    start = time.process_time()
    sharp = {
        (seen.frame, seen.box): sharpness(crops[tracklet.id, seen.frame])
        for tracklet in tracklets
        for seen in tracklet.observations
    }
    return judged(tracklets, size_hw, sharp), time.process_time() - start


def embedded(
    tracklets: Sequence[Tracklet],
    frames: Sequence[Sequence[int]],
    crops: dict[Key, ImageU8],
    quality: dict[Key, Quality],
    *,
    embedder: Embedder | None = None,
) -> Embeddings:
    """Vectors of the crops in the frames named; by colour alone where no embedder is given."""
    embedder = embedder or LabEmbedder()
    wanted = [
        (tracklet, seen)
        for tracklet, own in zip(tracklets, frames, strict=True)
        for seen in tracklet.observations
        if seen.frame in set(own)
    ]
    vectors, valid = embedder.embed_crops([crops[tracklet.id, seen.frame] for tracklet, seen in wanted])
    rows = []
    for (tracklet, seen), good in zip(wanted, valid.tolist(), strict=True):
        one = quality[tracklet.id, seen.frame]
        rows.append(Row(tracklet.id, seen.frame, seen.time_s, seen.box, good, one.worth, asdict(one)))
    return Embeddings(vectors, tuple(rows), embedder.stamp, {})


def portraits(tracklets: Sequence[Tracklet], made: Embeddings) -> list[Portrait]:
    """Looks of each tracklet, without cutting it."""
    found = []
    for tracklet in tracklets:
        index = [k for k, row in enumerate(made.rows) if row.track == tracklet.id]
        frames = [made.rows[k].frame for k in index]
        worth = {made.rows[k].frame: made.rows[k].worth for k in index}
        found.append(portrait_of(tracklet, frames, made.vectors[index], torch.tensor([made.rows[k].valid for k in index], dtype=torch.bool), worth))  # fmt: skip  # noqa: E501
    return found
