"""In which order an epoch goes through the samples, as plain lists: a function of numbers, whoever reads and how often.

The order of samples depends on the seed and the epoch alone. Nodes and what was read before only say where the list of
batches is cut, so reading can go on from any sample with any number of nodes.

Axes: n samples.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Int, Int64, UInt64
from numpy import ndarray

from patchatlas.errors import UsageError

Tail = Literal["even", "keep", "drop"]
"""What happens where batches do not come out even; see `share`."""

_GAMMA = 0x9E3779B97F4A7C15  # the odd number nearest to 2**64 / golden ratio
_MASK = 2**64 - 1

# What a draw is for, so that two draws of one epoch are not the same.
_BATCHES, _SHARDS, _SAMPLES = 0, 1, 2
_PURPOSES = 3


def draws(count: int, *, seed: int, epoch: int, purpose: int) -> UInt64[ndarray, " n"]:
    """Numbers that look random and are the same in every version of every library.

    SplitMix64 (Steele, Lea and Flood, OOPSLA 2014, figure 17), begun at a state that mixes the three arguments.
    """
    state = 0
    for part in (seed, epoch, purpose):
        state = _mix_one((state + part * _GAMMA + _GAMMA) & _MASK)
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GAMMA)  # wraps, as it should
    z = steps + np.uint64(state)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: UInt64[ndarray, " n"] = z ^ (z >> np.uint64(31))
    return mixed


def sample_order(
    shard: Int[ndarray, " n"], *, seed: int, epoch: int, window: int, group: int = 0, shuffle: bool = True
) -> Int64[ndarray, " n"]:
    """Indices of all samples: shards in random order, and samples shuffled among `window` shards at a time.

    A window keeps few files in use at once, which matters on disks that seek and over a network.

    Args:
        shard: which shard each sample lies in, from 0.
        seed: of the order.
        epoch: of the order; another one gives another order.
        window: shards whose samples are mixed.
        group: number of the group that the samples are of; each has an order of its own.
        shuffle: without it, the samples as they lie.
    """
    if not shuffle or len(shard) == 0:
        return np.argsort(shard, kind="stable").astype(np.int64)
    shard_rank = np.argsort(
        np.argsort(draws(int(shard.max()) + 1, seed=seed, epoch=epoch, purpose=_PURPOSES * group + _SHARDS))
    )
    # Ranks among the shards that are asked for, since a bucket has only some of all shards.
    _, rank = np.unique(shard_rank[shard], return_inverse=True)
    drawn = draws(len(shard), seed=seed, epoch=epoch, purpose=_PURPOSES * group + _SAMPLES)
    return np.lexsort((drawn, rank // window)).astype(np.int64)


def cut(
    order: Sequence[int],
    tokens: Int[ndarray, " n"],
    *,
    batch_size: int | None = None,
    max_tokens: int | None = None,
    padded: bool = True,
) -> list[list[int]]:
    """Cut an order into batches, the last of which may be smaller.

    Args:
        order: indices of samples.
        tokens: how many tokens each sample has, by index.
        batch_size: samples in a batch at most.
        max_tokens: tokens in a batch at most, padding included if `padded`.
        padded: whether all samples of a batch take as much room as its longest.

    Raises:
        UsageError: neither limit is given, one is not positive, or a sample alone is larger than `max_tokens`.
    """
    if batch_size is None and max_tokens is None:
        raise UsageError("give batch_size, max_tokens or both; nothing says how large a batch is")
    if any(limit is not None and limit < 1 for limit in (batch_size, max_tokens)):
        raise UsageError(f"batch_size {batch_size} and max_tokens {max_tokens} must be 1 or more")
    batches: list[list[int]] = []
    current: list[int] = []
    longest = total = 0
    for index in order:
        n = int(tokens[index])
        if max_tokens is not None and n > max_tokens:
            raise UsageError(f"a sample has {n} tokens, more than max_tokens {max_tokens}; allow at least {n}")
        longest, total = max(longest, n), total + n
        room = longest * (len(current) + 1) if padded else total
        full = batch_size is not None and len(current) == batch_size
        if current and (full or (max_tokens is not None and room > max_tokens)):
            batches.append(current)
            current, longest, total = [], n, n
        current.append(index)
    return [*batches, current] if current else batches


def epoch_batches(
    shard: Int[ndarray, " n"],
    group: Int[ndarray, " n"],
    tokens: Int[ndarray, " n"],
    *,
    seed: int,
    epoch: int,
    batch_size: int | None,
    max_tokens: int | None,
    padded: bool,
    window: int,
    shuffle: bool,
    drop_incomplete: bool,
) -> list[list[int]]:
    """The batches of an epoch. No batch mixes groups, and batches of all groups are spread over the epoch.

    Args:
        shard: which shard each sample lies in, from 0.
        group: which samples may share a batch: the bucket's number, or the same number for all.
        tokens: tokens of each sample.
        seed: see `sample_order`.
        epoch: see `sample_order`.
        batch_size: see `cut`.
        max_tokens: see `cut`.
        padded: see `cut`.
        window: see `sample_order`.
        shuffle: see `sample_order`; without it groups come one after the other.
        drop_incomplete: leave out the last batch of each group if it has room for more.
    """
    queues: list[list[list[int]]] = []
    for one in np.unique(group):
        members = np.flatnonzero(group == one)
        order = sample_order(shard[members], seed=seed, epoch=epoch, window=window, group=int(one), shuffle=shuffle)
        batches = cut(members[order].tolist(), tokens, batch_size=batch_size, max_tokens=max_tokens, padded=padded)
        if drop_incomplete and batches and not _is_full(batches[-1], tokens, batch_size, max_tokens, padded):
            batches.pop()
        queues.append(batches)
    turns = np.repeat(np.arange(len(queues)), [len(queue) for queue in queues])
    if shuffle:
        turns = turns[np.argsort(draws(len(turns), seed=seed, epoch=epoch, purpose=_BATCHES), kind="stable")]
    heads = [iter(queue) for queue in queues]
    return [next(heads[turn]) for turn in turns]


def after(batches: list[list[int]], done: int) -> list[list[int]]:
    """What is left once the first `done` samples have been read; the batch that `done` lies in keeps its rest.

    Raises:
        UsageError: there are not so many samples.
    """
    total = sum(len(batch) for batch in batches)
    if not 0 <= done <= total:
        raise UsageError(f"{done} samples cannot have been read of {total}; the state is of other shards or settings")
    left = []
    for batch in batches:
        if done < len(batch):
            left.append(batch[done:])
        done = max(0, done - len(batch))
    return left


def share(batches: list[list[int]], *, nodes: int, tail: Tail) -> list[list[int]]:
    """Prepare batches for nodes that take every `nodes`-th of them, at the same time; the order of samples stays.

    Args:
        batches: as they are left to be read.
        nodes: how many take turns.
        tail: `even` halves the longest of the last batches until every node has the same number, so each sample is read
            once and no node waits for another; `keep` leaves the last nodes one batch short; `drop` leaves out what is
            over.

    Raises:
        UsageError: `even`, and there are fewer samples than nodes.
    """
    over = len(batches) % nodes
    if over == 0 or tail == "keep":
        return batches
    if tail == "drop":
        return batches[: len(batches) - over]
    taken, wanted = over, nodes
    while sum(len(batch) for batch in batches[-taken:]) < wanted:
        taken, wanted = taken + nodes, wanted + nodes
        if taken > len(batches):
            raise UsageError(
                f"{sum(len(batch) for batch in batches)} samples are left for {nodes} nodes, so none can have the same "
                "number of batches; take fewer nodes or tail='keep'"
            )
    last = batches[-taken:]
    while len(last) < wanted:
        at = max(range(len(last)), key=lambda i: len(last[i]))
        middle = (len(last[at]) + 1) // 2
        last[at : at + 1] = [last[at][:middle], last[at][middle:]]
    return [*batches[:-taken], *last]


def _is_full(
    batch: list[int], tokens: Int[ndarray, " n"], batch_size: int | None, max_tokens: int | None, padded: bool
) -> bool:
    """Whether another sample like the longest of the batch would not fit."""
    if batch_size is not None and len(batch) == batch_size:
        return True
    longest = int(tokens[batch].max())
    room = longest * (len(batch) + 1) if padded else int(tokens[batch].sum()) + longest
    return max_tokens is not None and room > max_tokens


def _mix_one(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)
