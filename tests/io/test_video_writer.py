"""Writing videos: what was written comes back, at its time, from a whole file or none."""

import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from patchatlas.arrays import ImageU8
from patchatlas.errors import InputError, ShapeError, UsageError
from patchatlas.io.video import open_video
from patchatlas.io.video_writer import writing_video

TIMES = [Fraction(n, 4) + (Fraction(1, 7) if n % 3 == 1 else 0) for n in range(12)]


def ramp(size_hw: tuple[int, int], number: int) -> ImageU8:
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]]
    return np.stack([columns * 2, rows * 3, np.full_like(rows, 20 * number)], axis=-1).astype(np.uint8)


def written(path: Path, size_hw: tuple[int, int]) -> bytes:
    with writing_video(path, size_hw, rate=4) as video:
        for number, at in enumerate(TIMES):
            video.write(ramp(size_hw, number), at)
    return path.read_bytes()


@pytest.mark.parametrize("codec", ["h264", "mpeg4"])
@pytest.mark.parametrize("size_hw", [(48, 64), (49, 65)])
def test_frames_come_back_at_their_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str, size_hw: tuple[int, int]
) -> None:
    if codec == "mpeg4":
        monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})
    written(tmp_path / "v.mp4", size_hw)
    video = open_video(tmp_path / "v.mp4")
    assert (video.facts.codec, video.facts.size_hw) == (
        codec,
        (size_hw[0] + size_hw[0] % 2, size_hw[1] + size_hw[1] % 2),
    )
    frames = list(video.frames())
    assert len(frames) == 12
    for number, (frame, at) in enumerate(zip(frames, TIMES, strict=True)):
        assert abs(frame.time - at) < Fraction(1, 50_000)
        off = frame.pixels[: size_hw[0], : size_hw[1]].astype(int) - ramp(size_hw, number)
        assert np.abs(off).mean() < 4
        assert np.abs(off.mean(axis=(0, 1))).max() < 3  # no other matrix for the colours


def test_same_frames_same_bytes(tmp_path: Path) -> None:
    first = written(tmp_path / "a.mp4", (48, 64))
    time.sleep(1.1)  # a time of writing would have whole seconds
    assert {written(tmp_path / "b.mp4", (48, 64)) for _ in range(8)} == {first}


def broken_off(path: Path, *frames: tuple[tuple[int, int], Fraction]) -> None:
    """Write frames of these sizes and times into a video of 48 x 64, then fail."""
    with writing_video(path, (48, 64), rate=4) as video:
        for size_hw, at in frames:
            video.write(ramp(size_hw, 0), at)
        raise RuntimeError("halfway")


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="halfway"):
        broken_off(tmp_path / "v.mp4", ((48, 64), Fraction(0)))
    assert list(tmp_path.iterdir()) == []


def test_an_error_keeps_the_former_file(tmp_path: Path) -> None:
    before = written(tmp_path / "v.mp4", (48, 64))
    with pytest.raises(InputError, match="no frame was written"), writing_video(tmp_path / "v.mp4", (48, 64), rate=4):
        pass
    assert (tmp_path / "v.mp4").read_bytes() == before


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"written as \.mp4, given v\.avi"):
        written(tmp_path / "v.avi", (48, 64))
    with pytest.raises(InputError, match="does not exist"):
        written(tmp_path / "none" / "v.mp4", (48, 64))
    with pytest.raises(UsageError, match="positive rate"), writing_video(tmp_path / "v.mp4", (48, 64), rate=0):
        pass
    with pytest.raises(ShapeError, match=r"\(50, 64\) in a video of \(48, 64\)"):
        broken_off(tmp_path / "v.mp4", ((50, 64), Fraction(0)))
    with pytest.raises(UsageError, match="give them in order"):
        broken_off(tmp_path / "v.mp4", ((48, 64), Fraction(1)), ((48, 64), Fraction(1)))
