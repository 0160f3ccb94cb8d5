"""Which part of the units this process takes: `--shard i/n`, or what torchrun and SLURM say in the environment."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from patchatlas.errors import UsageError

log = logging.getLogger(__name__)

LAUNCHERS = (("RANK", "WORLD_SIZE", "torchrun"), ("SLURM_PROCID", "SLURM_NTASKS", "SLURM"))
"""Names of rank and number of processes (PyTorch manual, "torchrun"; SLURM manual, "srun", output variables)."""

LOCAL_RANKS = ("LOCAL_RANK", "SLURM_LOCALID")

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard:
    """One of several equal workers.

    Attributes:
        index: which, from 0.
        count: how many there are.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise UsageError(
                f"shard {self} does not exist; count from 0: 0/{self.count} to {self.count - 1}/{self.count}"
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, items: Sequence[Item]) -> list[Item]:
        """Its part of `items`: every n-th."""
        return list(items[self.index :: self.count])


def parse_shard(text: str) -> Shard:
    """`i/n` as a shard, counted from 0.

    Raises:
        UsageError: it is not of that form, or there is no such shard.
    """
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if found is None:
        raise UsageError(f"--shard {text!r} is no shard; write index/count, counted from 0: 0/4, 1/4, 2/4, 3/4")
    return Shard(int(found[1]), int(found[2]))


def choose_shard(given: str | None, environment: Mapping[str, str]) -> Shard:
    """The shard asked for, else the one that a launcher gave this process, else everything.

    Raises:
        UsageError: `given` or the environment is no shard.
    """
    if given is not None:
        return parse_shard(given)
    for rank, count, launcher in LAUNCHERS:
        if rank in environment and count in environment:
            shard = parse_shard(f"{environment[rank]}/{environment[count]}")
            if shard.count > 1:
                log.warning(
                    "working on shard %s, as %s says (%s, %s); give --shard 0/1 to work on everything",
                    shard, launcher, rank, count,
                )  # fmt: skip
            return shard
    return Shard()


def local_rank(environment: Mapping[str, str]) -> int | None:
    """Which of the processes on this machine this is, if a launcher says so."""
    return next((int(environment[name]) for name in LOCAL_RANKS if environment.get(name, "").isdecimal()), None)
