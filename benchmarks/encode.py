"""How fast an encoder runs on this CPU: ours, transformers, and attention written out, on the same random weights.

    python benchmarks/encode.py [--models S B] [--sizes 224 448 896] [--batches 1 8] [--dtypes fp32 bf16]
                                [--threads 1] [--longest 8 | --full] [--json PATH]

Contenders, DINOv3 ViT-S/16 and ViT-B/16:

    ours          `load_encoder` of this package: takes pixels, normalises them itself
    transformers  DINOv3ViTModel as it comes (scaled_dot_product_attention); its input is normalised beforehand, untimed
    + oneDNN      the same with the setting for float32 matrix products that ours uses (fp32 only)
    written out   the same with softmax(q k^T / sqrt(e)) v in three steps, as attention was written before fused kernels

All run in turn, round after round, so that what disturbs the machine disturbs all of them; numbers are medians. With
one thread the clock is CPU time of the process, which other jobs on the machine lengthen only by way of the caches;
with more threads it is wall time. Before any timing the tokens of ours and transformers are compared.

"of GEMM" is the share of the rate that one large linear of that network reaches in this process (the better of torch's
two libraries). Operations of a picture are counted from the shapes, with n patches, t = n + 5 tokens of d features, L
blocks, patches of p x p: L (24 t d^2 + 4 t^2 d) + 6 n p^2 d. Linears of a block take 2 t d (3d + d + 4d + 4d), its two
attention products 2 t^2 d each, the patch embedding 2 n (3 p^2) d.
"""

import argparse
import json
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
import transformers
from torch import Tensor
from transformers import AttentionInterface, DINOv3ViTConfig, DINOv3ViTModel

from patchatlas.encoders.catalogue import IMAGENET
from patchatlas.encoders.loading import load_encoder
from patchatlas.encoders.matmul import fast_float32, onednn_is_float32
from patchatlas.encoders.protocol import Encoder

SHAPES = {"S": (384, 6), "B": (768, 12)}
"""Features and heads; both have 12 blocks, patches of 16 and 4 registers."""

BLOCKS, PATCH, PREFIX = 12, 16, 5
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CPU = torch.device("cpu")

PARITY = {"fp32": 1e-4, "bf16": 0.5}
"""Tokens of the two may differ by this much. In bf16 transformers rounds the residual stream, ours does not."""

Run = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One line of the table; speeds in pictures a second by contender."""

    model: str
    dtype: str
    size: int
    batch: int
    difference: float
    rounds: int
    images_per_second: dict[str, float]
    gemm_gflops: float
    share_of_gemm: dict[str, float]


def written_out(
    module: torch.nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: None, scaling: float, **_: object
) -> tuple[Tensor, None]:
    """Attention in three steps, with the signature that transformers asks for."""
    assert mask is None
    assert not module.training
    return (torch.softmax(q @ k.transpose(-1, -2) * scaling, dim=-1) @ v).transpose(1, 2).contiguous(), None


AttentionInterface.register("written_out", written_out)


def build(model: str, dtype: str, folder: Path) -> tuple[Encoder, DINOv3ViTModel, DINOv3ViTModel]:
    """Ours, transformers as it comes and with attention written out; all with the same weights."""
    dim, heads = SHAPES[model]
    config = DINOv3ViTConfig(
        hidden_size=dim, num_attention_heads=heads, intermediate_size=4 * dim, num_hidden_layers=BLOCKS,
        patch_size=PATCH, num_register_tokens=PREFIX - 1,
    )  # fmt: skip
    drawn = DINOv3ViTModel(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in drawn.named_parameters():
            if "lambda" in name:
                parameter.uniform_(0.05, 0.5, generator=generator)
            else:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.01)
    drawn.save_pretrained(folder)
    ours = load_encoder(folder, device=CPU, dtype=dtype)
    theirs, plain = (
        DINOv3ViTModel.from_pretrained(folder, attn_implementation=kind, dtype=DTYPES[dtype]).eval()
        for kind in ("sdpa", "written_out")
    )
    return ours, theirs, plain


def contenders(
    models: tuple[Encoder, DINOv3ViTModel, DINOv3ViTModel], dtype: str, pixels: Tensor
) -> tuple[dict[str, Run], float]:
    """What is timed, by name, and the largest difference between the patch tokens of ours and transformers."""
    ours, theirs, plain = models
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in IMAGENET)
    normalised = ((pixels - mean) / std).to(DTYPES[dtype])

    def with_onednn() -> None:
        with fast_float32(CPU):
            theirs(normalised)

    runs: dict[str, Run] = {"ours": lambda: ours(pixels), "transformers": lambda: theirs(normalised)}
    if dtype == "fp32" and onednn_is_float32():
        runs["+ oneDNN"] = with_onednn
    runs["written out"] = lambda: plain(normalised)
    expected = theirs(normalised).last_hidden_state[:, PREFIX:].float()
    return runs, (ours(pixels).patches - expected).abs().max().item()


def operations(model: str, size: int) -> float:
    """Floating-point operations of one picture, as the first lines of this file count them."""
    dim, _ = SHAPES[model]
    patches = (size // PATCH) ** 2
    tokens = patches + PREFIX
    return BLOCKS * (24 * tokens * dim**2 + 4 * tokens**2 * dim) + 6 * patches * PATCH**2 * dim


def medians(runs: dict[str, Run], *, clock: Callable[[], float], rounds: int) -> dict[str, float]:
    """Seconds of each, taken in turn."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = clock()
            run()
            taken[name].append(clock() - start)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def gemm_rate(model: str, dtype: str, clock: Callable[[], float]) -> float:
    """Operations a second of the first feed-forward linear over 2048 tokens, through the better of two libraries."""
    dim, _ = SHAPES[model]
    linear = torch.nn.Linear(dim, 4 * dim, dtype=DTYPES[dtype])
    x = torch.randn(2048, dim, generator=torch.Generator().manual_seed(0)).to(DTYPES[dtype])

    def faster() -> None:
        with fast_float32(CPU):
            linear(x)

    runs: dict[str, Run] = {"as it comes": lambda: linear(x), "oneDNN": faster}
    medians(runs, clock=clock, rounds=2)
    return 2 * 2048 * dim * 4 * dim / min(medians(runs, clock=clock, rounds=15).values())


def measure(args: argparse.Namespace, clock: Callable[[], float]) -> list[Row]:
    """All lines, each printed when it is there."""
    rows = []
    for model in args.models:
        for dtype in args.dtypes:
            with tempfile.TemporaryDirectory() as folder:
                models = build(model, dtype, Path(folder))
            for size, batch in ((size, batch) for size in args.sizes for batch in args.batches):
                rate = gemm_rate(model, dtype, clock)
                expected = batch * operations(model, size) / (0.7 * rate)
                if expected > args.longest and not args.full:
                    print(f"| {model} | {dtype} | {size} | {batch} | left out: about {expected:.0f} s a forward |")
                    continue
                pixels = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1))
                runs, difference = contenders(models, dtype, pixels)
                if not difference <= PARITY[dtype]:
                    raise SystemExit(
                        f"{model} {dtype} {size} px: tokens differ by {difference:.2g}; nothing to compare"
                    )
                rounds = max(args.rounds, min(15, round(5 / expected)))
                seconds = medians(runs, clock=clock, rounds=rounds)
                speeds = {name: batch / value for name, value in seconds.items()}
                shares = {name: speed * operations(model, size) / rate for name, speed in speeds.items()}
                rows.append(Row(model, dtype, size, batch, difference, rounds, speeds, rate / 1e9, shares))
                print(line(rows[-1]), flush=True)
    return rows


HEADER = """\
| model | dtype | px | batch | ours, img/s | transformers | ratio | + oneDNN | ratio | written out | ratio \
| GEMM GFLOP/s | ours of GEMM | transformers of GEMM | largest difference |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"""


def line(row: Row) -> str:
    """A row in Markdown."""
    ours = row.images_per_second["ours"]

    def cells(name: str) -> str:
        speed = row.images_per_second.get(name)
        return f"{speed:.3g} | {ours / speed:.2f}" if speed else "| "

    return (
        f"| {row.model} | {row.dtype} | {row.size} | {row.batch} | {ours:.3g} | {cells('transformers')} "
        f"| {cells('+ oneDNN')} | {cells('written out')} | {row.gemm_gflops:.0f} "
        f"| {row.share_of_gemm['ours']:.0%} | {row.share_of_gemm['transformers']:.0%} | {row.difference:.1e} |"
    )


def cpu_name() -> str:
    """Model, family and stepping where Linux tells them: cloud machines hide the name, not the family."""
    try:
        text = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except FileNotFoundError:
        return platform.processor()
    facts = dict(part.split("\t", 1) for part in text.splitlines() if "\t" in part)
    told = {key: value.strip("\t :") for key, value in facts.items()}
    return f"{told.get('model name', 'unknown')}, family {told.get('cpu family')}, model {told.get('model')}"


def commit() -> str:
    """Of the checkout that this file lies in."""
    root = Path(__file__).parents[1]
    given = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, check=False
    )
    return given.stdout.strip() or "unknown"


def main() -> None:
    """Measure, print a Markdown table, write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--sizes", nargs="+", type=int, default=[224, 448, 896], help="multiples of 16")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="at least; short ones get up to 15")
    parser.add_argument("--longest", type=float, default=8.0, help="seconds; longer forwards are left out")
    parser.add_argument("--full", action="store_true", help="leave nothing out")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    clock = time.process_time if args.threads == 1 else time.perf_counter
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "cpu": cpu_name(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": args.threads,
        "clock": "CPU time" if args.threads == 1 else "wall time",
        "onednn_is_float32": onednn_is_float32(),
    }
    print(", ".join(f"{key} {value}" for key, value in facts.items()), HEADER, sep="\n\n", flush=True)
    rows = measure(args, clock)
    if args.json:
        args.json.write_text(json.dumps({**facts, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
