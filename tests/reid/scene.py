"""A small video of people in clothes of their own who leave and come back, with the boxes they stand in."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np

from patchatlas.arrays import ImageU8
from tests.io.video_files import every, make_video

SIZE_HW = (96, 256)
COLOURS = ((220, 40, 40), (40, 200, 60), (50, 70, 220), (230, 210, 40), (200, 60, 210), (40, 210, 210))
FRAMES, HALF = 60, 30
TENTH = Fraction(1, 10)

Box = tuple[float, float, float, float]


def boxes_at(frame: int) -> list[tuple[int, Box]]:
    """Who is where: all six walk, are gone for six frames, and come back in another order."""
    half, time = divmod(frame, HALF)
    if time >= HALF - 6:
        return []
    found = []
    for person in range(len(COLOURS)):
        place = person if half == 0 else (person + 3) % len(COLOURS)
        x, y = 8 + 40 * place + 0.5 * time, 20 + 6 * (place % 3)
        found.append((person, (x, float(y), x + 20, y + 44.0)))
    return found


def picture(frame: int) -> ImageU8:
    """People in two colours each, on a grey ground with some grain."""
    rng = np.random.default_rng(frame)
    pixels = rng.integers(112, 144, (*SIZE_HW, 3)).astype(np.uint8)
    for person, (x0, y0, x1, y1) in boxes_at(frame):
        top, middle, bottom, left, right = int(y0), int(y0) + 22, int(y1), round(x0), round(x1)
        pixels[top:middle, left:right] = COLOURS[person]
        pixels[middle:bottom, left:right] = COLOURS[(person + 2) % len(COLOURS)][::-1]
        pixels[top:bottom:5, left:right] //= 2
    return pixels


def write_scene(folder: Path, *, count: int = FRAMES) -> tuple[Path, Path]:
    """The video, ten frames a second, and its boxes."""
    video = make_video(
        folder / "street.mp4",
        every(TENTH, count),
        size_hw=SIZE_HW,
        pictures=(picture(frame) for frame in range(count)),
        options={"crf": "10"},
    )
    lines = [
        json.dumps({"frame": frame, "box": box, "score": 0.9, "label": "person"})
        for frame in range(count)
        for _, box in boxes_at(frame)
    ]
    boxes = folder / "boxes.jsonl"
    boxes.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return video, boxes
