"""How well `locate` finds marks, and knows when it has not; beside chance, peers, an oracle and a control.

    python -m benchmarks.locate [--encoders sift raw vit-0] [--split dev] [--sets homography twins ...] [--cases 10]
                                [--methods batch views ...] [--options] [--json FOLDER]

Sets are those of sets.py, drawn anew from seeds, and `photos` (see photos.py). Encoders: `sift`, `raw` 16 x 16 patches,
`vit-SEED` a random ViT-S/16, or whatever `--encoder` of the commands takes. With `--options` every option of the recipe
is measured alone. Tables are Markdown on stdout.
"""

import argparse
import sys
from pathlib import Path

import torch

from benchmarks.locate import photos
from benchmarks.locate.encoders import open_encoder
from benchmarks.locate.methods import CENTRES, LAYERS, METHODS, OPTIONS, POSITION, TURNS
from benchmarks.locate.metrics import alarms
from benchmarks.locate.run import CONFIDENCE, PLACES, ask_all, by, interval_table, state_table, table
from benchmarks.locate.sets import KINDS, SEEDS, case
from patchatlas.encoders.vit_encoder import VitEncoder


def main() -> int:
    """Read the options, ask, report; 1 where an alarm went off."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.locate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoders", nargs="+", default=["sift"])
    parser.add_argument("--split", choices=SEEDS, default="dev")
    parser.add_argument("--sets", nargs="+", choices=(*KINDS, "photos"), default=list(KINDS))
    parser.add_argument("--cases", type=int, default=10, help="cases a drawn set")
    named = METHODS | OPTIONS | TURNS | POSITION | LAYERS
    parser.add_argument("--methods", nargs="+", choices=named, default=list(METHODS), metavar="METHOD")
    parser.add_argument("--options", action="store_true", help="each option of the recipe too")
    parser.add_argument("--image-size", type=int, default=384, help="long side as the encoder sees it")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="folder for every single answer, ENCODER-SPLIT.json")
    options = parser.parse_args()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    cases = [
        case(kind, seed, options.split)
        for kind in options.sets
        if kind != "photos"
        for seed in SEEDS[options.split][: options.cases]
    ]
    if "photos" in options.sets:
        cases += photos.cases(options.split)
    went_off = False
    for name in options.encoders:
        encoder = open_encoder(name, device=options.device)
        methods = {method: named[method] for method in options.methods}
        if options.options:
            methods |= OPTIONS | TURNS | (POSITION | LAYERS if isinstance(encoder, VitEncoder) else {})
        run = ask_all(cases, encoder, methods, image_size=options.image_size, progress=_progress)
        if options.json is not None:
            options.json.mkdir(parents=True, exist_ok=True)
            run.save(options.json / f"{name.replace('/', '_').replace(':', '_')}-{options.split}.json")
        marks = next(iter(run.answers.values()))
        present = int(marks.present.sum())
        print(f"\n## {name}, {options.split}: {present} marks present and {len(marks.case) - present} absent\n")
        print(table(run.answers, PLACES, cost=run.cost))
        print(f"\n{table(run.answers, CONFIDENCE)}\n\n{state_table(run.answers)}\n\n{interval_table(run.answers)}")
        for column in ("kind", "family"):
            for part, of_part in by(run.answers, column).items():
                print(f"\n### {name}, {part}\n\n{table(of_part, (*PLACES, *CONFIDENCE))}")
        for alarm in alarms(run.answers, centres=[method for method in CENTRES if method in run.answers]):
            print(f"\nALARM: {name}: {alarm}")
            went_off = True
    return int(went_off)


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
