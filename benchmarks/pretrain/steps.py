"""How long a training step takes, where its time goes, and what share of the machine's multiplications it uses.

    python -m benchmarks.pretrain --sizes pico tiny small --crops 32 48 --precisions fp32 bf16
    python -m benchmarks.pretrain.steps --size small --crop 96 --local 48 --batch 4 [--device cuda] [--compile] [--fp32]

The first is a table over several settings (`__main__.py`), the second one setting as JSON. Crops of noise are at hand,
so nothing waits for a disk. FLOPs are those of all matrix products and attention of a step (the teacher's pass, the
student's passes and their gradients), counted by torch's FlopCounterMode without compiling and without computing blocks
again. MFU is their rate over that of one large matrix product, measured here in the same arithmetic and right after the
steps: so 1 is what this machine can do, not what its maker says.

On a CPU one thread works, and its own processor time is what counts, so that other programs on the machine do not (but
for the caches and memory that they share). Elsewhere it is the time of a clock, the device waited for.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from patchatlas.encoders.matmul import fast_float32
from patchatlas.encoders.precision import choose_device
from patchatlas.geometry.frame import Frame
from patchatlas.pretrain import step as step_module
from patchatlas.pretrain.config import PretrainConfig, make_config
from patchatlas.pretrain.crops.records import Batch, CropRecord
from patchatlas.pretrain.distributed import Process
from patchatlas.pretrain.losses.ranks import ALONE
from patchatlas.pretrain.monitors.monitor import Monitor
from patchatlas.pretrain.step import Learner, take_step
from patchatlas.pretrain.trainer import make_learner
from patchatlas.pretrain.watch import observe, show

STEP = 500
"""Number of the step that is measured: schedules have warmed up, prototypes move, no spectra are looked at."""

WARM_UP = 2
"""Steps before the first that counts; the first of all compiles."""

Shape = tuple[int, ...]

PARTS = ("teacher", "targets", "student", "losses", "backward", "optimiser", "rest", "monitor")


def _forward_flop(query: Shape, key: Shape, value: Shape, *_rest: object, **_more: object) -> int:
    return sdpa_flop_count(query, key, value)


def _backward_flop(grad: Shape, query: Shape, key: Shape, value: Shape, *_rest: object, **_more: object) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


ATTENTION_ON_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _forward_flop,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward_flop,
}
"""FLOPs from shapes, for what FlopCounterMode of torch 2.13 does not know and would count as nothing."""


def settings(
    *,
    size: str,
    crop: int,
    local: int,
    batch: int,
    locals_count: int = 8,
    prototypes: int = 4096,
    device: str = "auto",
    precision: str = "bf16",
    compiled: bool = False,
    checkpointing: bool = False,
) -> PretrainConfig:
    """A run of volumes of the size asked for, all else as it is by default."""
    head = {"prototypes": prototypes}
    return make_config(
        {
            "data": "noise",
            "crops": {"patch": 8, "globals": {"size": crop}, "locals": {"size": local, "count": locals_count}},
            "model": {"size": size},
            "dino_head": head,
            "ibot_head": head,
            "train": {
                "batch": batch,
                "device": device,
                "precision": precision,
                "compile": compiled,
                "checkpointing": checkpointing,
                "steps": 2 * STEP,
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


def now(device: torch.device) -> float:
    """Seconds: of this process on a CPU, of the clock elsewhere, when the device has done what it was told."""
    if device.type == "cpu":
        return time.process_time()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds(work: Callable[[], object], device: torch.device, *, repeats: int) -> float:
    """Median time of some work, once warm."""
    times = []
    for repeat in range(repeats + WARM_UP):
        began = now(device)
        work()
        if repeat >= WARM_UP:
            times.append(now(device) - began)
    return sorted(times)[len(times) // 2]


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs a second of one large matrix product, the faster way where there are two."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    plain = seconds(lambda: a @ b, device, repeats=9)
    with fast_float32(device):
        other = seconds(lambda: a @ b, device, repeats=9)
    return 2 * side**3 / min(plain, other)


class Parts:
    """Time by part of a step, between the points where one part begins and ends.

    Args:
        device: whose time it is.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.spent: dict[str, float] = defaultdict(float)

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Within, time is this part's."""
        began = now(self.device)
        yield
        self.spent[part] += now(self.device) - began

    def timed(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its time this part's."""

        def call(*args: Any, **kwargs: Any) -> Any:
            with self.of(part):
                return work(*args, **kwargs)

        return call


def parts_of_step(learner: Learner, batch: Batch, config: PretrainConfig, process: Process) -> dict[str, float]:
    """Seconds of a step by part; the last one, the monitor, comes after it."""
    parts = Parts(process.device)
    objective = learner.objective
    replaced: list[tuple[object, str, str]] = [
        (learner.teacher, "forward", "teacher"),
        (learner.wrapped, "forward", "student"),
        (objective, "goals", "targets"),
        (objective, "terms", "losses"),
        (Tensor, "backward", "backward"),
        (step_module, "clip", "optimiser"),
        (learner.optimiser, "step", "optimiser"),
        (step_module, "follow", "optimiser"),
    ]
    patches = [mock.patch.object(on, name, parts.timed(part, getattr(on, name))) for on, name, part in replaced]
    for patch in patches:
        patch.start()
    with parts.of("whole"):
        taken = take_step(learner, [batch], STEP, config, process)
    for patch in patches:
        patch.stop()
    parts.spent["rest"] = parts.spent.pop("whole") - sum(parts.spent.values())
    monitor = Monitor(config.monitor, seed=0, warm_up=0)
    with parts.of("monitor"):
        numbers = observe(taken, STEP, config, learner.schedules)
        show(monitor, taken, STEP, config, learner.schedules)
        monitor.update(STEP, numbers)
    return {part: parts.spent[part] for part in PARTS}


def measure(config: PretrainConfig, *, repeats: int) -> dict[str, Any]:
    """Numbers of one setting."""
    device = choose_device(config.train.device)
    process = Process(ALONE, device)
    batch = noise(config).to(device)

    def stepper(config: PretrainConfig) -> tuple[Learner, Callable[[], object]]:
        learner = make_learner(config, process)
        return learner, lambda: take_step(learner, [batch], STEP, config, process)

    plain = config.train.model_copy(update={"compile": False, "checkpointing": False})
    _, once = stepper(config.model_copy(update={"train": plain}))
    with FlopCounterMode(display=False, custom_mapping=ATTENTION_ON_CPU) as counter:
        once()
    began = time.perf_counter()
    learner, step = stepper(config)
    step()
    first = time.perf_counter() - began
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    took = seconds(step, device, repeats=repeats)
    each = [parts_of_step(learner, batch, config, process) for _ in range(repeats)]
    rate = matmul_rate(device, torch.bfloat16 if learner.bf16 else torch.float32)
    numbers: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "parameters_m": sum(p.numel() for p in learner.network.vit.parameters()) / 1e6,
        "first_step_s": first,
        "step_s": took,
        "samples_a_second": config.train.batch / took,
        "crops_a_second": config.train.batch * (config.crops.globals.count + config.crops.locals.count) / took,
        "tflop_a_step": counter.get_total_flops() / 1e12,
        "tflops": counter.get_total_flops() / took / 1e12,
        "matmul_tflops": rate / 1e12,
        "mfu": counter.get_total_flops() / took / rate,
        "parts_s": {part: sorted(one[part] for one in each)[repeats // 2] for part in PARTS},
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
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--fp32", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--checkpointing", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = settings(
        size=args.size,
        crop=args.crop,
        local=args.local,
        batch=args.batch,
        locals_count=args.locals,
        prototypes=args.prototypes,
        device=args.device,
        precision="fp32" if args.fp32 else "bf16",
        compiled=args.compile,
        checkpointing=args.checkpointing,
    )
    print(json.dumps({**vars(args), **measure(config, repeats=args.repeats)}, indent=1))


if __name__ == "__main__":
    main()
