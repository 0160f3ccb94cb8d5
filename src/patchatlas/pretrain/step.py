"""One update of the weights: the teacher's passes, targets, the student's passes, one cut of the gradient, one move.

Per micro-batch the student makes one pass for each crop size and the teacher one. Everything random follows from the
seed, the step and the micro-batch.

Axes: g global and l local crops, b samples, c channels, n patch tokens, d features.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.optim import Optimizer

from patchatlas.encoders.inputs import patch_grid
from patchatlas.encoders.protocol import Encoder
from patchatlas.pretrain.across import crops_of_step, target_numbers
from patchatlas.pretrain.config import PretrainConfig
from patchatlas.pretrain.crops.records import Batch
from patchatlas.pretrain.data import numbers, samples_of_step
from patchatlas.pretrain.distilled import look
from patchatlas.pretrain.distributed import Process, gathering
from patchatlas.pretrain.masking import masks
from patchatlas.pretrain.matches import Matches, find_matches
from patchatlas.pretrain.monitors.metrics import grad_norms
from patchatlas.pretrain.objective import Objective, Taught, weigh
from patchatlas.pretrain.optimiser import clip, follow, set_rates
from patchatlas.pretrain.schedules import Schedules
from patchatlas.pretrain.student import Chance, Network, Pass, Seen

_HIDE, _CHANCE, _DIRECTIONS = range(3)
"""What a seed is for, its last number but those of micro-batch and process."""


@dataclass(eq=False, kw_only=True)
class Learner:
    """The networks of a run and what moves them.

    Attributes:
        network: the student.
        wrapped: the student as it is called, see `distributed.spread`.
        teacher: follows the student.
        gram: the teacher of an earlier step, while the Gram term counts.
        optimiser: of the student.
        objective: the loss.
        schedules: what changes from step to step.
        mean_std: of pixels, a channel, (2, c).
        bf16: whether networks multiply in bfloat16.
        distilled: the encoder that the student is to be like; `None` without that term.
    """

    network: Network
    wrapped: nn.Module
    teacher: Network
    gram: Network | None
    optimiser: Optimizer
    objective: Objective
    schedules: Schedules
    mean_std: Tensor
    bf16: bool
    distilled: Encoder | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Taken:
    """What happened in a step, for those who watch; tensors are of this process's first micro-batch, detached.

    Attributes:
        terms: mean over processes of every term, and `loss`, their weighted sum.
        norms: of the gradient, by part, before it was cut.
        modules: the same by module, named as `metrics.grad_norms` does; on steps with a look, else empty.
        moved: whether the weights were moved; not where a gradient is not finite.
        rows: logits of the teacher's class tokens, all micro-batches; `None` without a DINO head.
        across: entropy of targets, divergence and what crops hold, over all micro-batches and processes.
        cls: class tokens of the global crops, (g, b, d): the teacher's, or the student's where no term has a teacher.
        patches: patch tokens of the global crops, (g, b, n, d), likewise.
        gram: those of the Gram teacher, ((g b), n, d); `None` where that term does not count.
        batch: the first micro-batch.
    """

    terms: dict[str, float]
    norms: dict[str, float]
    modules: dict[str, float]
    moved: bool
    rows: Tensor | None
    across: dict[str, float]
    cls: Tensor
    patches: Tensor
    gram: Tensor | None
    batch: Batch


def take_step(
    learner: Learner, micro_batches: Sequence[Batch], step: int, config: PretrainConfig, process: Process
) -> Taken:
    """Do one step; the teacher follows at its end.

    Args:
        learner: is changed.
        micro_batches: those of this process, on any device.
        step: counted from 0.
        config: of the run.
        process: this one.
    """
    set_rates(learner.optimiser, learner.schedules, step)
    hidden = hide(micro_batches[0], step, config, process)
    shares, taught, looked = [], [], None
    mean_ratio = _mean_ratio(micro_batches, config, process)
    for batch, mask in zip(micro_batches, hidden, strict=True):
        here = batch.to(process.device)
        matches = _matches(batch, config, process)
        shares.append(weigh(here, mask, config.loss, matches=matches, mean_ratio=mean_ratio))
        said, globals_seen = _teach(learner, here, mask)
        taught.append(said)
        looked = globals_seen if looked is None else looked
    goals = learner.objective.goals(taught, shares, temperature=learner.schedules.teacher_temp(step))

    totals: dict[str, Tensor] = {}
    pairs: list[tuple[Tensor, Tensor]] = []
    first_gram = None
    last = len(micro_batches) - 1
    for number, (batch, mask, goal) in enumerate(zip(micro_batches, hidden, goals, strict=True)):
        here = batch.to(process.device)
        chance = _chance(config, step, number, process)
        with gathering(learner.wrapped, now=number == last):
            large, small = _study(learner, here, mask, chance)
            looked = large if looked is None else looked
            gram = _gram_tokens(learner, here)
            terms = learner.objective.terms(
                large,
                small,
                goal,
                gram=gram,
                shown=None if learner.distilled is None else look(learner.distilled, here),
                directions_seed=seed_of(config.train.seed, step, _DIRECTIONS, number),
            )
            loss = learner.objective.weighted(terms)
            loss.backward()
        for name, value in {**terms, "loss": loss}.items():
            totals[name] = totals.get(name, torch.zeros_like(value)) + value.detach()
        first_gram = gram if number == 0 else first_gram
        if goal.cls is not None and large.cls_logits is not None:
            pair = _pair(large, small, goal.cls, len(here.globals))
            pairs += [] if pair is None else [pair]

    assert looked is not None, "a step has a micro-batch"
    modules: dict[str, float] = {}
    if (step + 1) % config.monitor.spectra_every == 0:
        modules = grad_norms(learner.network.named_parameters(), depth=3)
    norms = clip(learner.network, config.optim.clip)
    moved = all(bool(norm.isfinite()) for norm in norms.values())
    if moved:
        learner.optimiser.step()
        follow(learner.teacher, learner.network, learner.schedules.momentum(step))
    learner.optimiser.zero_grad(set_to_none=True)
    values = process.ranks.mean(torch.stack(list(totals.values()))).tolist()
    g, b = hidden[0].shape[:2]
    return Taken(
        terms=dict(zip(totals, values, strict=True)),
        norms={part: float(norm) for part, norm in norms.items()},
        modules=modules,
        moved=moved,
        rows=_joined([one.cls for one in taught]),
        across=target_numbers(
            _joined([goal.cls for goal in goals]),
            _stacked(pairs),
            student_temp=config.loss.dino.student_temp,
            ranks=process.ranks,
        )
        | crops_of_step(micro_batches, [one.pairs for one in shares], device=process.device, ranks=process.ranks),
        cls=looked.cls.detach().float().unflatten(0, (g, b)),
        patches=looked.patches.detach().float().unflatten(0, (g, b)),
        gram=first_gram,
        batch=micro_batches[0],
    )


def _mean_ratio(micro_batches: Sequence[Batch], config: PretrainConfig, process: Process) -> Tensor | None:
    """Mean foreground share of all crops of a step, where the DINO term is multiplied by it."""
    if config.loss.foreground.weighting != "mean":
        return None
    ratios = [ratio.float().flatten() for one in micro_batches for ratio in (one.global_ratio, one.local_ratio)]
    return process.ranks.mean(torch.cat(ratios).mean().to(process.device))


def _matches(batch: Batch, config: PretrainConfig, process: Process) -> Matches | None:
    """What shows the same place in a micro-batch, where a term asks for it."""
    if not config.loss.needs_matches:
        return None
    return find_matches(batch, config.crops.patch, margin=config.loss.match.margin).to(process.device)


def hide(batch: Batch, step: int, config: PretrainConfig, process: Process) -> list[Bool[Tensor, "g b n"]]:
    """What is hidden in the global crops of each micro-batch of a step; nothing without an iBOT term."""
    g, b = batch.globals.shape[:2]
    grid = patch_grid(tuple(batch.globals.shape[3:]), tuple(config.crops.patch))
    all_numbers = numbers(config, process.ranks, step)
    if not config.loss.ibot.weight:
        return [torch.zeros(g, b, int(np.prod(grid)), dtype=torch.bool, device=process.device) for _ in all_numbers]
    samples = samples_of_step(config, process.ranks)
    made = []
    for micro in all_numbers:
        mine = [view * samples + number % samples for view in range(g) for number in micro]
        drawn = masks(grid, config.masks, rows=g * samples, mine=mine, seed=[config.train.seed, step, _HIDE])
        made.append(torch.from_numpy(drawn).unflatten(0, (g, b)).to(process.device))
    return made


def seed_of(*key: int) -> int:
    """A seed for a torch generator from several numbers."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _teach(learner: Learner, batch: Batch, hidden: Tensor) -> tuple[Taught, Seen | None]:
    """The teacher sees the global crops whole, and the local ones where a term asks for it; without terms, nothing."""
    if not learner.objective.config.needs_teacher:
        return Taught(None, None), None
    large = Pass(x=_normalised(learner, batch.globals), asked=hidden.flatten(0, 1))
    passes = [large]
    if learner.objective.config.teacher_sees_locals and len(batch.locals):
        passes.append(Pass(x=_normalised(learner, batch.locals)))
    with torch.no_grad(), _arithmetic(learner):
        seen = learner.teacher(*passes)
    b = batch.globals.shape[1]
    logits = [one.cls_logits.float() for one in seen if one.cls_logits is not None]
    cls = torch.cat(logits).unflatten(0, (-1, b)) if logits else None
    patches = seen[0].patch_logits
    return Taught(cls, None if patches is None else patches.float()), seen[0]


def _study(learner: Learner, batch: Batch, hidden: Tensor, chance: Chance) -> tuple[Seen, Seen | None]:
    mask = hidden.flatten(0, 1) if learner.network.mask_token is not None else None
    like = learner.distilled is not None
    passes = [Pass(x=_normalised(learner, batch.globals), hidden=mask, asked=mask, chance=chance, like=like)]
    if len(batch.locals):
        passes.append(Pass(x=_normalised(learner, batch.locals), chance=chance))
    with _arithmetic(learner):
        seen = learner.wrapped(*passes)
    return seen[0], seen[1] if len(seen) > 1 else None


def _gram_tokens(learner: Learner, batch: Batch) -> Tensor | None:
    if learner.gram is None:
        return None
    with torch.no_grad(), _arithmetic(learner):
        (seen,) = learner.gram(Pass(x=_normalised(learner, batch.globals)))
    return seen.patches.float()  # type: ignore[no-any-return]


def _arithmetic(learner: Learner) -> Any:
    return torch.autocast(learner.mean_std.device.type, dtype=torch.bfloat16, enabled=learner.bf16)


def _normalised(learner: Learner, crops: Tensor) -> Tensor:
    """(v, b, c, ...) in 0..1 -> (v b, c, ...), mean and standard deviation applied."""
    mean, std = (row.view(1, -1, *[1] * (crops.ndim - 3)) for row in learner.mean_std)
    normalised: Tensor = (crops.flatten(0, 1) - mean) / std
    return normalised


def _chance(config: PretrainConfig, step: int, micro: int, process: Process) -> Chance:
    seed = seed_of(config.train.seed, step, _CHANCE, micro, process.ranks.rank)
    return Chance(
        drop_path=config.model.drop_path,
        rope_rescale=config.model.rope_rescale,
        generator=torch.Generator().manual_seed(seed),
    )


def _pair(large: Seen, small: Seen | None, targets: Tensor, g: int) -> tuple[Tensor, Tensor] | None:
    """Logits of one student view of every sample, and the target of another view of it."""
    assert large.cls_logits is not None
    if g > 1:
        return large.cls_logits.detach().unflatten(0, (g, -1))[0], targets[1]
    if small is None or small.cls_logits is None:
        return None
    return small.cls_logits.detach()[: targets.shape[1]], targets[0]


def _stacked(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor] | None:
    """The rows of several micro-batches one after the other."""
    if not pairs:
        return None
    logits, targets = zip(*pairs, strict=True)
    return torch.cat(logits), torch.cat(targets)


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    rows = [part.flatten(0, 1) for part in parts if part is not None]
    return torch.cat(rows) if rows else None


def micro_batches_of(batches: Iterator[Batch], count: int) -> list[Batch]:
    """The next `count` micro-batches."""
    return [next(batches) for _ in range(count)]
