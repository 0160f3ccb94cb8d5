"""First stage: look at the frames of a video and write down every box."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patchatlas.errors import PatchAtlasError
from patchatlas.io.video import Video, VideoFrame
from patchatlas.reid.boxes import Box
from patchatlas.reid.detect.detector import Chosen
from patchatlas.reid.embed.crops import cut
from patchatlas.reid.embed.quality import sharpness
from patchatlas.reid.files.detections import NAME, Journal, SeenFrame, read_detections, read_head, write_detections
from patchatlas.reid.stages.clock import Clock, Report

STAGE = "detect"


def detect(
    video: Video,
    detector: Chosen,
    *,
    fps: float,
    folder: Path,
    about: Mapping[str, Any],
    key: str,
    learns: bool,
    clock: Clock,
    report: Report,
) -> None:
    """Write `detections.jsonl`, unless it is there with this key.

    Args:
        fps: frames looked at in a second.
        about: for the head of the file.
        key: of all that the boxes depend on.
        learns: whether the boxes of a frame depend on the frames before it. Then an earlier run that was broken off is
            gone through again; else its frames are passed over.

    Raises:
        FormatError: the video's frames change their size.
        ResourceError: the disk is full, or the folder may not be written.
    """
    if finished(folder, key):
        return
    total = len(video.sample_times(fps))
    journal = Journal(folder, key)
    given = dict(detector.dropped)  # by reading a file of boxes
    try:
        # The whole video is decoded even so: that is cheap, and what is damaged shows only then.
        for done, frame in enumerate(clock.each("decode", video.frames(fps)), start=1):
            known = journal.following(frame.number)
            if known is None or learns:
                seen = _look(frame, detector, clock)
                if known is None:
                    journal.add(seen)
            report(STAGE, done, total)
        journal.end()
        head = {**about, "key": key, "detector": detector.facts, "dropped": given, "not_shown": detector.unasked()}
        write_detections(folder, {**head, "problems": dict(sorted(video.problems.items()))}, journal)
    finally:
        journal.close()
    journal.path.unlink()


def finished(folder: Path, key: str) -> bool:
    """Whether the boxes were found already, under this key, and all of them can be read."""
    if not (folder / NAME).is_file():
        return False
    try:
        if read_head(folder).get("key") != key:
            return False
        for _ in read_detections(folder):
            pass
    except PatchAtlasError:
        return False  # of another version, or damaged: it is made again
    return True


def _look(frame: VideoFrame, detector: Chosen, clock: Clock) -> SeenFrame:
    before = Counter(detector.dropped)
    with clock.timing("detect"):
        found = detector(frame)
    with clock.timing("sharpness"):
        sharp = tuple(sharpness(cut(frame.pixels, _box(box))) for box in found.boxes.tolist())
    return SeenFrame(frame.number, float(frame.time), found, sharp, dict(Counter(detector.dropped) - before))


def _box(numbers: list[float]) -> Box:
    x0, y0, x1, y1 = numbers
    return x0, y0, x1, y1
