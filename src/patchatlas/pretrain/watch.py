"""From a step to the numbers that are logged and judged."""

from patchatlas.pretrain.config import PretrainConfig
from patchatlas.pretrain.monitors.metrics import koleo_of_closest
from patchatlas.pretrain.monitors.monitor import Monitor
from patchatlas.pretrain.monitors.probes import gram_drift, relative_std
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
    norms = {f"grad/{part}": norm for part, norm in taken.norms.items()}
    numbers: dict[str, float] = {**taken.terms, **taken.modules, **norms, **taken.across}
    if "koleo" in numbers:
        numbers["koleo"] /= config.crops.globals.count  # a view, as the rule takes it
    if config.loss.trains_cls and taken.cls.shape[1] > 1:
        numbers["koleo_closest"] = koleo_of_closest(taken.cls)
    if taken.gram is not None:
        numbers["gram_drift"] = gram_drift(taken.patches.flatten(0, 1), taken.gram)
    numbers |= {
        "lr": schedules.lr(step),
        "weight_decay": schedules.weight_decay(step),
        "momentum": schedules.momentum(step),
        "teacher_temp": schedules.teacher_temp(step),
        "moved": float(taken.moved),
    }
    if step == 0 and config.loss.trains_cls:
        numbers["initial_std"] = relative_std(taken.cls.flatten(0, 1))
    return numbers


def show(monitor: Monitor, taken: Taken, step: int, config: PretrainConfig, schedules: Schedules) -> None:
    """Let a monitor see the rows and features of a step."""
    if taken.rows is not None:
        monitor.see_rows(taken.rows, temperature=schedules.teacher_temp(step))
    batch = taken.batch
    monitor.see_features(
        step,
        taken.cls if config.loss.trains_cls else None,
        taken.patches,
        token_foreground=batch.global_foreground.to(taken.patches.device),
        ratio=batch.global_ratio.to(taken.patches.device),
        threshold=config.loss.foreground.patch_threshold,
        pad=batch.global_pad.to(taken.patches.device),
    )
