"""Identities on generated videos: HOTA, IDF1, MOTA, switches, identities and co-visible merges of each method.

    python -m benchmarks.reid.run [--seeds 1 2 3 4 5 6 7 8] [--json FILE] [--stamps DIR]

Methods were tuned on seeds 101 to 106; the seeds reported are others. Each seed gives a video without twins and one
with three pairs of them. Our method runs twice, and the bytes of its result are compared.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks.reid.generator import World, make
from benchmarks.reid.methods import METHODS, Outcome, look
from patchatlas.reid.evaluate import co_visible_merges, purity, score_pairs, score_tracking, true_identities
from patchatlas.reid.motchallenge import write_rows

TUNED_ON = range(101, 107)
TWINS = {"base": 0, "twins": 3}


def measure(world: World, methods: Sequence[str]) -> list[dict[str, object]]:
    """Scores of each method on one video."""
    (episode,) = make(world)
    seen = look(episode)
    out = []
    for name in methods:
        start = time.process_time()
        outcome = METHODS[name](seen)
        seconds = time.process_time() - start
        record: dict[str, object] = {"method": name, "seed": world.seed, "twins": world.twins}
        record |= asdict(score_tracking(episode.truth, outcome.rows))
        record["identities"] = len({row.id for row in outcome.rows})
        record["frames_per_cpu_s"] = world.frames / max(seconds, 1e-9)
        if outcome.tracklets:
            record |= of_tracklets(outcome, true_identities(episode.truth, outcome.tracklets))
        if name == "ours":
            record["repeats"] = digest(outcome) == digest(METHODS[name](look(make(world)[0])))
        out.append(record | {"notes": outcome.notes})
    return out


def of_tracklets(outcome: Outcome, truth: Sequence[int | None]) -> dict[str, object]:
    """Scores of how tracklets were put together; those that show nobody do not count."""
    named = [
        (outcome.identities[tracklet.id], true, len(tracklet.observations))
        for tracklet, true in zip(outcome.tracklets, truth, strict=True)
        if true is not None and tracklet.id in outcome.identities
    ]
    found, true, boxes = (list(column) for column in zip(*named, strict=True))
    return {
        "co_visible_merges": len(co_visible_merges(outcome.tracklets, outcome.identities, truth)),
        "purity": purity(found, true, weights=boxes),
        "pair_f1": score_pairs(found, true).f1,
    }


def digest(outcome: Outcome) -> str:
    """SHA-256 of the MOTChallenge file that an outcome becomes."""
    with TemporaryDirectory() as folder:
        write_rows(Path(folder) / "result.txt", outcome.rows)
        return hashlib.sha256((Path(folder) / "result.txt").read_bytes()).hexdigest()


def table(records: Sequence[dict[str, object]], twins: int) -> str:
    """Mean and range over seeds, a method a line."""
    lines = [f"{'method':36} {'IDF1':>20} {'HOTA':>6} {'MOTA':>6} {'IDSW':>6} {'ids':>9} {'co-vis':>7} {'frames/s':>9}"]
    for name in dict.fromkeys(record["method"] for record in records):
        own = [record for record in records if record["method"] == name and record["twins"] == twins]

        def values(key: str, own: Sequence[dict[str, object]] = own) -> np.ndarray:
            return np.array([record.get(key, np.nan) for record in own], dtype=float)

        idf1, ids, merges = 100 * values("idf1"), values("identities"), values("co_visible_merges")
        hota, mota = 100 * values("hota").mean(), 100 * values("mota").mean()
        lines.append(
            f"{name!s:36} {idf1.mean():6.1f} [{idf1.min():.1f}-{idf1.max():.1f}]".ljust(57)
            + f" {hota:6.1f} {mota:6.1f} {values('id_switches').mean():6.1f}"
            + f" {f'{ids.min():.0f}-{ids.max():.0f}':>9} {'-' if np.isnan(merges).any() else f'{merges.sum():.0f}':>7}"
            + f" {np.median(values('frames_per_cpu_s')):9.0f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure all methods on all seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 9)))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--stamps", type=Path, help="folder of PNG files to draw people from")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    records = []
    for seed in given.seeds:
        for name, twins in TWINS.items():
            records += measure(World(seed=seed, twins=twins, stamps=given.stamps), given.methods)
            print(f"seed {seed}, {name}: done", file=sys.stderr)
    for name, twins in TWINS.items():
        print(f"\n{name}, seeds {given.seeds}" + (" (tuned on)" if set(given.seeds) & set(TUNED_ON) else ""))
        print(table(records, twins))
    repeats = [record["repeats"] for record in records if "repeats" in record]
    if repeats:
        print(f"\nsecond run of ours byte for byte the same: {sum(map(bool, repeats))} of {len(repeats)}")
    if given.json:
        given.json.write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
