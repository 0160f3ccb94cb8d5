"""Do one run of the recipe: a config, the pictures that it learns from, and the teacher that it names.

    python -m tools.bundled.train tools/bundled/recipe/vit-tiny16.yaml --data PICTURES --output RUN [--set a.b=c ...]

The teacher's packages must be on PYTHONPATH; see teacher.py. Stopped at any moment, the same command goes on.
"""

import argparse
import sys
from pathlib import Path

from patchatlas.pretrain.config import read_config
from patchatlas.pretrain.trainer import train
from tools.bundled.teacher import Teacher


def main() -> int:
    """Train, or go on."""
    parser = argparse.ArgumentParser(prog="python -m tools.bundled.train", description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder that tools.bundled.pictures made")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    options = parser.parse_args()
    config = read_config(options.config, [*options.set, f"data={options.data}"])

    def show(step: int, numbers: dict[str, float], level: str) -> None:
        if step % 50 == 0:
            told = " ".join(f"{name} {value:.4f}" for name, value in numbers.items() if name in SHOWN)
            print(f"step {step}: {told} [{level}]", file=sys.stderr, flush=True)

    outcome = train(config, options.output, distilled=Teacher(options.data), on_step=show)
    print(f"{outcome.encoder} after {outcome.done} steps: {outcome.sentence}")
    return 0


SHOWN = ("loss", "match", "match_accuracy", "distil", "distil_across", "samples_a_second")
"""Numbers of a step that are written as it goes."""

if __name__ == "__main__":
    sys.exit(main())
