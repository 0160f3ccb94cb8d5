"""Landmarks a second: one encoding of each picture for all landmarks, against mel's way, two forwards a landmark.

    python -m benchmarks.locate.speed [--encoders sift vit-0] [--landmarks 1 10 100 1000] [--repeats 5]

Both ways get the same encoder object in fp32, the same two photos in memory (those of `patchatlas demo`), the same
marks at random places, and are timed from pixels to answers:

    ours      `encode_view` of source and target, `locate_points`: place, spread, runners-up, cycle, confidence, reason
    kept      what mel does, but with both maps kept: a nearest patch and an argmax a landmark, one after the other
    mel       `dino3-map` as it was: source and target encoded anew for each landmark, batch 1, nearest patch, argmax

Seconds are CPU seconds of this process on one thread: what a core takes that has nothing else to do, also on a machine
that has. Nothing is extrapolated: mel's way is run only where one run of it is expected within `--patience` seconds, by
its time for one landmark. Times are medians of the repeats (of mel's way one run), interleaved. Markdown on stdout.
"""

import argparse
import statistics
import sys
import time
from importlib import resources

import numpy as np
import torch

from benchmarks.locate.encoders import open_encoder
from patchatlas.arrays import ImageU8
from patchatlas.encoders.protocol import Encoder
from patchatlas.features import FeatureMap
from patchatlas.io.images import read_image
from patchatlas.locate.encoding import encode_view
from patchatlas.locate.recipe import Recipe
from patchatlas.locate.search import locate_points

Array = np.ndarray


def ours(source: ImageU8, target: ImageU8, marks: Array, encoder: Encoder, recipe: Recipe) -> float:
    """Find all marks; the seconds spent on encoding."""
    began = time.process_time()
    source_map, target_map = (encode_view(picture, encoder, recipe) for picture in (source, target))
    encoded = time.process_time() - began
    uuids = [str(k) for k in range(len(marks))]
    findings = locate_points(source_map, target_map, torch.from_numpy(marks), uuids=uuids, image_size=recipe.image_size)
    assert len(findings) == len(marks)
    return encoded


def mel(source: ImageU8, target: ImageU8, marks: Array, encoder: Encoder, recipe: Recipe) -> None:
    """Find the marks one by one, from pixels each time."""
    for mark in marks:
        _nearest(encode_view(source, encoder, recipe), encode_view(target, encoder, recipe), mark)


def kept(source: ImageU8, target: ImageU8, marks: Array, encoder: Encoder, recipe: Recipe) -> None:
    """Find the marks one by one on maps made once."""
    source_map, target_map = (encode_view(picture, encoder, recipe) for picture in (source, target))
    for mark in marks:
        _nearest(source_map, target_map, mark)


def _nearest(source_map: FeatureMap, target_map: FeatureMap, mark: Array) -> Array:
    """The centre of the patch most like the one that holds the mark."""
    point = torch.from_numpy(mark)[None]
    column, row = source_map.grid.cells_of(point).long()[0].tolist()
    token = source_map.tokens[row * source_map.grid.shape[1] + column]
    similarity = torch.nn.functional.cosine_similarity(target_map.tokens, token[None])
    return target_map.grid.centres()[int(similarity.argmax())].numpy()


def main() -> None:
    """Read the options, time, print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.locate.speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--encoders", nargs="+", default=["sift", "vit-0"])
    parser.add_argument("--landmarks", nargs="+", type=int, default=[1, 10, 100, 1000])
    parser.add_argument("--image-size", type=int, default=896)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--patience", type=float, default=300.0, help="seconds that a run of mel's way may take")
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = Recipe(image_size=options.image_size)
    with resources.as_file(resources.files("patchatlas") / "demo_data") as folder:
        source, target = (read_image(folder / f"motorcycle_{side}.jpg") for side in ("left", "right"))
    rows, columns = source.shape[:2]
    marks = np.random.default_rng(0).uniform([0, 0], [columns, rows], (max(options.landmarks), 2))
    print(f"{columns} x {rows} px at image size {options.image_size}\n")
    print(
        "| encoder | landmarks | ours, s | of it encoding | more than for 1 | ours, /s | kept, /s | mel, s | mel, /s |"
    )
    print("| --- " * 9 + "|")
    for name in options.encoders:
        encoder = open_encoder(name, device="cpu")
        ours(source, target, marks[:1], encoder, recipe)  # warm
        timed: dict[int, list[tuple[float, float, float]]] = {count: [] for count in options.landmarks}
        for _ in range(options.repeats):
            for count, runs in timed.items():
                began = time.process_time()
                encoding = ours(source, target, marks[:count], encoder, recipe)
                middle = time.process_time()
                kept(source, target, marks[:count], encoder, recipe)
                runs.append((middle - began, encoding, time.process_time() - middle))
        single = statistics.median(run[0] for run in timed[min(timed)])
        for count, runs in timed.items():
            whole, encoding, by_kept = (statistics.median(run[n] for run in runs) for n in range(3))
            seconds = rate = "not run"
            if single * count <= options.patience:
                print(f"{name}: mel's way for {count}", file=sys.stderr)
                began = time.process_time()
                mel(source, target, marks[:count], encoder, recipe)
                taken = time.process_time() - began
                seconds, rate = f"{taken:.1f}", f"{count / taken:.2f}"
            print(
                f"| {name} | {count} | {whole:.2f} | {encoding:.2f} | {whole / single - 1:+.1%} | "
                f"{count / whole:.1f} | {count / by_kept:.1f} | {seconds} | {rate} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
