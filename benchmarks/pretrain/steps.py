"""How long a training step takes, where its time goes, and what share of the machine's multiplications it uses.

    python -m benchmarks.pretrain.steps --size small --crop 96 --local 48 --batch 4 [--device cuda] [--compile] [--fp32]

Crops of noise are at hand, so nothing waits for a disk. FLOPs are those of all matrix products of a step (the teacher's
pass, the student's two passes and their gradients), counted by torch's FlopCounterMode without compiling and without
computing blocks again. MFU is their rate over that of one large matrix product, measured here in the same arithmetic:
so 1 is what this machine can do, not what its maker says.
"""

import argparse
import json
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from patchatlas.encoders.precision import choose_device
from patchatlas.geometry.frame import Frame
from patchatlas.pretrain.config import PretrainConfig, make_config
from patchatlas.pretrain.crops.records import Batch, CropRecord
from patchatlas.pretrain.distributed import Process
from patchatlas.pretrain.losses.ranks import ALONE
from patchatlas.pretrain.step import Learner, take_step
from patchatlas.pretrain.trainer import make_learner


def settings(args: argparse.Namespace) -> PretrainConfig:
    """A run of volumes of the size asked for."""
    head = {"prototypes": args.prototypes}
    return make_config(
        {
            "data": "noise",
            "crops": {"patch": 8, "globals": {"size": args.crop}, "locals": {"size": args.local, "count": args.locals}},
            "model": {"size": args.size},
            "dino_head": head,
            "ibot_head": head,
            "train": {
                "batch": args.batch,
                "device": args.device,
                "precision": "fp32" if args.fp32 else "bf16",
                "compile": args.compile,
                "checkpointing": args.checkpointing,
                "steps": 1000,
            },
        }
    )


def noise(config: PretrainConfig) -> Batch:
    """A batch of noise that is all foreground."""
    crops, b = config.crops, config.train.batch
    generator = torch.Generator().manual_seed(0)
    made, counts = {}, {}
    for name, scale in (("global", crops.globals), ("local", crops.locals)):
        counts[name] = scale.count
        tokens = 1
        for side, patch in zip(scale.size, crops.patch, strict=True):
            tokens *= side // patch
        made[f"{name}s"] = torch.rand(scale.count, b, crops.channels, *scale.size, generator=generator)
        made[f"{name}_foreground"] = torch.ones(scale.count, b, tokens)
        made[f"{name}_ratio"] = torch.ones(scale.count, b)
        made[f"{name}_pad"] = torch.zeros(scale.count, b, tokens, dtype=torch.bool)
    size = crops.globals.size
    record = CropRecord(
        volume="noise",
        start_zyx=(0, 0, 0),
        size_zyx=size,
        spacing=(1.0, 1.0, 1.0),
        fg_ratio=1.0,
        n_valid=1,
        flags=(),
        parent=-1,
        flips=(),
        frame=Frame.whole(size),
        threshold="body",
    )
    parent = torch.zeros(counts["local"], b, dtype=torch.int64)
    return Batch(**made, parent=parent, records=((record,) * (counts["global"] + counts["local"]),) * b)


def seconds(work: Callable[[], object], device: torch.device, *, repeats: int) -> float:
    """Median time of some work, once warm."""
    times = []
    for repeat in range(repeats + 2):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if repeat >= 2:
            times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2]


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs a second of one large matrix product."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / seconds(lambda: a @ b, device, repeats=9)


def measure(config: PretrainConfig, repeats: int) -> dict[str, float | str]:
    """Numbers of one setting."""
    device = choose_device(config.train.device)
    process = Process(ALONE, device)
    batch = noise(config).to(device)

    def stepper(config: PretrainConfig) -> tuple[Learner, Callable[[], object]]:
        learner = make_learner(config, process)
        return learner, lambda: take_step(learner, [batch], 500, config, process)

    plain = config.train.model_copy(update={"compile": False, "checkpointing": False})
    _, once = stepper(config.model_copy(update={"train": plain}))
    with FlopCounterMode(display=False) as counter:
        once()
    learner, step = stepper(config)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    took = seconds(step, device, repeats=repeats)
    rate = matmul_rate(device, torch.bfloat16 if learner.bf16 else torch.float32)
    numbers: dict[str, float | str] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "parameters_m": sum(p.numel() for p in learner.network.vit.parameters()) / 1e6,
        "step_s": took,
        "samples_a_second": config.train.batch / took,
        "crops_a_second": config.train.batch * (config.crops.globals.count + config.crops.locals.count) / took,
        "tflop_a_step": counter.get_total_flops() / 1e12,
        "tflops": counter.get_total_flops() / took / 1e12,
        "matmul_tflops": rate / 1e12,
        "mfu": counter.get_total_flops() / took / rate,
    }
    if device.type == "cuda":
        numbers["peak_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    return numbers


def main() -> None:
    """Measure one setting and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="small", help="pico, tiny, small, base or large")
    parser.add_argument("--crop", type=int, default=96, help="voxels along each axis of a global crop")
    parser.add_argument("--local", type=int, default=48, help="of a local crop")
    parser.add_argument("--locals", type=int, default=8, help="local crops a sample")
    parser.add_argument("--batch", type=int, default=4, help="samples a step")
    parser.add_argument("--prototypes", type=int, default=4096)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--fp32", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--checkpointing", action="store_true")
    args = parser.parse_args()
    print(json.dumps({**vars(args), **measure(settings(args), args.repeats)}, indent=1))


if __name__ == "__main__":
    main()
