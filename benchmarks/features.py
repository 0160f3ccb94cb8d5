"""How fast a folder of pictures becomes files of dense features on this CPU: ours and what else there is.

    python benchmarks/features.py --peers-python PATH [--sets mixed camera tiny] [--rounds 3] [--quick]
                                  [--json PATH]        with --json, a run that was stopped goes on where it ended

docs/benchmarks-features.md says how to make the peers' environment, and has results. Everyone gets the same JPEGs and
the same random DINOv3 ViT-S/16, drawn anew from a seed (features_pictures.py):

    mixed   pictures of five ratios whose sides are 0 to 15 px beyond those of a bucket of about 480 x 480: 12 blocks,
            so that the network takes the time; dinotool brings each to the size of its bucket, as patchatlas does
    camera  12 megapixels: 2 blocks, so that decoding takes the time
    tiny    about 96 x 96 px: 2 blocks, so that all that is done once a picture takes the time

Contenders (features_ours.py, features_peers.py):

    patchatlas           patches, CLS and registers of each picture in files of their own, synced to the disk, with
                         hashes in a manifest; fp32 stored as fp32, or bf16 stored as fp16, which is what it does unless
                         told otherwise on a CPU that has bf16
    dinotool             unmodified, fp32: patches of length 1 (it always divides by their length), one NetCDF file a
                         picture
    dinotool squashed    the same with --input-size and --batch-size 8, its only way to batch: all pictures stretched to
                         one size, and at the end joined to one zarr store
    transformers single  its processor and model, fp32, one picture at a time, np.save
    transformers fixed   the same in batches of 8, all pictures stretched to one size
    transformers shapes  the same in batches of 8 of one shape
    earlier              the earlier project's way: one at a time, fp32, Pillow's bicubic, np.save; its slip put right
    model alone          our network on the batches of patchatlas, pixels in memory, nothing stored

All run in turn, round after round, each in a process of its own that stays, after a first run that is not counted. Time
is wall time from the folder to the last file, without starting Python and loading weights, which "start" gives once (a
whole `patchatlas` or `dinotool` command takes both). Peak memory is the largest resident set of that process. "of
products" is the share of the rate that large matrix products reach on this machine in the same round; operations of a
picture are counted from the shapes, n patches, t = n + 5 tokens of d features, L blocks, patches of p x p:
L (24 t d^2 + 4 t^2 d) + 6 n p^2 d. "cosine" is the mean over all patches between the files of a contender and those of
patchatlas in fp32: less than 1 where pictures are resized by another rule.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from encode import commit, cpu_name
from features_child import MODEL, Child, Job
from features_pictures import PATCH, SETS, PictureSet, draw, save_weights

from patchatlas.geometry.buckets import Hw, bucket_name
from patchatlas.io.manifest import read_manifest

HERE = Path(__file__).parent
OURS = ("patchatlas, fp32", "patchatlas, bf16")
FAST = "patchatlas, fp32, --decode fast"
BOUNDS = ("model alone, fp32", "model alone, bf16", "products, fp32", "products, bf16")
PEERS = (
    "dinotool", "dinotool squashed", "transformers single", "transformers fixed", "transformers shapes", "earlier",
)  # fmt: skip
DIM, PREFIX = 384, 5

Facts = dict[str, Any]


def ways(one: PictureSet) -> tuple[str, ...]:
    """Everything that is run on a set, in the order of a round."""
    if one.name == "camera":  # at its own size a picture has 47 thousand patches
        return (*OURS, FAST, *(peer for peer in PEERS if peer != "dinotool"), *BOUNDS)
    return (*OURS, *PEERS, *BOUNDS)


def operations(size: Hw, layers: int) -> float:
    """Floating-point operations of one picture, as the first lines of this file count them."""
    patches = size[0] * size[1] // PATCH**2
    tokens = patches + PREFIX
    return layers * (24 * tokens * DIM**2 + 4 * tokens**2 * DIM) + 6 * patches * PATCH**2 * DIM


def prepare(one: PictureSet, work: Path, *, count: int) -> tuple[Job, Job]:
    """Draw pictures and weights; the job of a run, and that of the first one that is not counted."""
    jobs = []
    for name, number in ((one.name, count), (f"{one.name}-first", len(one.table))):
        shapes = draw(one, work / name, count=number)
        jobs.append(
            {
                "weights": str(work / f"weights-{one.layers}"),
                "pictures": str(work / name),
                "size": one.table[0],
                "table": one.table,
                "shapes": shapes,
            }
        )
    weights = work / f"weights-{one.layers}" / MODEL
    if not weights.exists():
        save_weights(weights, layers=one.layers)
    return jobs[0], jobs[1]


@contextmanager
def children(names: tuple[str, ...], peers_python: Path) -> Iterator[dict[str, Child]]:
    """A process for each contender, and one for all bounds."""
    started: dict[str, Child] = {}
    for name in names:
        if name in BOUNDS[1:]:
            started[name] = started[BOUNDS[0]]
            continue
        peer = name in PEERS
        script = "features_peers.py" if peer else "features_ours.py"
        started[name] = Child([str(peers_python if peer else sys.executable), str(HERE / script), "serve"])
    try:
        yield started
    finally:
        for child in set(started.values()):
            child.end()


def measure(one: PictureSet, args: argparse.Namespace, work: Path, facts: Facts, save: Any) -> None:
    """Add rounds to `facts` until there are as many as asked for; tell of each by calling `save`."""
    count = one.count[args.quick]
    found = facts["sets"].setdefault(one.name, {"pictures": count, "rounds": [], "processes": {}, "cosine": {}})
    if len(found["rounds"]) >= args.rounds and found["processes"]:
        return
    job, first = prepare(one, work, count=count)
    found["operations"] = sum(operations(tuple(shape), one.layers) for shape in job["shapes"].values())
    found["tokens"] = sum(h * w // PATCH**2 for h, w in job["shapes"].values())
    with children(ways(one), args.peers_python) as started:
        if "peers" not in facts:
            facts["peers"] = started["earlier"].ask({})
        for name, child in started.items():
            _run(child, name, first, work)
        while len(found["rounds"]) < args.rounds:
            row: dict[str, Any] = {"load": os.getloadavg()[0]}
            files: dict[str, dict[str, Path]] = {}
            for name, child in started.items():
                row[name] = _run(child, name, job, work)
                if not found["rounds"] and not name.startswith(("model", "products")):
                    found["cosine"][name] = cosine(name, work, files)
            found["rounds"].append(row)
            print(f"{one.name}: round {len(found['rounds'])} of {args.rounds}", file=sys.stderr, flush=True)
            save()
    for name, command in commands(one, job, args, work).items():
        start = time.perf_counter()
        subprocess.run(command, cwd=job["weights"], check=True, capture_output=True)
        found["processes"][name] = time.perf_counter() - start
        save()


def _run(child: Child, name: str, job: Job, work: Path) -> dict[str, float]:
    out = _fresh(work / "out" / name.replace(", ", "-").replace(" ", "-"))
    answer = child.ask({**job, "way": name, "out": str(out)})
    answer["bytes"] = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return answer


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def cosine(name: str, work: Path, files: dict[str, dict[str, Path]]) -> float | None:
    """Mean cosine between the patches in the files of a contender and ours; None where the files are of another kind.

    Args:
        name: the contender, which has just run.
        work: where its files are.
        files: ours, by picture; filled in when ours has run.
    """
    out = work / "out" / name.replace(", ", "-").replace(" ", "-")
    if name.startswith("patchatlas"):
        theirs = {
            Path(record.image_path).stem: out / "derived" / record.features["dinov3_patches"].file
            for record in read_manifest(out / "dataset.jsonl")
        }
        files.setdefault("ours", theirs)
    else:
        theirs = {path.stem.removesuffix("_patches"): path for path in out.glob("*_patches.npy")}
    values = []
    for stem, path in theirs.items():
        a, b = (np.load(p).astype(np.float64) for p in (files["ours"][stem], path))
        if a.shape != b.shape:  # stretched to one size
            return None
        values.append((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))
    return float(np.concatenate(values).mean()) if values else None


def commands(one: PictureSet, job: Job, args: argparse.Namespace, work: Path) -> dict[str, list[str]]:
    """Whole commands, as a user types them."""
    ours = _fresh(work / "out" / "command-ours")
    table = work / f"{one.name}.txt"
    table.write_text("".join(f"{bucket_name(bucket)}\n" for bucket in one.table))
    patchatlas = [sys.executable, "-m", "patchatlas.cli", "features", "build", "--input-dir", job["pictures"]]
    patchatlas += ["--output-jsonl", str(ours / "dataset.jsonl"), "--encoder", MODEL, "--buckets", str(table)]
    fp32 = [*patchatlas, "--precision", "fp32", "--dtype", "fp32", "--device", "cpu"]
    out = _fresh(work / "out" / "command-dinotool")
    dinotool = [str(args.peers_python), str(HERE / "features_peers.py"), "dinotool", job["pictures"], "-o"]
    dinotool += [str(out / "features"), "-m", MODEL, "-s", "full", "--no-vis", "--force"]
    if one.name == "camera":
        rows, columns = job["size"]
        dinotool += ["--input-size", str(columns), str(rows), "--batch-size", "8"]
    return {"patchatlas, fp32": fp32, "dinotool": dinotool}


def table(one: PictureSet, found: Facts) -> str:
    """What was measured on a set, in Markdown."""
    rounds, count = found["rounds"], found["pictures"]
    loads = [row["load"] for row in rounds]
    names = [name for name in ways(one) if not name.startswith("products")]
    work = {name: [row[name]["work"] for row in rounds] for name in names}
    middle = {name: statistics.median(work[name]) for name in names}
    rates = {p: statistics.median(row[f"products, {p}"]["rate"] for row in rounds) for p in ("fp32", "bf16")}
    lines = [
        f"### {one.name}: {count} pictures, {found['tokens'] / count:.0f} patches each, {one.layers} blocks; "
        f"{one.bound} takes the time",
        "",
        f"Rounds: {len(rounds)}; load when each began: {', '.join(f'{load:.1f}' for load in loads)}. Products: "
        f"{rates['fp32'] / 1e9:.0f} GFLOP/s in fp32, {rates['bf16'] / 1e9:.0f} in bf16.",
        "",
        "| | img/s, median | best | patchatlas fp32 is so many times as fast | bf16 | of products | peak MB "
        "| MB written | cosine |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name in names:
        precision = "bf16" if "bf16" in name else "fp32"
        share = found["operations"] / middle[name] / rates[precision]
        peak, written = (max(row[name][key] for row in rounds) for key in ("peak", "bytes"))
        near = found["cosine"].get(name)
        ratios = " | ".join(f"{middle[name] / middle[ours]:.2f}" for ours in OURS)
        lines.append(
            f"| {name} | {count / middle[name]:.2f} | {count / min(work[name]):.2f} | {ratios} | {share:.0%} "
            f"| {peak:.0f} | {f'{written / 1e6:.1f}' if written else ''} | {'' if near is None else f'{near:.4f}'} |"
        )
    ends = {
        precision: statistics.median(row[f"model alone, {precision}"]["work"] / row[ours]["work"] for row in rounds)
        for precision, ours in zip(("fp32", "bf16"), OURS, strict=True)
    }
    shares = ", ".join(f"{precision} {end:.0%}" for precision, end in ends.items())
    lines += ["", f"End to end, of the speed of the model alone: {shares}."]
    if found["processes"]:
        whole = ", ".join(f"`{name}` {seconds:.1f} s" for name, seconds in found["processes"].items())
        lines += ["", f"Whole commands, from the shell's prompt to the next: {whole}."]
    return "\n".join(lines)


def main() -> None:
    """Measure, print Markdown tables, keep JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers-python", type=lambda text: Path(text).absolute(), required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="fewer pictures")
    parser.add_argument("--json", type=Path, help="where results are kept, and continued from")
    args = parser.parse_args()
    kept = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    facts: Facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "quick": args.quick,
        "sets": {},
    }
    if kept:
        if kept["quick"] != args.quick:
            raise SystemExit(f"{args.json} has results of {'a quick' if kept['quick'] else 'a full'} run; name another")
        facts = kept

    def save() -> None:
        if args.json:
            args.json.write_text(json.dumps(facts, indent=1) + "\n")

    with tempfile.TemporaryDirectory() as folder:
        for name in args.sets:
            measure(SETS[name], args, Path(folder), facts, save)
    print(", ".join(f"{key} {value}" for key, value in facts.items() if key not in ("sets", "peers")))
    print(", ".join(f"{key} {value}" for key, value in facts["peers"].items()))
    for name in args.sets:
        print("", table(SETS[name], facts["sets"][name]), sep="\n", flush=True)


if __name__ == "__main__":
    main()
