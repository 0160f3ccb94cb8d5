"""Write RGB frames as an MP4 that players and browsers take, each frame at its own time."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from patchatlas.arrays import ImageU8
from patchatlas.errors import InputError, MissingExtraError, ShapeError, UsageError
from patchatlas.files import replacing
from patchatlas.geometry.rounding import ceil_to_multiple

TICK = Fraction(1, 60_000)
"""Clock of the file: exact for 24 to 60 and for 29.97 frames a second; MPEG-4 allows up to 65535 ticks."""

_QUALITY = {
    # Constant rate factor: lower is better, 23 is x264's default. With mbtree x264 writes other bytes now and then for
    # small frames, on one thread too (in 19 of 60 runs at 64 x 48; in none of 120 without it).
    "libx264": {"crf": "20", "preset": "veryfast", "x264-params": "mbtree=0"},
    "mpeg4": {"flags": "+qscale", "global_quality": "354"},  # quantiser 3 times FFmpeg's FF_QP2LAMBDA of 118
}

# The index before the pictures, so that browsers can begin at once; no time of writing or version of FFmpeg.
_MUXING = {"movflags": "+faststart", "fflags": "+bitexact"}

_BT601 = 6  # SMPTE 170M, the matrix by which FFmpeg makes YCbCr of RGB; untagged, players would take another for HD
_LIMITED = 1


class VideoWriter:
    """Takes the frames of one video in order; made by `writing_video`."""

    def __init__(self, container: Any, stream: Any, size_hw: tuple[int, int], rate: Fraction) -> None:
        self._container = container
        self._shown_for = max(1, round(1 / rate / TICK))
        self._stream = stream
        self._size_hw = size_hw
        self._last = -1

    def write(self, pixels: ImageU8, time: Fraction) -> None:
        """Add a frame.

        Args:
            pixels: of the size that was named.
            time: when it is shown, seconds; later than the frame before.

        Raises:
            ShapeError: pixels of another size.
            UsageError: a time that is negative, or not later than that of the frame before.
        """
        import av

        if pixels.shape[:2] != self._size_hw:
            raise ShapeError(f"a frame of {pixels.shape[:2]} in a video of {self._size_hw} (rows, columns)")
        tick = round(time / TICK)
        if tick <= self._last:
            raise UsageError(
                f"a frame at {float(time)} s after one at {float(self._last * TICK)} s; give them in order"
            )
        self._last = tick
        rows, columns = self._size_hw
        padded = np.pad(
            pixels, ((0, self._stream.height - rows), (0, self._stream.width - columns), (0, 0)), mode="edge"
        )
        frame = av.VideoFrame.from_ndarray(padded, format="rgb24")
        frame.pts, frame.time_base, frame.duration = tick, TICK, self._shown_for
        self._container.mux(self._stream.encode(frame))


@contextmanager
def writing_video(path: str | Path, size_hw: tuple[int, int], *, rate: int | float | Fraction) -> Iterator[VideoWriter]:
    """Write an MP4: H.264 where PyAV was built with libx264, else MPEG-4. The same frames give the same bytes.

    Odd sides are made even by repeating the last row and column, since the colours are stored at half the resolution.
    The file gets its name when it is whole; on an error nothing is left.

    Args:
        path: ends in .mp4.
        size_hw: rows and columns of all frames.
        rate: about how many frames a second come; the last one is shown for as long as that.

    Raises:
        MissingExtraError: PyAV is not installed.
        UsageError: another suffix, or a rate that is not positive.
        InputError: the folder does not exist, or no frame was written.
    """
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("av", extra="video", needed_for="writing a video") from error
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise UsageError(f"videos are written as .mp4, given {path.name}")
    if rate <= 0:
        raise UsageError(f"a video of {float(rate)} frames per second cannot be; give a positive rate")
    exact = Fraction(rate).limit_denominator(1001)
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with replacing(path) as temporary:
        with av.open(f"file:{temporary.absolute()}", "w", format="mp4", options=_MUXING) as container:
            stream: Any = container.add_stream(codec, rate=exact, options=_QUALITY[codec])
            stream.height, stream.width = (ceil_to_multiple(side, 2) for side in size_hw)
            stream.pix_fmt = "yuv420p"
            stream.time_base = stream.codec_context.time_base = TICK
            stream.codec_context.colorspace, stream.codec_context.color_range = _BT601, _LIMITED
            # One thread: what x264 writes depends on how many there are.
            stream.codec_context.thread_count = 1
            writer = VideoWriter(container, stream, size_hw, exact)
            yield writer
            if writer._last < 0:
                raise InputError(f"no frame was written to {path}; a video needs at least one")
            container.mux(stream.encode(None))
