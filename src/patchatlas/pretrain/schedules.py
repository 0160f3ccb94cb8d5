"""Settings that change in the course of a run, each a function of the optimiser step.

Steps count updates of the weights, however many micro-batches each took and however many processes there are: a
schedule that counted micro-batches would run ahead by the accumulation.
"""

import math
from dataclasses import dataclass

from patchatlas.pretrain.settings import OptimConfig


@dataclass(frozen=True)
class Schedule:
    """A value that rises linearly from `first`, then goes from `start` to `end` along half a cosine.

    Attributes:
        start: value at the end of the warm-up.
        end: value at the last step, and after it.
        steps: length of the run.
        warmup: steps of the linear rise, 0 for none.
        first: value at step 0 where there is a warm-up.
        shape: how the value goes from start to end: `cosine`, or `linear`.
    """

    start: float
    end: float
    steps: int
    warmup: int = 0
    first: float = 0.0
    shape: str = "cosine"

    def __call__(self, step: int) -> float:
        """The value at a step, counted from 0."""
        if step < self.warmup:
            return self.first + (self.start - self.first) * step / self.warmup
        last = max(1, self.steps - 1 - self.warmup)
        share = min(1.0, (step - self.warmup) / last)
        if self.shape == "linear":
            return self.start + (self.end - self.start) * share
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * share)) / 2


@dataclass(frozen=True)
class Schedules:
    """What changes from step to step.

    Attributes:
        lr: learning rate, before the factors of the parameter groups.
        weight_decay: likewise.
        momentum: of the teacher's moving average.
        teacher_temp: temperature of the teacher's targets.
        frozen_last: steps during which the prototypes stay as they are.
    """

    lr: Schedule
    weight_decay: Schedule
    momentum: Schedule
    teacher_temp: Schedule
    frozen_last: int

    @classmethod
    def of(cls, config: OptimConfig, *, steps: int, samples: int) -> "Schedules":
        """Those of a run of `steps` updates from `samples` samples each, over all micro-batches and processes."""
        lr = config.lr * math.sqrt(samples / 1024) if config.lr_rule == "sqrt_1024" else config.lr
        rise = config.teacher_temp_warmup
        return cls(
            lr=Schedule(lr, lr * config.lr_end, steps, warmup=min(config.warmup, steps)),
            weight_decay=Schedule(config.weight_decay, config.weight_decay_end, steps),
            momentum=Schedule(config.momentum, config.momentum_end, steps),
            teacher_temp=Schedule(config.teacher_temp, config.teacher_temp_end, rise + 1, shape="linear"),
            frozen_last=config.freeze_last,
        )
