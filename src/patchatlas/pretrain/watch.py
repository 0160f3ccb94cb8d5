"""From a step to the numbers that are logged and judged."""

from itertools import combinations

from patchatlas.pretrain.config import PretrainConfig
from patchatlas.pretrain.crops.records import Batch
from patchatlas.pretrain.losses.weights import PairWeights
from patchatlas.pretrain.monitors.metrics import crop_numbers, divergence, row_entropy
from patchatlas.pretrain.monitors.monitor import Monitor
from patchatlas.pretrain.monitors.probes import relative_std
from patchatlas.pretrain.schedules import Schedules
from patchatlas.pretrain.settings import OptimConfig
from patchatlas.pretrain.step import Taken

YOUNG = 200
"""Steps in which a network is too young to be judged by its features, however short the warm-ups. At the start class
tokens of some networks are all alike (cosine above 0.9), and in real runs RankMe of foreground tokens fell from 0.7 to
0.45 of their length by this step and then stayed."""


def grown(optim: OptimConfig) -> int:
    """The step from which on a run is judged if its config does not say: warm-ups are over, and it is not young."""
    return max(YOUNG, optim.warmup, optim.teacher_temp_warmup)


def observe(taken: Taken, step: int, config: PretrainConfig, schedules: Schedules) -> dict[str, float]:
    """Numbers of a step, by the names that `monitors.Monitor.update` knows, and those that are only logged."""
    numbers: dict[str, float] = {**taken.terms, **{f"grad/{part}": norm for part, norm in taken.norms.items()}}
    if "koleo" in numbers:
        numbers["koleo"] /= config.crops.globals.count  # a view, as the rule takes it
    numbers |= {
        "lr": schedules.lr(step),
        "weight_decay": schedules.weight_decay(step),
        "momentum": schedules.momentum(step),
        "teacher_temp": schedules.teacher_temp(step),
        "moved": float(taken.moved),
    }
    if taken.targets is not None:
        numbers["row_entropy"] = row_entropy(taken.targets)
    if taken.pair is not None:
        numbers |= divergence(*taken.pair, student_temp=config.loss.dino.student_temp)
    if step == 0:
        numbers["initial_std"] = relative_std(taken.cls.flatten(0, 1))
    numbers.update(crops_of(taken.batch, taken.shares.pairs))
    return numbers


def crops_of(batch: Batch, pairs: PairWeights) -> dict[str, float]:
    """What the crops of a micro-batch hold and how they are weighed."""
    g = len(batch.globals)
    ratios = {"globals": batch.global_ratio.flatten().tolist(), "locals": batch.local_ratio.flatten().tolist()}
    weight = pairs.values.sum(1)  # of each student view
    weights = {"globals": weight[:g].flatten().tolist(), "locals": weight[g:].flatten().tolist()}
    return crop_numbers(
        ratios,
        flags=[record.flag for records in batch.records for record in records],
        overlaps=[one.overlap(other) for records in batch.records for one, other in combinations(records[:g], 2)],
        weights={kind: given for kind, given in weights.items() if given},
    )


def show(monitor: Monitor, taken: Taken, step: int, config: PretrainConfig, schedules: Schedules) -> None:
    """Let a monitor see the rows and features of a step."""
    if taken.rows is not None:
        monitor.see_rows(taken.rows, temperature=schedules.teacher_temp(step))
    batch = taken.batch
    monitor.see_features(
        step,
        taken.cls,
        taken.patches,
        token_foreground=batch.global_foreground.to(taken.patches.device),
        ratio=batch.global_ratio.to(taken.patches.device),
        threshold=config.loss.foreground.patch_threshold,
        pad=batch.global_pad.to(taken.patches.device),
    )
