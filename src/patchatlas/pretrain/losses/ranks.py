"""The processes that train together, as the losses see them: tensors of all ranks, stacked, with gradients.

Axes: r ranks. Every loss is written so that the mean over ranks of what each returns is the loss of the whole batch;
gradients averaged over ranks, as DDP and FSDP average them, are then those of the whole batch, however many samples or
how much weight a rank has.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is."""

    rank: int = 0
    size: int = 1
    group: Any = None
    """Process group of torch.distributed; the default group if None."""

    @classmethod
    def here(cls, group: Any = None) -> "Ranks":
        """Those of torch.distributed, or one rank alone where it has not been started."""
        if not (dist.is_available() and dist.is_initialized()):
            return ALONE
        return cls(rank=dist.get_rank(group), size=dist.get_world_size(group), group=group)

    def gather(self, values: Tensor) -> Tensor:
        """The tensors of all ranks, of one shape, stacked along a new first axis, in the order of the ranks.

        Gradients flow back to the rank that gave the tensor. All ranks must call it, in the same order.
        """
        if self.size == 1:
            return values[None]
        return _Gather.apply(values, self)  # type: ignore[no-any-return, no-untyped-call]

    def mean(self, values: Tensor) -> Tensor:
        """The mean over ranks, added up in the order of the ranks, so that all get the same bits."""
        return self.gather(values).mean(0)


class _Gather(torch.autograd.Function):
    """Stack over ranks; backwards, each rank gets the sum over ranks of the gradients that are for it."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        parts = [torch.empty_like(values, memory_format=torch.contiguous_format) for _ in range(ranks.size)]
        dist.all_gather(parts, values.contiguous(), group=ranks.group)
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total, group=ctx.ranks.group)
        return total[ctx.ranks.rank], None


ALONE = Ranks()
