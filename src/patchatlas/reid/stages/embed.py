"""Third stage: cut out the best crops of each track and embed them, in one pass over the video.

Crops wait until there are enough for a batch, and are then let go: memory does not grow with the video. Every batch is
kept in the cache at once, so a run that is killed goes on where it was. Batches depend on the tracks alone, so that it
ends in the same bytes.

Axes: n rows, d features.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from patchatlas.arrays import ImageU8
from patchatlas.errors import PatchAtlasError
from patchatlas.io.video import Video, VideoFrame
from patchatlas.reid.boxes import Box, Observation, Tracklet
from patchatlas.reid.config import EmbeddingConfig
from patchatlas.reid.embed.backend import Backend, Embedder
from patchatlas.reid.embed.cache import VectorCache, key_of
from patchatlas.reid.embed.choice import choose_regions
from patchatlas.reid.embed.clips import Clip, ClipEmbedder, clips_of, square
from patchatlas.reid.embed.crops import cut
from patchatlas.reid.embed.quality import Quality, choose
from patchatlas.reid.embed.regions import RegionEmbedder
from patchatlas.reid.files.embeddings import Row, read_embeddings, write_embeddings
from patchatlas.reid.stages.clock import Clock, Report
from patchatlas.reid.stages.follow import Followed
from patchatlas.reid.stages.keys import key_of as stage_key
from patchatlas.spec import EncoderSpec

STAGE = "embed"

_BATCHES = 4
"""Batches of the encoder that are gathered before any is made, so that crops of one size find together."""

_MOST_BYTES = 64 * 2**20
"""Of crops that wait."""


@dataclass(frozen=True)
class Way:
    """How the vectors of a video are made.

    Attributes:
        name: `crops`, `frame` or `clips`.
        reason: why, in a sentence.
        embedder: makes them.
    """

    name: str
    reason: str
    embedder: Embedder | RegionEmbedder | ClipEmbedder


@dataclass(eq=False)
class _Wanted:
    """A vector to be made: of a box, or of the boxes of a clip."""

    row: Row
    observations: tuple[Observation, ...]
    clip: Clip | None = None
    pictures: dict[int, ImageU8] = field(default_factory=dict)


def embed(
    video: Video,
    followed: Followed,
    backend: Backend,
    config: EmbeddingConfig,
    *,
    fps: float,
    folder: Path,
    about: dict[str, Any],
    key: str,
    clock: Clock,
    report: Report,
) -> int:
    """Write `embeddings.npy` and `embeddings.json`, unless they are there with this key.

    Args:
        fps: frames that were looked at in a second.
        about: for the index.
        key: of the boxes, and of what tracking depends on.

    Returns:
        How many crops or frames were known to the cache.

    Raises:
        ResourceError: memory ran out on a single input, the disk is full, or the folder may not be written.
    """
    chosen = [
        choose(one, {seen.frame: followed.quality[one.id, seen.frame].worth for seen in one.observations},
               count=config.crops_per_track)
        for one in followed.tracklets
    ]  # fmt: skip
    way = way_of(backend, config, followed.tracklets, chosen, video.facts.size_hw)
    stamp, dim = way.embedder.stamp, way.embedder.dim
    key = stage_key(boxes=key, stamp=stamp.to_json(), crops=config.crops_per_track, batch=config.batch_size)
    if finished(folder, key):
        return 0
    wanted = _wanted(followed, chosen, way, config.crops_per_track)
    cache = VectorCache(folder / "cache", stamp, dim)
    batches = _Batches(way, cache, size=config.batch_size * _BATCHES, clock=clock)
    by_frame: dict[int, list[_Wanted]] = {}
    for one in wanted:
        for frame in {seen.frame for seen in one.observations}:
            by_frame.setdefault(frame, []).append(one)
    total = len(by_frame)
    for done, frame in enumerate(clock.each("decode again", _frames(video, fps, set(by_frame))), start=1):
        batches.take(frame, by_frame[frame.number])
        report(STAGE, done, total)
    batches.finish()
    vectors, rows = torch.full((len(wanted), dim), torch.nan), []
    for number, one in enumerate(wanted):
        vector = batches.found.get(id(one))
        rows.append(one.row if vector is not None else _masked(one.row))
        if vector is not None:
            vectors[number] = vector
    index = {**about, "key": key, "encoder": facts_of(way.embedder.spec), "way": way.name, "reason": way.reason}
    write_embeddings(folder, index, vectors, rows, stamp)
    return batches.hits


def finished(folder: Path, key: str) -> bool:
    """Whether the vectors are there already, under this key."""
    try:
        return bool(read_embeddings(folder).about.get("key") == key)
    except PatchAtlasError:
        return False  # none yet, or damaged: they are made again


def facts_of(spec: EncoderSpec) -> dict[str, Any]:
    """What files say of an encoder."""
    names = ("name", "family", "dim", "licence", "source", "weights_sha256")
    return {name: getattr(spec, name) for name in names}


def way_of(
    backend: Backend,
    config: EmbeddingConfig,
    tracklets: Sequence[Tracklet],
    chosen: Sequence[tuple[int, ...]],
    size_hw: tuple[int, int],
) -> Way:
    """The cheapest way to the vectors that the settings allow."""
    if backend.clips is not None:
        return Way("clips", f"the encoder takes clips of {backend.clips.frames} frames", backend.clips)
    if backend.regions is None:
        return Way("crops", f"backend {config.backend} with regions {config.regions}, pooling {config.pooling}",
                   backend.crops)  # fmt: skip
    if config.regions == "frame":
        return Way("frame", "regions: frame was asked for", backend.regions)
    assert config.pooling != "none", "the bundled descriptor has no regions"
    boxes: dict[int, list[Box]] = {}
    for tracklet, frames in zip(tracklets, chosen, strict=True):
        for seen in tracklet.observations:
            if seen.frame in frames:
                boxes.setdefault(seen.frame, []).append(seen.box)
    choice = choose_regions(
        [torch.tensor(some, dtype=torch.float64) for some in boxes.values()],
        size_hw,
        backend.regions.spec,
        pooling=config.pooling,
        crop_size=config.crop_size,
        frame_size=config.frame_size,
    )
    return Way(choice.regions, choice.reason, backend.regions if choice.regions == "frame" else backend.crops)


def _wanted(followed: Followed, chosen: Sequence[tuple[int, ...]], way: Way, count: int) -> list[_Wanted]:
    found = []
    for tracklet, frames in zip(followed.tracklets, chosen, strict=True):
        by_frame = {seen.frame: seen for seen in tracklet.observations}
        if isinstance(way.embedder, ClipEmbedder):
            for clip in clips_of(tracklet, frames=way.embedder.frames, count=count):
                some = [followed.quality[tracklet.id, seen.frame] for seen in clip.observations]
                mean = Quality(*np.mean([list(asdict(one).values()) for one in some], axis=0).tolist())
                worth = float(np.mean([one.worth for one in some]))
                found.append(_Wanted(_row(by_frame[clip.frame], mean, worth), clip.observations, clip))
        else:
            for frame in frames:
                quality = followed.quality[tracklet.id, frame]
                found.append(_Wanted(_row(by_frame[frame], quality, quality.worth), (by_frame[frame],)))
    return found


def _row(seen: Observation, quality: Quality, worth: float) -> Row:
    return Row(seen.track, seen.frame, seen.time_s, seen.box, True, worth, asdict(quality))


def _masked(row: Row) -> Row:
    return Row(row.track, row.frame, row.time_s, row.box, False, row.worth, row.quality)


def _frames(video: Video, fps: float, numbers: set[int]) -> Any:
    """The frames of these numbers; decoding ends with the last of them."""
    left = len(numbers)
    if not left:
        return
    for frame in video.frames(fps):
        if frame.number in numbers:
            yield frame
            left -= 1
            if not left:
                return


class _Batches:
    """Vectors as their pictures come: gathered, made, kept, let go.

    Attributes:
        found: vectors, by the `id` of what was wanted; those that could not be made are absent.
        hits: inputs that the cache knew.
    """

    def __init__(self, way: Way, cache: VectorCache, *, size: int, clock: Clock) -> None:
        self._way, self._cache, self._size, self._clock = way, cache, size, clock
        self._waiting: list[tuple[_Wanted, list[ImageU8]]] = []
        self._bytes = self._unsaved = self.hits = 0
        self.found: dict[int, Tensor] = {}

    def take(self, frame: VideoFrame, wanted: Sequence[_Wanted]) -> None:
        """Cut out of a frame what is wanted of it."""
        embedder = self._way.embedder
        if isinstance(embedder, RegionEmbedder):
            self._read(frame, wanted, embedder)
            return
        for one in wanted:
            if one.clip is None:
                self._wait(one, [cut(frame.pixels, one.row.box)])
                continue
            assert isinstance(embedder, ClipEmbedder)
            seen = next(seen for seen in one.observations if seen.frame == frame.number)
            one.pictures[frame.number] = square(frame.pixels, seen.box, side=one.clip.side, size=embedder.size)
            if len(one.pictures) == len({seen.frame for seen in one.observations}):
                self._wait(one, [one.pictures[seen.frame] for seen in one.observations])
                one.pictures = {}
        if len(self._waiting) >= self._size or self._bytes >= _MOST_BYTES:
            self._make()

    def finish(self) -> None:
        """Make what still waits."""
        self._make()
        self._cache.flush()

    def _wait(self, one: _Wanted, pictures: list[ImageU8]) -> None:
        self._waiting.append((one, pictures))
        self._bytes += sum(picture.nbytes for picture in pictures)

    def _make(self) -> None:
        if not self._waiting:
            return
        inputs = [pictures for _, pictures in self._waiting]
        keys = [key_of(*pictures) for pictures in inputs]
        self.hits += sum(key in self._cache for key in keys)
        with self._clock.timing("embed"):
            vectors, valid = self._cache.through(keys, self._maker(inputs))
        for (one, _), vector, good in zip(self._waiting, vectors, valid.tolist(), strict=True):
            if good:
                self.found[id(one)] = vector
        self._waiting, self._bytes = [], 0

    def _maker(self, inputs: list[list[ImageU8]]) -> Callable[[Sequence[int]], tuple[Tensor, Tensor]]:
        embedder = self._way.embedder
        if isinstance(embedder, ClipEmbedder):
            return lambda places: embedder.embed_clips([inputs[place] for place in places])
        assert not isinstance(embedder, RegionEmbedder)
        return lambda places: embedder.embed_crops([inputs[place][0] for place in places])

    def _read(self, frame: VideoFrame, wanted: Sequence[_Wanted], embedder: RegionEmbedder) -> None:
        """One forward for all boxes of a frame, unless the cache knows them."""
        picture = key_of(frame.pixels)
        keys = [hashlib.sha256(picture + repr(one.row.box).encode()).digest() for one in wanted]
        if all(key in self._cache for key in keys):
            self.hits += 1
        else:
            boxes = torch.tensor([one.row.box for one in wanted], dtype=torch.float64)
            with self._clock.timing("embed"):
                vectors, valid = embedder.embed_boxes(frame.pixels, boxes)
            for key, vector, good in zip(keys, vectors, valid.tolist(), strict=True):
                self._cache.keep(key, vector if good else None)
            self._unsaved += len(keys)
            if self._unsaved >= self._size:
                self._cache.flush()
                self._unsaved = 0
        for one, key in zip(wanted, keys, strict=True):
            vector = self._cache.get(key)
            if vector is not None:
                self.found[id(one)] = vector
