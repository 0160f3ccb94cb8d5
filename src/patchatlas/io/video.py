"""Read a video by the time at which each frame is shown: upright RGB, streamed, sampled on a time grid.

Frames are addressed by their presentation time (pts), never by counting what a decoder happens to give: a first pass
over the packets, without decoding, lists when every frame is shown. Times are exact fractions of a second from the
first frame.
"""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from patchatlas.arrays import ImageU8
from patchatlas.errors import FormatError, InputError, UsageError
from patchatlas.geometry.frame import Frame
from patchatlas.io.images import MAX_PIXELS
from patchatlas.io.video_file import (
    Packets,
    decoded,
    faults,
    look_through,
    opened,
    orientation_of,
    packets_before,
    picture_stream,
    untimed,
    upright,
)

Number = int | float | Fraction
"""Seconds, or frames a second; a float is taken as it is written, so 0.1 is a tenth."""

Numbers = Int64[ndarray, " n"]

log = logging.getLogger(__name__)

_REORDERED = 16
"""Frames by which the order of the file may differ from that of showing (H.264, A.3.1: frames a decoder keeps)."""


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """One decoded frame.

    Attributes:
        number: in the video's own count, from 0 in the order of showing.
        time: when it is shown, seconds from the first frame.
        pixels: upright RGB.
    """

    number: int
    time: Fraction
    pixels: ImageU8


@dataclass(frozen=True)
class VideoFacts:
    """What a video file is.

    Attributes:
        frame: the upright picture, with the stored raster as its source.
        orientation: how the raster is turned, as an EXIF orientation, 1 to 8.
        frames: how many there are, by the packets.
        duration: seconds from the first frame to the end of the last; that one is taken to last as long as the frame
            before it where the file does not say.
        variable_rate: whether frames are shown for times that differ by more than the rounding of the file's clock.
        container: format of the file, FFmpeg's name.
        codec: FFmpeg's name.
    """

    frame: Frame
    orientation: int
    frames: int
    duration: Fraction
    variable_rate: bool
    container: str
    codec: str

    @property
    def size_hw(self) -> tuple[int, int]:
        """Rows and columns of the upright picture."""
        return self.frame.size[0], self.frame.size[1]

    @property
    def rate(self) -> Fraction:
        """Mean frames per second."""
        return self.frames / self.duration


class Video:
    """A video file that can be read, any number of times, from any point; made by `open_video`.

    Attributes:
        path: the file.
        facts: what it is.
        problems: what is wrong with the file, by kind: `truncated` and `repeated` (frames that share a time) are known
            once it is open, `damaged` once `frames` has come to its end. All else is given nevertheless.
    """

    def __init__(self, path: Path, facts: VideoFacts, problems: dict[str, str], packets: Packets) -> None:
        self.path = path
        self.facts = facts
        self.problems = problems
        self._packets = packets

    def sample_times(
        self, fps: Number | None = None, *, start: Number = 0, end: Number | None = None
    ) -> tuple[Fraction, ...]:
        """Times of the frames that `frames` gives for the same options; none is decoded.

        Raises:
            UsageError: as `frames`.
        """
        chosen = self._packets.pts[self._chosen(fps, start, end)]
        return tuple(self._packets.time(pts) for pts in chosen.tolist())

    def frames(
        self, fps: Number | None = None, *, start: Number = 0, end: Number | None = None
    ) -> Iterator[VideoFrame]:
        """Decode, one frame at a time, in the order of showing.

        Args:
            fps: give, for each of the times k / fps, the frame shown nearest to it (of two the earlier), each once;
                all frames by default. The grid begins at the video's first frame, so parts of a video meet.
            start: leave out frames before this time, seconds; decoding begins at the last key frame before it.
            end: leave out frames at and after this time, seconds.

        Raises:
            UsageError: a rate that is not positive.
            FormatError: frames change their size.
        """
        chosen = self._chosen(fps, start, end)
        return self._decode(chosen)

    def _chosen(self, fps: Number | None, start: Number, end: Number | None) -> Numbers:
        """Numbers of the frames to give, rising."""
        ticks = self._packets.pts - self._packets.pts[0]
        chosen = np.arange(len(ticks)) if fps is None else nearest_to_grid(ticks, self._packets.tick * _exact(fps))
        low = math.ceil(_exact(start) / self._packets.tick)
        kept = ticks[chosen] >= low
        if end is not None:
            kept &= ticks[chosen] < math.ceil(_exact(end) / self._packets.tick)
        numbers: Numbers = chosen[kept]
        return numbers

    def _decode(self, chosen: Numbers) -> Iterator[VideoFrame]:
        wanted = iter(chosen.tolist())
        sought = next(wanted, None)
        if sought is None:
            return
        faulty: list[int] = []
        for number, frame in self._numbered(sought):
            while sought is not None and sought < number:  # what was sought did not come
                faulty.append(sought)
                sought = next(wanted, None)
            if sought == number:
                if frame.is_corrupt:
                    faulty.append(number)
                time = self._packets.time(int(self._packets.pts[number]))
                yield VideoFrame(number, time, upright(frame.to_ndarray(format="rgb24"), self.facts.frame))
                sought = next(wanted, None)
            if sought is None:
                break
        if sought is not None:
            faulty += [sought, *wanted]
        if "truncated" in self.problems:  # then its ragged end is no news
            faulty = [number for number in faulty if number < self.facts.frames - _REORDERED]
        if faulty:
            first = float(self._packets.time(int(self._packets.pts[faulty[0]])))
            message = f"{len(faulty)} of the frames asked for are damaged or missing, the first at {first:.3f} s"
            log.warning("%s: %s", self.path, message)
            self.problems["damaged"] = message

    def _numbered(self, first: int) -> Iterator[tuple[int, Any]]:
        """Decoded frames with their numbers, from `first` or somewhat earlier."""
        target = int(self._packets.pts[first])
        from_start = first == 0 or self._packets.packed
        with opened(self.path) as container:
            stream = picture_stream(container, self.path)
            packets = container.demux(stream)
            if not from_start:
                packets = packets_before(container, stream, self._packets, target)
            if packets is not None:
                yield from self._checked(decoded(stream, packets))
        if packets is None:  # then from the beginning
            with opened(self.path) as container:
                stream = picture_stream(container, self.path)
                yield from self._checked(decoded(stream, container.demux(stream)))

    def _checked(self, frames: Iterator[Any]) -> Iterator[tuple[int, Any]]:
        stored = self.facts.frame.source_size
        last = -1
        for one in frames:
            if (one.height, one.width) != stored:
                raise FormatError(
                    f"{self.path} changes its size from {stored[1]} x {stored[0]} to {one.width} x {one.height} after "
                    f"frame {last}; encode it at one size: ffmpeg -i IN -c:v libx264 OUT.mp4"
                )
            if self._packets.packed:  # frames come in the order of showing, and only that is known
                number = last + 1
            else:
                number = -1 if one.pts is None else int(np.searchsorted(self._packets.pts, one.pts))
            if number < len(self._packets.pts):  # damage may have cost a frame its true time
                yield number, one
            last = number


def open_video(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Video:
    """Look through a video file: reads all of it once, decodes one frame.

    Args:
        path: a file of one of `FORMATS`; the content decides, not the name.
        max_pixels: rows times columns of a frame that are still read.

    Raises:
        MissingExtraError: PyAV is not installed.
        InputError: there is no such file.
        FormatError: not a video, no pictures in it, cut off before anything can be read, frames without times, turned
            by other than right angles, or too large; the message says which and what to do.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no video file {path}; check the name")
    with opened(path) as container:
        stream = picture_stream(container, path)
        packets, end = look_through(container, stream, path)
        problems = faults(container, stream, packets, end)
        kind, codec = container.format.name, stream.codec_context.name
    with opened(path) as container:
        stream = picture_stream(container, path)
        one = next(decoded(stream, container.demux(stream)), None)
        if one is None:
            raise FormatError(f"no frame of {path} can be decoded; copy or export the video again")
        if kind == "avi" and packets.in_order and stream.codec_context.has_b_frames:
            raise untimed(path)  # AVI has no times; FFmpeg's guess is then the order of the file, not that of showing
        orientation = orientation_of(one, path)
        stored = (one.height, one.width)
    if stored[0] * stored[1] > max_pixels:
        raise FormatError(
            f"{path} has frames of {stored[1]} x {stored[0]} pixels, allowed are {max_pixels} in all; scale it down "
            "first, or raise max_pixels"
        )
    gaps = np.diff(packets.pts)
    facts = VideoFacts(
        frame=Frame.from_exif(stored, orientation),
        orientation=orientation,
        frames=len(packets.pts),
        duration=packets.time(int(packets.pts[-1]) + packets.last),
        variable_rate=bool(len(gaps) > 0 and gaps.max() - gaps.min() > 1),
        container=kind,
        codec=codec,
    )
    for reason in problems.values():
        log.warning("%s: %s", path, reason)
    return Video(path, facts, problems, packets)


def nearest_to_grid(ticks: Int64[ndarray, " n"], step: Fraction) -> Int64[ndarray, " m"]:
    """Which of the rising `ticks` lie nearest to the times of a grid, each once; of two equally near the earlier.

    Args:
        ticks: from 0.
        step: grid intervals a tick: tick k of the clock is at `step * k` of the grid, whose times are 0, 1, 2 ...

    Raises:
        UsageError: a step that is not positive.
    """
    if step <= 0:
        raise UsageError(f"frames per second must be positive, given a step of {float(step)} a tick")
    count = math.floor(int(ticks[-1]) * step) + 1
    # Frame i gives way to the next where twice the grid time exceeds the sum of their ticks: integers, so exact.
    limits = np.array([-(-2 * k * step.denominator // step.numerator) for k in range(count)], dtype=np.int64)
    return np.unique(np.searchsorted(ticks[:-1] + ticks[1:], limits)).astype(np.int64)


def _exact(number: Number) -> Fraction:
    """The number as it is written: 0.1 is a tenth."""
    return number if isinstance(number, Fraction) else Fraction(str(number))
