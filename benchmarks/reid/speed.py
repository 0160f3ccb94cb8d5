"""How fast each stage is, beside stock trackers on the same boxes, and whether memory grows with the video.

    python -m benchmarks.reid.speed [--frames 600] [--lengths 300 600 1200] [--boxmot PYTHON] [--json FILE]

The generated video is encoded once (H.264) and read as any other. Frames a second are of CPU time. For boxmot, name the
Python of an environment of its own that has it (`pip install --no-deps boxmot lap`); it is not installed beside this
package, for its licence is AGPL-3.0.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import supervision
import torch
import trackers

from benchmarks.reid.generator import Episode, World, make
from patchatlas.arrays import ImageU8
from patchatlas.io.video_writer import writing_video
from patchatlas.reid.config import make_config
from patchatlas.reid.engine import PerceptionEngine
from patchatlas.reid.track import Tracker

CHILD = """
import re, sys
import torch
torch.set_num_threads(1)
from patchatlas.reid.config import make_config
from patchatlas.reid.engine import PerceptionEngine
config = make_config({"fps": 10, "detection": {"detector": "boxes", "boxes": sys.argv[2]}})
PerceptionEngine(config).process_video(sys.argv[1], output=sys.argv[3])
# Not ru_maxrss: a process takes that of its parent over.
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024)
"""

BOXMOT = """
import json, sys, time
import numpy as np
from boxmot.trackers.box.bytetrack.tracker import ByteTrack
from boxmot.trackers.box.ocsort.tracker import OcSort
frames = json.load(open(sys.argv[1]))
picture = np.zeros((540, 960, 3), np.uint8)
for name, make in (("boxmot ByteTrack", ByteTrack), ("boxmot OC-SORT", OcSort)):
    tracker = make()
    start = time.process_time()
    for rows in frames:
        tracker.update(np.array(rows, dtype=np.float32).reshape(-1, 6), picture)
    print(json.dumps([name, len(frames) / (time.process_time() - start)]))
"""


def written(episode: Episode, folder: Path, frames: int) -> tuple[Path, Path]:
    """The episode as a video and a file of boxes; shown again and again where more frames are asked for than it has."""
    folder.mkdir(parents=True, exist_ok=True)
    video, boxes = folder / "video.mp4", folder / "boxes.jsonl"
    drawn = islice(_again(episode), frames)
    with writing_video(video, episode.world.size_hw, rate=10) as writer:
        for number, picture in enumerate(drawn):
            writer.write(picture, Fraction(number, 10))
    with boxes.open("w", encoding="utf-8") as file:
        for number, found in enumerate(islice(cycle(episode.detections), frames)):
            for box, score in zip(found.boxes.tolist(), found.scores.tolist(), strict=True):
                file.write(json.dumps({"frame": number, "box": box, "score": score}) + "\n")
    return video, boxes


def stages(video: Path, folder: Path, **detection: Any) -> dict[str, float]:
    """Frames or crops a second of each kind of work of a run."""
    config = make_config({"fps": 10, "detection": detection})
    episode = PerceptionEngine(config).process_video(video, output=folder)
    log = json.loads((episode.folder / "run.log.json").read_text())
    spent, frames, crops = log["cpu_seconds_by_work"], log["frames"], log["crops"]
    boxes = episode.run["counts"]["boxes"]
    return {
        "decode, frames/s": frames / spent["decode"],
        f"detect ({config.detection.detector}), frames/s": frames / spent["detect"],
        "judge sharpness, boxes/s": boxes / spent["sharpness"],
        "track, frames/s": frames / spent["track"],
        "embed (bundled), crops/s": crops / spent["embed"],
        "link, frames/s": frames / spent["link"],
        "everything, frames/s": frames / sum(spent.values()),
    }


def stock(episode: Episode) -> Iterator[tuple[str, float]]:
    """Frames a second of trackers on the boxes alone."""
    given = [
        supervision.Detections(
            xyxy=found.boxes.numpy().astype(np.float32),
            confidence=found.scores.numpy().astype(np.float32),
            class_id=np.zeros(len(found), dtype=int),
        )
        for found in episode.detections
    ]
    makers: dict[str, Callable[[], Any]] = {
        "trackers ByteTrack": trackers.ByteTrackTracker,
        "trackers OC-SORT": trackers.OCSORTTracker,
    }
    for name, maker in makers.items():
        tracker, start = maker(), time.process_time()
        for one in given:
            tracker.update(one)
        yield name, len(given) / (time.process_time() - start)
    ours, start = Tracker(fps=10), time.process_time()
    for number, found in enumerate(episode.detections):
        ours.update(number, number / 10, found)
    yield "ours (ByteTrack behind its door)", len(given) / (time.process_time() - start)


def boxmot(python: Path, episode: Episode, folder: Path) -> Iterator[tuple[str, float]]:
    """Frames a second of boxmot's motion trackers on the same boxes, in an environment of its own."""
    rows = [
        [[*box, score, 0] for box, score in zip(found.boxes.tolist(), found.scores.tolist(), strict=True)]
        for found in episode.detections
    ]
    (folder / "rows.json").write_text(json.dumps(rows))
    done = subprocess.run(
        [str(python), "-c", BOXMOT, str(folder / "rows.json")], capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
    for line in done.stdout.splitlines():
        if line.startswith("["):
            name, speed = json.loads(line)
            yield name, speed


def peaks(episode: Episode, folder: Path, lengths: Sequence[int]) -> Iterator[tuple[int, float]]:
    """Peak memory, MiB, of a process that makes an episode of so many frames."""
    for frames in lengths:
        video, boxes = written(episode, folder / f"{frames}", frames)
        command = [sys.executable, "-c", CHILD, str(video), str(boxes), str(folder / f"{frames}" / "out")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        yield frames, float(done.stdout.split()[-1])


def _again(episode: Episode) -> Iterator[ImageU8]:
    while True:
        yield from episode.frames()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--lengths", type=int, nargs="+", default=[300, 600, 1200])
    parser.add_argument("--boxmot", type=Path, help="Python of an environment that has boxmot")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    (episode,) = make(World(seed=given.seed, frames=given.frames))
    with TemporaryDirectory() as name:
        folder = Path(name)
        video, boxes = written(episode, folder, given.frames)
        result: dict[str, Any] = {
            "boxes": stages(video, folder / "boxes-out", detector="boxes", boxes=boxes),
            "motion": stages(video, folder / "motion-out", detector="motion"),
            "trackers": dict(stock(episode)),
        }
        if given.boxmot is not None:
            result["trackers"] |= dict(boxmot(given.boxmot, episode, folder))
        result["peak_mib"] = dict(peaks(episode, folder, given.lengths))
    for title, rows in result.items():
        print(f"\n{title}")
        for key, value in rows.items():
            print(f"  {key!s:36} {value:10.1f}")
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
