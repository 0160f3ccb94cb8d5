"""Make the weights of `bundled:vit-tiny16` anew, from nothing but names of packages.

    python -m tools.bundled.train FOLDER

FOLDER gets `pictures` (see pictures.py and textures.py), `packages` and `teacher.safetensors` (see teacher.py) and the
two runs of the recipe, `first` and `second`; what is there already is kept, and a run that was stopped goes on. Then:

    python -m tools.bundled.pack FOLDER/second/encoder.safetensors --facts tools/bundled/recipe/vit-tiny16-facts.yaml
"""

import argparse
import contextlib
import sys
from pathlib import Path

import torch

from patchatlas.errors import PatchAtlasError
from patchatlas.pretrain.config import PretrainConfig, read_config
from patchatlas.pretrain.trainer import train
from tools import debian_data
from tools.bundled import pictures, teacher, textures

RUNS = ("first", "second")
"""Each begins from the encoder of the one before, as its config says."""
RECIPE = Path(__file__).with_name("recipe")
SHOWN = ("loss", "match", "match_accuracy", "distil", "distil_across", "samples_a_second")
"""Numbers of a step that are written as it goes."""


def main(argv: list[str] | None = None) -> int:
    """Fetch, train, say what is next; 1 where something cannot be had."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder: Path = parser.parse_args(argv).folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    threads = torch.get_num_threads()
    try:
        with contextlib.chdir(folder):  # a run keeps its settings with the paths in them, and FOLDER may be moved
            if not Path("pictures", "pictures.csv").is_file():
                textures.main(["pictures"])
                if pictures.main(["pictures"]):
                    return 1
            teacher.fetch(Path("packages").absolute())
            torch.set_num_threads(threads)  # pictures.py takes one
            known = teacher.Teacher(Path("pictures"), Path("teacher.safetensors"))
            for name in RUNS:
                outcome = train(settings(name), name, distilled=known, on_step=show)
                print(f"{name}: {outcome.sentence}")
                if outcome.good != outcome.done:
                    print(f"error: the run {name} ended in a collapse; nothing is made of it", file=sys.stderr)
                    return 1
    except (PatchAtlasError, debian_data.FetchError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"the weights: {folder / RUNS[-1] / 'encoder.safetensors'}; pack them with tools.bundled.pack")
    return 0


def settings(name: str) -> PretrainConfig:
    """Those of a run, its paths being relative to FOLDER."""
    return read_config(RECIPE / f"vit-tiny16-{name}.yaml")


def show(step: int, numbers: dict[str, float], level: str) -> None:
    """Write a line every 50 steps."""
    if step % 50 == 0:
        told = " ".join(f"{name} {value:.4f}" for name, value in numbers.items() if name in SHOWN)
        print(f"step {step}: {told} [{level}]", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
