"""How fast a training step is, over sizes of network and crop, arithmetic, and compiling: two Markdown tables.

    python -m benchmarks.pretrain [--sizes pico tiny small] [--crops 32 48] [--precisions fp32 bf16] [--compile off on]
    python -m benchmarks.pretrain --device cuda --sizes small base --crops 96 192 --batch 16 --compile off on

What the numbers mean: `steps.py`. Local crops have half the side of global ones. A setting that is done is printed at
once, with the load of the machine over the last minute.
"""

import argparse
import os
from itertools import product
from typing import Any

import torch

from benchmarks.pretrain.steps import PARTS, measure, settings
from patchatlas.pretrain.settings import SIZES

BATCH = {"pico": 8, "tiny": 4, "small": 2, "base": 1, "large": 1}
"""Samples a step, for one CPU core."""

HEAD = (
    "| network | crops | arithmetic | compiled | samples | step | crops a second | GFLOP | of a matrix product | load |"
)


def main() -> None:
    """Measure all settings asked for and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["pico", "tiny", "small"])
    parser.add_argument("--crops", nargs="+", type=int, default=[32, 48], help="voxels along each axis")
    parser.add_argument("--precisions", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--compile", nargs="+", choices=["off", "on"], default=["off"])
    parser.add_argument("--batch", type=int, help="samples a step; 8 for pico, 4 for tiny, 2 for small without it")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=5, help="steps, of which the median is taken")
    args = parser.parse_args()
    torch.set_num_threads(1)
    measured = []
    print(HEAD, "| --- " * HEAD.count("| ") + "|", sep="\n")
    for size, crop, precision, compiled in product(args.sizes, args.crops, args.precisions, args.compile):
        torch._dynamo.reset()
        config = settings(
            size=size,
            crop=crop,
            local=crop // 2,
            batch=args.batch or BATCH[size],
            device=args.device,
            precision=precision,
            compiled=compiled == "on",
        )
        numbers = measure(config, repeats=args.repeats)
        name = f"{size}, {crop}, {precision}" + (", compiled" if compiled == "on" else "")
        measured.append((name, numbers))
        print(row(size, crop, precision, compiled, config.train.batch, numbers), flush=True)
    print("\nWhere the time of a step goes, %:\n")
    print("| setting | " + " | ".join(PARTS) + " |", "| --- " * (len(PARTS) + 1) + "|", sep="\n")
    for name, numbers in measured:
        print(f"| {name} | " + " | ".join(shares(numbers["parts_s"])) + " |")


def row(size: str, crop: int, precision: str, compiled: str, batch: int, numbers: dict[str, Any]) -> str:
    """A line of the first table."""
    cells = [
        f"{size} ({numbers['parameters_m']:.1f} M)",
        f"{crop}, {crop // 2}",
        precision,
        "no" if compiled == "off" else f"yes, in {numbers['first_step_s']:.0f} s",
        str(batch),
        f"{numbers['step_s']:.2f} s",
        f"{numbers['crops_a_second']:.1f}",
        f"{1000 * numbers['tflop_a_step']:.0f}",
        f"{100 * numbers['mfu']:.0f} % of {1000 * numbers['matmul_tflops']:.0f} GFLOP/s",
        f"{os.getloadavg()[0]:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def shares(parts: dict[str, float]) -> list[str]:
    """Percent of the time of a step and the monitor after it that each part takes."""
    whole = sum(parts.values())
    return [f"{100 * parts[part] / whole:.0f}" for part in PARTS]


if __name__ == "__main__":
    main()
