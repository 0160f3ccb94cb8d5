"""Numbers of a step over all its micro-batches and processes: what its crops hold, and how far its targets are reached.

A few numbers a crop are gathered, no features: what is looked at of those is of one micro-batch (`step.Taken`).

Axes: r processes, m micro-batches, s views of the student (g globals, then locals), b samples, n rows, k prototypes.
"""

from collections.abc import Sequence
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.pretrain.crops.records import FLAGS, Batch
from patchatlas.pretrain.losses.ranks import Ranks
from patchatlas.pretrain.losses.weights import PairWeights
from patchatlas.pretrain.monitors.metrics import crop_numbers, divergence, row_entropy


def target_numbers(
    targets: Float[Tensor, "n k"] | None,
    pair: tuple[Float[Tensor, "m k"], Float[Tensor, "m k"]] | None,
    *,
    student_temp: float,
    ranks: Ranks,
) -> dict[str, float]:
    """Row entropy and divergence as means over processes. All processes must call it.

    Args:
        targets: of class tokens, rows of all micro-batches; `None` without that term.
        pair: logits of a student's view and the target of another one, a row a sample of all micro-batches; `None`
            without two views.
        student_temp: temperature of the student.
        ranks: the processes.
    """
    mine: dict[str, float] = {}
    if targets is not None:
        mine["row_entropy"] = row_entropy(targets)
    if pair is not None:
        mine |= divergence(*pair, student_temp=student_temp)
    if targets is None or ranks.size == 1:
        return mine
    # On the device of the targets, where processes can reach each other.
    means = ranks.mean(torch.tensor(list(mine.values()), dtype=torch.float64, device=targets.device)).tolist()
    return dict(zip(mine, means, strict=True))


def crops_of_step(
    batches: Sequence[Batch], pairs: Sequence[PairWeights], *, device: torch.device, ranks: Ranks
) -> dict[str, float]:
    """What the crops of a step hold and how they are weighed, see `metrics.crop_numbers`. All processes must call it.

    Args:
        batches: micro-batches of this process.
        pairs: their weights.
        device: on which processes can reach each other.
        ranks: the processes.
    """
    g, views = len(batches[0].globals), len(batches[0].globals) + len(batches[0].locals)
    mine = torch.stack([_table(one, weights) for one, weights in zip(batches, pairs, strict=True)])
    table = ranks.gather(mine.to(device)).cpu().flatten(0, 1)  # (r m, 3 s and pairs of globals, b)
    ratio, weight, flagged, overlap = table.split([views, views, views, table.shape[1] - 3 * views], dim=1)
    kinds = {"globals": slice(0, g), "locals": slice(g, views)}
    return crop_numbers(
        {kind: ratio[:, rows].flatten().tolist() for kind, rows in kinds.items()},
        flags=[_named(int(code)) for code in flagged.flatten().tolist()],
        overlaps=overlap.flatten().tolist(),
        weights={kind: found for kind, rows in kinds.items() if (found := weight[:, rows].flatten().tolist())},
    )


def _table(batch: Batch, pairs: PairWeights) -> Tensor:
    """Of every crop its foreground, weight and flags, and the overlap of every two globals: a row each, "q b"."""
    g = len(batch.globals)
    flags = [[_code(record.flags) for record in records] for records in batch.records]
    overlaps = [[one.overlap(other) for one, other in combinations(records[:g], 2)] for records in batch.records]
    rows = [
        batch.global_ratio.cpu(),
        batch.local_ratio.cpu(),
        pairs.values.sum(1).cpu(),
        torch.tensor(flags).T,
        torch.tensor(overlaps).T,
    ]
    return torch.cat([row.float().reshape(-1, len(flags)) for row in rows])


def _code(flags: Sequence[str]) -> int:
    """Flags as the bits of a number."""
    return sum(1 << FLAGS.index(flag) for flag in flags)


def _named(code: int) -> str:
    """The inverse, in one word."""
    return "+".join(flag for bit, flag in enumerate(FLAGS) if code >> bit & 1)
