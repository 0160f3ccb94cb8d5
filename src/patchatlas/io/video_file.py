"""The file behind a video: opened safely, its packets looked through, its pictures decoded and turned upright.

Everything that touches FFmpeg (through PyAV) is here; `video` makes times and numbers of it. Only local files of the
container formats below are opened, whatever they may refer to.
"""

import re
import struct
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from patchatlas.arrays import ImageU8
from patchatlas.errors import FormatError, MissingExtraError
from patchatlas.geometry.frame import Frame

FORMATS: tuple[str, ...] = ("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi")
FORMATS += ("mpegts", "mpeg", "flv", "asf", "ogg", "gif")
"""Containers that are opened, by FFmpeg's names. Play lists and picture sequences, which name other files, are not."""

# First four numbers (a, b, c, d) of a display matrix, x' = a x + c y, y' = b x + d y with y downwards (ISO/IEC
# 14496-12, 6.2.2), by their signs, and the EXIF orientation that turns pixels the same way.
_ORIENTATIONS = {
    (1, 0, 0, 1): 1,
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7,
    (0, -1, 1, 0): 8,
}


@dataclass(frozen=True, eq=False)
class Packets:
    """When the frames of a stream are shown, in ticks of its clock.

    Attributes:
        pts: of every frame, rising.
        keys: pts and seek position (dts, else pts) of the frames that can be decoded alone, rising by pts.
        tick: seconds.
        last: ticks that the last frame is shown for.
        in_order: whether the file holds the frames in the order of showing.
        repeated: frames left out because another has the same time.
        packed: whether the times of packets are not those of the frames that come of them, see `is_packed`.
    """

    pts: Int64[ndarray, " n"]
    keys: tuple[tuple[int, int], ...]
    tick: Fraction
    last: int
    in_order: bool
    repeated: int
    packed: bool = False

    def time(self, pts: int) -> Fraction:
        """Seconds from the first frame."""
        return (pts - int(self.pts[0])) * self.tick


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The container; what FFmpeg raises becomes our error."""
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("av", extra="video", needed_for="reading a video") from error
    try:
        # As a `file:` URL no part of the name can be taken for another protocol.
        with av.open(
            f"file:{path.absolute()}",
            container_options={"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"},
            metadata_errors="replace",
        ) as container:
            yield container
    except av.FFmpegError as error:
        if path.stat().st_size == 0:
            raise FormatError(f"{path} is empty (0 bytes); copy the video again") from error
        if _mp4_without_index(path):
            raise FormatError(
                f"{path} is cut short: an MP4 whose index (moov) is missing, as a recording that was broken off leaves "
                "it; copy it again, or repair it with the camera's own tool"
            ) from error
        raise FormatError(
            f"{path} is not a video that can be read ({error.strerror}); allowed are {', '.join(FORMATS)}. "
            "Convert it: ffmpeg -i IN -c:v libx264 OUT.mp4"
        ) from error


def picture_stream(container: Any, path: Path) -> Any:
    """The first stream of moving pictures; the cover of an album is none."""
    import av

    moving = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if moving and moving[0].codec_context is None:
        raise FormatError(
            f"{path} has pictures in a code that is not known; convert it: ffmpeg -i IN -c:v libx264 OUT.mp4"
        )
    if moving:
        return moving[0]
    if container.streams.audio:
        raise FormatError(f"{path} holds sound and no moving pictures; give the file with the video")
    raise FormatError(f"{path} holds no stream of pictures; give a video")


def look_through(container: Any, stream: Any, path: Path) -> tuple[Packets, Fraction]:
    """When each frame is shown, and when the last packet of any stream ends, in seconds of the container's clock."""
    shown, keys = array("q"), []
    end = Fraction(0)
    last = (-(2**63), 0)
    for packet in container.demux():
        if packet.pts is None and packet.dts is None and packet.size == 0:
            continue  # marks the end of a stream
        if packet.pts is not None and packet.time_base is not None:
            end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
        if packet.stream.index != stream.index or packet.is_discard:
            continue
        if packet.pts is None:
            raise untimed(path)
        shown.append(packet.pts)
        last = max(last, (packet.pts, packet.duration or 0))
        if packet.is_keyframe:
            keys.append((packet.pts, packet.pts if packet.dts is None else packet.dts))
    if not shown:
        raise FormatError(f"{path} has a stream of pictures with no frame in it; record or export the video again")
    stored = np.frombuffer(shown, dtype=np.int64)
    pts = np.unique(stored)
    still = int(pts[-1] - pts[-2]) if len(pts) > 1 else 1
    in_order = bool((np.diff(stored) > 0).all())
    repeated, tick = len(stored) - len(pts), stream.time_base
    return Packets(pts, tuple(sorted(keys)), tick, last[1] or still, in_order, repeated, is_packed(stream)), end


def is_packed(stream: Any) -> bool:
    """Whether DivX or XviD put a frame and the one shown before it into one packet, as they did for AVI.

    Packets and frames are then as many, but a frame gets the time of the wrong packet. The encoder says so by a `p`
    after its build in the user data of the stream (FFmpeg, libavcodec/mpeg4videodec.c, reads it there too).
    """
    context = stream.codec_context
    said = re.search(rb"DivX\d+(?:b|Build)\d+p", context.extradata or b"")
    return bool(context.name == "mpeg4" and said)


def faults(container: Any, stream: Any, packets: Packets, end: Fraction) -> dict[str, str]:
    """What is wrong by the packets alone: `truncated`, where the head of the file promises more than follows, and
    `repeated`, where frames share a time."""
    found = {}
    there = len(packets.pts) + packets.repeated
    if container.format.name == "avi":  # its head counts ticks, also those at which no new frame is shown
        there = max(there, int(packets.pts[-1] - packets.pts[0]) + 1)
    begin = Fraction(container.start_time or 0, 1_000_000)  # in FFmpeg's AV_TIME_BASE
    promised_s, there_s = Fraction(container.duration or 0, 1_000_000), end - begin
    if stream.frames > there:
        found["truncated"] = f"cut short: {stream.frames} frames are announced, {there} are there"
    # The duration of a last frame or block of sound may be missing or rounded: half a second is no cut.
    elif promised_s - there_s > max(Fraction(1, 2), 3 * packets.last * packets.tick):
        found["truncated"] = f"cut short: {float(promised_s):.2f} s are announced, {float(there_s):.2f} s are there"
    if packets.repeated:
        found["repeated"] = (
            f"{packets.repeated} frames have the time of another and are left out, as in files that were joined; "
            "encode it anew: ffmpeg -i IN -c:v libx264 OUT.mp4"
        )
    return found


def packets_before(container: Any, stream: Any, packets: Packets, target: int) -> Iterator[Any] | None:
    """The packets from the last key frame shown at or before `target` on, to be decoded.

    None where it is not found: containers seek by rules of their own, and MPEG program streams, which do not time every
    frame, guess other times afterwards.
    """
    keys = dict(key for key in packets.keys if key[0] <= target)
    if not keys:
        return None
    container.seek(next(reversed(keys.values())), stream=stream)
    following = container.demux(stream)
    for packet in following:
        if packet.is_keyframe:
            return chain([packet], following) if packet.pts in keys else None
    return None


def decoded(stream: Any, packets: Iterator[Any]) -> Iterator[Any]:
    """Frames as the decoder gives them; packets that are damaged are passed over.

    Several frames are never decoded at once: where a packet is damaged FFmpeg then drops its whole neighbours too.
    """
    import av

    stream.thread_type = "SLICE"
    for packet in packets:
        try:
            frames = packet.decode()
        except av.InvalidDataError:
            continue  # its frame does not come, which `Video` lists
        yield from frames


def orientation_of(frame: Any, path: Path) -> int:
    """EXIF orientation of a frame's display matrix, 1 without one."""
    matrices = [side for side in frame.side_data if side.type.name == "DISPLAYMATRIX"]
    if not matrices:
        return 1
    # Nine numbers in machine order (FFmpeg, libavutil/display.h), row by row: a, b, u, c, d, v, x, y, w.
    a, b, _, c, d, *_ = np.frombuffer(bytes(matrices[0]), dtype=np.int32).tolist()
    signs = tuple(int(np.sign(one)) for one in (a, b, c, d))
    if signs not in _ORIENTATIONS:
        raise FormatError(
            f"{path} is to be shown turned by {frame.rotation} degrees or skewed; only right angles and mirror images "
            "are read. Turn it: ffmpeg -i IN -c:v libx264 OUT.mp4"
        )
    return _ORIENTATIONS[signs]


def upright(stored: ImageU8, frame: Frame) -> ImageU8:
    """The raster turned as `frame`, made by `Frame.from_exif`, says; copies pixels only."""
    turned = stored.transpose(*frame.axes, 2)
    for axis, scale in enumerate(frame.scale):
        if scale < 0:
            turned = np.flip(turned, axis)
    return np.ascontiguousarray(turned)


def untimed(path: Path) -> FormatError:
    """The error for frames that cannot be put in order."""
    return FormatError(
        f"the frames of {path} have no times, or times out of order (H.264 in AVI, a bare stream, joined files); "
        "encode it anew: ffmpeg -i IN -c:v libx264 OUT.mp4"
    )


def _mp4_without_index(path: Path) -> bool:
    """Whether a file consists of MP4 boxes (ISO/IEC 14496-12, 4.2: length and kind, four bytes each) without `moov`."""
    size = path.stat().st_size
    kinds: list[bytes] = []
    with path.open("rb") as handle:
        at = 0
        while at < size and len(kinds) < 1000:
            handle.seek(at)
            head = handle.read(16)
            if len(head) < 8:
                break
            length, kind = struct.unpack(">I4s", head[:8])
            kinds.append(kind)
            if length == 1 and len(head) == 16:
                length = struct.unpack(">Q", head[8:])[0]
            if length < 8:
                break
            at += length
    return kinds[:1] == [b"ftyp"] and b"moov" not in kinds
