"""The processes that train together: found from torchrun's environment, and how a network is spread over them.

Alone, nothing of torch.distributed is started. Gradients are means over processes, under DDP as under FSDP2, which is
what every loss is written for (`losses/ranks.py`).
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from patchatlas.encoders.precision import choose_device
from patchatlas.errors import UsageError
from patchatlas.pretrain.losses.ranks import Ranks
from patchatlas.pretrain.student import Network

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
_FROM_FIRST = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)


@dataclass(frozen=True)
class Process:
    """One of the processes of a run.

    Attributes:
        ranks: which it is, of how many.
        device: where it computes.
    """

    ranks: Ranks
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether it is the one that writes and speaks."""
        return self.ranks.rank == 0

    def decided(self, choice: int) -> int:
        """What the first process chose, for all of them to do alike."""
        if self.ranks.size == 1:
            return choice
        told = torch.tensor([choice], device=self.device)
        dist.broadcast(told, src=0, group=self.ranks.group)
        return int(told)

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.ranks.size > 1:
            dist.barrier(group=self.ranks.group)


@contextlib.contextmanager
def processes(device: str) -> Iterator[Process]:
    """The processes that torchrun started, joined for as long as the context lasts; this one alone without torchrun.

    Args:
        device: as `precision.choose_device` takes it; a plain `cuda` becomes the one of this process's number.

    Raises:
        UsageError: a device that is not there, or one device for several processes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = choose_device(device)
    if size == 1:
        yield Process(Ranks(), chosen)
        return
    if chosen.type == "cuda":
        if ":" in device:
            raise UsageError(f"device {device} would be shared by {size} processes; use cuda, and each takes its own")
        chosen = choose_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
        torch.cuda.set_device(chosen)
    joined_here = not dist.is_initialized()
    if joined_here:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Process(Ranks.here(), chosen)
    finally:
        if joined_here:
            dist.destroy_process_group()


def spread(network: Network, process: Process, strategy: Literal["ddp", "fsdp"]) -> nn.Module:
    """A network that learns with those of the other processes; itself where there are none.

    Under `ddp` it is wrapped; under `fsdp` its blocks and then the whole are sharded in place.
    """
    if process.ranks.size == 1:
        return network
    if strategy == "fsdp":
        shard(network, learns=True)
        return network
    # One device a process, and no list of it: inputs are moved by the trainer.
    return DistributedDataParallel(network, gradient_as_bucket_view=True)


def shard(network: Network, *, learns: bool) -> None:
    """Shard a network in place (FSDP2): every block by itself, then what is left.

    What is left stays whole from a forward to its backward; in a network that does not learn there is none to wait for.
    """
    for block in network.vit.blocks:
        fully_shard(block)
    fully_shard(network, reshard_after_forward=not learns)


def is_sharded(network: nn.Module) -> bool:
    """Whether this process holds parts of the parameters only."""
    return isinstance(network, FSDPModule)


@contextlib.contextmanager
def gathering(network: nn.Module, *, now: bool) -> Iterator[None]:
    """Gradients of a backward in here are summed over processes if `now`; else they wait for the next that are."""
    if isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(now)
        yield
    elif isinstance(network, DistributedDataParallel) and not now:
        with network.no_sync():
            yield
    else:
        yield


def whole_state(network: nn.Module) -> dict[str, Any]:
    """All parameters and buffers by their plain names, on the CPU. All processes must call it.

    Under FSDP2 only the first process gets them, the others an empty dict.
    """
    return get_model_state_dict(network, options=_WHOLE)


def whole_optimiser(network: nn.Module, optimiser: Optimizer) -> dict[str, Any]:
    """The optimiser's state by the plain names of parameters, as `whole_state`."""
    return get_optimizer_state_dict(network, optimiser, options=_WHOLE)


def put_state(network: nn.Module, state: dict[str, Any]) -> None:
    """Put back what `whole_state` gave, the first process's, into all processes."""
    set_model_state_dict(network, state, options=_options())


def put_optimiser(network: nn.Module, optimiser: Optimizer, state: dict[str, Any]) -> None:
    """Put back what `whole_optimiser` gave, likewise."""
    set_optimizer_state_dict(network, optimiser, state, options=_options())


def _options() -> StateDictOptions:
    return _FROM_FIRST if dist.is_initialized() else StateDictOptions(full_state_dict=True)
