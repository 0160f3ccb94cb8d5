"""Make the weights of `bundled:vit-tiny16` anew, from nothing but names of packages.

    python -m tools.bundled.train FOLDER

FOLDER gets `pictures` (see pictures.py and textures.py), `packages` (the teacher's, see teacher.py) and the two runs of
the recipe, `first` and `second`; what is there already is kept, and a run that was stopped goes on. Then:

    python -m tools.bundled.pack FOLDER/second/encoder.safetensors --facts tools/bundled/recipe/vit-tiny16-facts.yaml
"""

import argparse
import sys
from pathlib import Path

from patchatlas.errors import PatchAtlasError
from patchatlas.pretrain.config import PretrainConfig, read_config
from patchatlas.pretrain.trainer import train
from tools import debian_data
from tools.bundled import pictures, teacher, textures

RECIPE = Path(__file__).with_name("recipe")
SHOWN = ("loss", "match", "match_accuracy", "distil", "distil_across", "samples_a_second")
"""Numbers of a step that are written as it goes."""


def main(argv: list[str] | None = None) -> int:
    """Fetch, train, say what is next; 1 where something cannot be had."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder: Path = parser.parse_args(argv).folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "pictures"
    if not (data / "pictures.csv").is_file():
        textures.main([str(data)])
        if pictures.main([str(data)]):
            return 1
    try:
        teacher.fetch(folder / "packages")
        known = teacher.Teacher(data)
        for name in ("first", "second"):
            outcome = train(settings(name, folder), folder / name, distilled=known, on_step=show)
            print(f"{name}: {outcome.sentence}")
    except (PatchAtlasError, debian_data.FetchError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"the weights: {folder / 'second' / 'encoder.safetensors'}; pack them with tools.bundled.pack")
    return 0


def settings(name: str, folder: Path) -> PretrainConfig:
    """Those of a run, `first` or `second`, with the places of what it needs filled in."""
    changes = [f"data={folder / 'pictures'}"]
    if name == "second":
        changes.append(f"model.weights={folder / 'first' / 'encoder.safetensors'}")
    return read_config(RECIPE / f"vit-tiny16-{name}.yaml", changes)


def show(step: int, numbers: dict[str, float], level: str) -> None:
    """Write a line every 50 steps."""
    if step % 50 == 0:
        told = " ".join(f"{name} {value:.4f}" for name, value in numbers.items() if name in SHOWN)
        print(f"step {step}: {told} [{level}]", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
