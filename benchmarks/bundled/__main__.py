"""How good the bundled encoder is on what it never saw, beside SIFT, random weights, raw patches and EfficientNet.

    python -m benchmarks.bundled ENCODER ... --out FOLDER [--cases 4] [--frames 400] [--only pairs harness ...]

Encoders: see contenders.py; EfficientNet needs its packages on PYTHONPATH, as that file says. Everything runs in fp32
on one thread. FOLDER gets judge.json with every number and judge.md with one table, a line a measure; encoders that
judge.json has already, of the same weights, are taken from it.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.bundled import measures
from benchmarks.bundled.contenders import open_contender
from benchmarks.bundled.pairs import pairs
from patchatlas.encoders.protocol import Encoder

PARTS = ("pairs", "harness", "identities", "time")
DEFAULT = ("sift", "raw", "random-tiny-0", "effnet-16", "effnet-32")

Found = dict[str, dict[str, float]]
"""Numbers by set and measure."""


def main() -> int:
    """Judge the encoders."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bundled", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("encoders", nargs="*", default=list(DEFAULT), metavar="ENCODER")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=4, help="drawn cases of a kind of the locate harness")
    parser.add_argument("--frames", type=int, default=400, help="of the re-identification video")
    parser.add_argument("--seed", type=int, default=1, help="of the re-identification video")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    store = options.out / "judge.json"
    kept: dict[str, Any] = json.loads(store.read_text(encoding="utf-8")) if store.is_file() else {}
    settings = {"cases": options.cases, "frames": options.frames, "seed": options.seed}
    pictures = pairs() if "pairs" in options.only else []
    parts: dict[str, Callable[[Encoder], Found]] = {
        "pairs": lambda encoder: measures.of_pairs(pictures, encoder),
        "harness": lambda encoder: measures.of_harness(encoder, cases=options.cases),
        "identities": lambda encoder: measures.of_identities(encoder, seed=options.seed, frames=options.frames),
        "time": lambda encoder: {"time": {"ms per megapixel": measures.milliseconds(encoder)}},
    }
    for name in options.encoders:
        encoder = open_contender(name)
        facts = {"weights": encoder.spec.weights_sha256, **settings}
        if kept.get(name, {}).get("facts") != facts:
            kept[name] = {"facts": facts, "parts": {}}
        for part in options.only:
            if part not in kept[name]["parts"]:
                print(f"{name}: {part}", file=sys.stderr, flush=True)
                kept[name]["parts"][part] = parts[part](encoder)
                store.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    text = table({name: _joined(kept[name]["parts"]) for name in options.encoders})
    (options.out / "judge.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


def _joined(parts: dict[str, Found]) -> Found:
    return {name: numbers for part in PARTS for name, numbers in parts.get(part, {}).items()}


def table(found: dict[str, Found]) -> str:
    """Markdown: a line for each set and measure, a column for each encoder; the best of a line in bold."""
    lines = ["| | " + " | ".join(found) + " |", "| --- |" + " ---: |" * len(found)]
    sets = dict.fromkeys(name for numbers in found.values() for name in numbers)
    for name in sets:
        measured = dict.fromkeys(key for numbers in found.values() for key in numbers.get(name, {}) if key != "count")
        for measure in measured:
            values = [numbers.get(name, {}).get(measure) for numbers in found.values()]
            lines.append(f"| {name}: {measure} | " + " | ".join(_cells(measure, values)) + " |")
    return "\n".join(lines)


def _cells(measure: str, values: list[float | None]) -> list[str]:
    """Written numbers, the best in bold: the least of errors and times, the most of the rest; none if all are equal."""
    small = measure in ("mean", "median") or measure.startswith("ms")
    there = [value for value in values if value is not None]
    best = min(there) if small else max(there)
    equal = len(there) > 1 and len(set(there)) == 1
    cells = []
    for value in values:
        text = (
            ""
            if value is None
            else f"{value:.0f}"
            if measure.startswith("ms")
            else f"{value:.1f}"
            if small
            else f"{100 * value:.1f}"
        )
        cells.append(f"**{text}**" if value == best and not equal else text)
    return cells


if __name__ == "__main__":
    sys.exit(main())
