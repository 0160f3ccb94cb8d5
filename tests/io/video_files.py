"""Small videos whose frames say which they are, in the pixels: made here, so that every trap is known."""

import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from patchatlas.arrays import ImageU8

MS = Fraction(1, 1000)

B_FRAMES = {"bf": "3", "g": "8", "x264-params": "scenecut=0:b-adapt=0"}
"""Three B frames between others and a key frame every eight: the file's order is not the order of showing."""

MATRICES = {
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}
"""Display matrices (a, b, c, d) for the eight EXIF orientations; 6 is what a phone held upright writes."""


def picture(number: int, size_hw: tuple[int, int] = (48, 64)) -> ImageU8:
    """A grey picture with `number` in eight black or white squares along the top, and a red square bottom left."""
    pixels = np.full((*size_hw, 3), 128, dtype=np.uint8)
    for bit in range(8):
        pixels[:8, 8 * bit : 8 * bit + 8] = 255 * (number >> bit & 1)
    pixels[-16:, :16] = (255, 0, 0)
    return pixels


def number_in(pixels: ImageU8) -> int:
    """The number that `picture` drew."""
    return sum(int(pixels[2:6, 8 * bit + 2 : 8 * bit + 6].mean() > 127) << bit for bit in range(8))


def make_video(
    path: Path,
    times: Sequence[Fraction],
    *,
    size_hw: tuple[int, int] = (48, 64),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    tick: Fraction = MS,
    rate: int = 10,
    options: dict[str, str] | None = None,
    pictures: Iterable[ImageU8] | None = None,
    muxer: dict[str, str] | None = None,
) -> Path:
    """Write a frame at each of `times`, in seconds."""
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = size_hw
        stream.pix_fmt = pix_fmt
        stream.time_base = stream.codec_context.time_base = tick
        shown = pictures or (picture(number, size_hw) for number in range(len(times)))
        for pixels, time in zip(shown, times, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(time / tick), tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def turn(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Put a display matrix into the track header of an MP4 (ISO/IEC 14496-12, 8.3.2, version 0)."""
    content = bytearray(path.read_bytes())
    at = (
        content.index(b"tkhd") + 4 + 4 + 20 + 16
    )  # after name; version and flags; times, id, duration; layer and volume
    a, b, c, d = (n << 16 for n in matrix)
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def make_sound(path: Path) -> Path:
    """A second of silence."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        stream.layout = "mono"
        for block in range(16):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, 1024 * block, Fraction(1, 16000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def every(step: Fraction, count: int) -> list[Fraction]:
    """Times 0, step, 2 step ..."""
    return [number * step for number in range(count)]
