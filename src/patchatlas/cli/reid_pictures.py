"""What `patchatlas reid showcase` takes from the video in one pass: annotated frames, and crops for the sheets."""

from collections import defaultdict
from itertools import pairwise
from pathlib import Path

from rich.progress import Progress

from patchatlas.arrays import ImageU8
from patchatlas.io.video import Video
from patchatlas.io.video_writer import writing_video
from patchatlas.reid.boxes import Box, Tracklet
from patchatlas.reid.embed.crops import LEAST_SIDE, cut
from patchatlas.reid.episode import Episode
from patchatlas.viz.identities import Crop, crop_jpeg
from patchatlas.viz.panel import FAINT
from patchatlas.viz.tracks import Lane, Seen, Strip, draw_boxes, identity_colour, with_strip

CROPS = 6
"""Of a track on a sheet, at most."""

STRIP_SHARE = 3
"""The lanes of the strip take at most this part of a frame's height."""

Place = tuple[int, Box]
"""Number of a frame and a box in it."""


class Cuts:
    """The crops that the sheets show; `take` is given the frames, in any order.

    Of each track a few of the crops that were embedded, spread over its time, with the best one among them; the middle
    box where none was.
    """

    def __init__(self, episode: Episode) -> None:
        rows = episode.embeddings.rows
        self.best: dict[int, Place] = {}
        self.of: dict[int, tuple[Place, ...]] = {}
        self._times: dict[int, float] = {}
        self._worth: dict[int, float] = {}
        for tracklet in episode.tracklets:
            own = sorted((rows[row] for row in episode.memory.rows.get(tracklet.id, ())), key=lambda row: row.frame)
            if own:
                best = max(own, key=lambda row: row.worth)
                chosen = {id(own[k * (len(own) - 1) // max(1, CROPS - 1)]) for k in range(CROPS)} | {id(best)}
                kept = [row for row in own if id(row) in chosen]
                places = tuple((row.frame, row.box) for row in kept)
                self.best[tracklet.id], self._worth[tracklet.id] = (best.frame, best.box), best.worth
                self._times |= {row.frame: row.time_s for row in kept}
            else:
                middle = tracklet.observations[len(tracklet.observations) // 2]
                places = ((middle.frame, middle.box),)
                self.best[tracklet.id], self._worth[tracklet.id] = places[0], 0.0
                self._times[middle.frame] = middle.time_s
            self.of[tracklet.id] = places
        self._wanted: dict[int, set[Box]] = defaultdict(set)
        for places in self.of.values():
            for frame, box in places:
                self._wanted[frame].add(box)
        self._jpegs: dict[Place, bytes] = {}

    def take(self, frame: int, pixels: ImageU8) -> None:
        """Cut out what is wanted of a frame."""
        for box in self._wanted.get(frame, ()):
            crop = cut(pixels, box)
            if min(crop.shape[:2]) >= LEAST_SIDE:
                self._jpegs[frame, box] = crop_jpeg(crop)

    def crops(self, track: int) -> tuple[Crop, ...]:
        """Of a track, in time order, as far as they could be taken."""
        return tuple(self._crop(place) for place in self.of[track] if place in self._jpegs)

    def face(self, *tracks: int) -> Crop | None:
        """The best crop of some tracks."""
        known = [track for track in tracks if self.best[track] in self._jpegs]
        return self._crop(self.best[max(known, key=lambda track: self._worth[track])]) if known else None

    def _crop(self, place: Place) -> Crop:
        return Crop(self._jpegs[place], f"{self._times[place[0]]:.1f} s")


def look_through(episode: Episode, video: Video, cuts: Cuts, *, bar: Progress) -> None:
    """Take the crops without writing a video."""
    fps = episode.run["config"]["fps"]
    task = bar.add_task("frames", total=len(video.sample_times(fps)))
    for frame in video.frames(fps):
        cuts.take(frame.number, frame.pixels)
        bar.advance(task)


def write_annotated(path: Path, episode: Episode, video: Video, cuts: Cuts, *, smooth: bool, bar: Progress) -> int:
    """Write the annotated video and take the crops on the way.

    Args:
        smooth: every frame of the video, else those that were looked at.

    Returns:
        How many frames it has.
    """
    fps = None if smooth else episode.run["config"]["fps"]
    seen = boxes_of(episode, video, smooth=smooth)
    rows, columns = episode.size_hw
    strip = Strip(
        columns,
        lanes_of(episode),
        duration_s=float(video.facts.duration),
        most_height=rows // STRIP_SHARE,
    )
    task = bar.add_task("frames", total=len(video.sample_times(fps)))
    written = 0
    rate = video.facts.rate if fps is None else min(video.facts.rate, fps)
    with writing_video(path, (rows + strip.height, columns), rate=rate) as writer:
        for frame in video.frames(fps):
            cuts.take(frame.number, frame.pixels)
            drawn = draw_boxes(frame.pixels, seen.get(frame.number, []))
            writer.write(with_strip(drawn, strip.at(float(frame.time))), frame.time)
            written += 1
            bar.advance(task)
    return written


def lanes_of(episode: Episode) -> list[Lane]:
    """One an identity."""
    return [
        Lane(
            str(identity),
            identity_colour(identity),
            tuple((one.observations[0].time_s, one.observations[-1].time_s) for one in own),
        )
        for identity, own in episode.members.items()
    ]


def boxes_of(episode: Episode, video: Video, *, smooth: bool) -> dict[int, list[Seen]]:
    """Who is in each frame. Of two boxes of one identity in a frame, as at a late handover, the surer one is shown;
    tracks that lie on another one are not."""
    found: dict[int, dict[int, tuple[float, Seen]]] = defaultdict(dict)
    patience = episode.run["config"]["tracking"]["patience_s"]
    times = [float(time) for time in video.sample_times()] if smooth else []
    for tracklet in episode.tracklets:
        if tracklet.id in episode.memory.links.second_boxes:
            continue
        identity = episode.identities.get(tracklet.id)
        key = -tracklet.id if identity is None else identity
        for frame, box, score in _boxes(tracklet, times, patience):
            if key not in found[frame] or found[frame][key][0] < score:
                known = identity is not None
                name, colour = (str(identity), identity_colour(identity)) if identity is not None else ("?", FAINT)
                found[frame][key] = (score, Seen(box, name, colour, known))
    return {frame: [seen for _, seen in by_key.values()] for frame, by_key in found.items()}


def _boxes(tracklet: Tracklet, times: list[float], patience: float) -> list[tuple[int, Box, float]]:
    """Its boxes; with `times` of all frames of the video also those between, as long as the tracker waits."""
    found = [(seen.frame, seen.box, seen.score) for seen in tracklet.observations]
    if times:
        for before, after in pairwise(tracklet.observations):
            lasts = after.time_s - before.time_s
            for frame in range(before.frame + 1, after.frame) if lasts <= patience else ():
                share = (times[frame] - before.time_s) / lasts
                x0, y0, x1, y1 = ((1 - share) * a + share * b for a, b in zip(before.box, after.box, strict=True))
                found.append((frame, (x0, y0, x1, y1), min(before.score, after.score)))
    return found
