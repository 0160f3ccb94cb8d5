"""Crops or whole frames: CPU time of either, and the number of boxes from which a frame is cheaper, counted and timed.

    python -m benchmarks.reid.regions [--frames 448x768 ...] [--crop 224x224] [--boxes 8] [--repeats 2] [--json FILE]

A ViT-S/16 with random weights: time does not depend on them. CPU time of this process, the least of the repeats, on one
thread.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.random_vit import VITS16, random_vit
from patchatlas.geometry.grid import PatchGrid
from patchatlas.reid.embed.choice import break_even, crop_flop, forward_flop
from patchatlas.reid.embed.crops import CropEmbedder
from patchatlas.reid.embed.regions import RegionEmbedder, frame_of

Hw = tuple[int, int]


def cpu_seconds(work: Callable[[], object], repeats: int) -> float:
    """The least of several runs."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def measure(frames: Sequence[Hw], crop_hw: Hw, *, boxes: int, repeats: int) -> list[dict[str, object]]:
    """Time and count of a crop, and of each size of frame with its boxes."""
    encoder = random_vit(VITS16, name="random-vits16")
    generator = np.random.default_rng(0)
    size = max(crop_hw)
    crops = CropEmbedder(encoder, pooling="mean", size=size, batch=8)
    regions = RegionEmbedder(encoder)
    pictures = [generator.integers(0, 256, (*crop_hw, 3), np.uint8) for _ in range(boxes)]
    crops.embed_crops(pictures[:1])  # tables are made once
    crop_seconds = cpu_seconds(lambda: crops.embed_crops(pictures), repeats) / boxes
    records: list[dict[str, object]] = []
    for h, w in frames:
        picture = generator.integers(0, 256, (h, w, 3), np.uint8)
        start = torch.rand(boxes, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        corner = start * torch.tensor([w / 2, h / 2])
        asked = torch.cat([corner, corner + torch.tensor([w / 4, h / 3])], dim=1)
        frame_seconds = cpu_seconds(lambda p=picture, a=asked: regions.embed_boxes(p, a), repeats)
        grid = PatchGrid.on(frame_of((h, w), encoder.spec, size=None), encoder.spec.patch)
        records.append(
            {
                "frame": f"{h}x{w}",
                "crop": f"{crop_hw[0]}x{crop_hw[1]}",
                "frame_gflop": forward_flop(grid.shape, encoder.spec) / 1e9,
                "crop_gflop": crop_flop(crop_hw, encoder.spec, crop_size=size) / 1e9,
                "frame_ms": 1e3 * frame_seconds,
                "crop_ms": 1e3 * crop_seconds,
                "counted": break_even((h, w), encoder.spec, crop_hw=crop_hw, frame_size=None),
                "timed": frame_seconds / crop_seconds,
            }
        )
    return records


def main(arguments: Sequence[str]) -> None:
    """Print a table, and write the records if a file is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", nargs="+", type=_hw, default=[(448, 768), (576, 1024), (720, 1280)], metavar="HxW")
    parser.add_argument("--crop", type=_hw, default=(224, 224), metavar="HxW")
    parser.add_argument("--boxes", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    records = measure(chosen.frames, chosen.crop, boxes=chosen.boxes, repeats=chosen.repeats)
    print("frame       crop      GFLOP frame  crop   CPU ms frame    crop   break-even counted   timed")
    for one in records:
        print(
            f"{one['frame']:<11} {one['crop']:<9} {one['frame_gflop']:>11.1f} {one['crop_gflop']:>5.1f} "
            f"{one['frame_ms']:>14.0f} {one['crop_ms']:>7.0f} {one['counted']:>20.1f} {one['timed']:>7.1f}"
        )
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")


def _hw(text: str) -> Hw:
    h, w = text.split("x")
    return int(h), int(w)


if __name__ == "__main__":
    main(sys.argv[1:])
