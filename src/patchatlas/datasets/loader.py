"""Batches of packed features for training: the same order everywhere, to be left and taken up again at any sample.

Which samples come when depends on the seed, the epoch and the settings alone; nodes take turns at batches, and workers
only read ahead. So any number of nodes and workers sees the same epoch, and a state taken with one number is valid with
another.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from patchatlas.datasets.batch import Batch
from patchatlas.datasets.fetch import Affine, Fetcher, SequenceLayout, Wanted
from patchatlas.datasets.order import Tail, after, epoch_batches, share
from patchatlas.errors import FormatError, StampError, UsageError
from patchatlas.io.shards import ShardIndex, ShardReader, read_index
from patchatlas.stamp import Stamp

log = logging.getLogger(__name__)

STATE_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """Mean and standard deviation of a kind of features over a data set.

    Attributes:
        mean: a number a feature.
        std: a number a feature.
        stamp: of the features they were taken from.
    """

    mean: Sequence[float]
    std: Sequence[float]
    stamp: Stamp


class FeatureLoader:
    """Iterates over one epoch after the other.

    Each `iter()` goes through what is left of the current epoch. With `workers`, other processes read ahead.

    Each node gets as many batches as it was promised. One of which nothing could be read (with `max_skipped`) comes
    empty, without ids and tensors: nodes that step together must all take the step.

    Every sample comes exactly once an epoch, over all nodes together, unless `tail="drop"`. Where batches do not come
    out even, the last batch of a bucket is smaller, and `tail` says what nodes do at the end, see `order.share`.

    Args:
        folder: where `pack` wrote.
        kinds: what to read; without it all that is there.
        batch_size: samples in a batch at most.
        max_tokens: tokens in a batch at most, padding included; at least one of the two must be given.
        layout: `padded` (with a mask) or `packed` (end to end, with `cu_seqlens`).
        within_bucket: batches hold samples of one bucket; without it, of any.
        shuffle: without it, samples come bucket by bucket as they lie.
        window: shards among which samples are shuffled at a time; more mixes better, fewer keep fewer files in use.
        seed: of the order.
        tail: `even`, `keep` or `drop`, see `order.share`; `drop` also leaves out batches that are not full.
        nodes: processes that train together, the world size.
        node: which of them this is, from 0.
        workers: processes that read for this one.
        dtype: of all values.
        coordinates: also give the centre of each patch, see `grid_coordinates`.
        normalise: kind -> mean and standard deviation; its tokens become (x - mean) / std. Padding stays zero.
        records: also read the manifest records, which hold the captions.
        max_skipped: samples an epoch and node that may be unreadable; they are logged, counted and left out. One more
            ends the epoch with an error. With none allowed, the first does.
        expect: kind -> stamp that its features must have.
        pin_memory: give batches in page-locked memory.

    Raises:
        UsageError: settings that contradict each other.
        InputError: the folder holds no shards, or no such kind.
        FormatError: shards that are not those of the index.
        StampError: features were made in another way than `expect` or `normalise` say, or shards in different ways.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        kinds: Sequence[str] | None = None,
        batch_size: int | None = None,
        max_tokens: int | None = None,
        layout: SequenceLayout = "padded",
        within_bucket: bool = True,
        shuffle: bool = True,
        window: int = 8,
        seed: int = 0,
        tail: Tail = "even",
        nodes: int = 1,
        node: int = 0,
        workers: int = 0,
        dtype: torch.dtype = torch.float32,
        coordinates: bool = False,
        normalise: Mapping[str, Normalisation] | None = None,
        records: bool = True,
        max_skipped: int = 0,
        expect: Mapping[str, Stamp] | None = None,
        pin_memory: bool = False,
    ) -> None:
        if not 0 <= node < nodes:
            raise UsageError(f"node {node} of {nodes} does not exist; nodes count from 0")
        if workers < 0 or window < 1 or max_skipped < 0 or seed < 0:
            raise UsageError(
                f"workers {workers}, max_skipped {max_skipped} and seed {seed} must be 0 or more, window {window} 1 or "
                "more"
            )
        if not dtype.is_floating_point:
            raise UsageError(f"dtype {dtype} cannot hold features; take float32, bfloat16 or float16")
        self.index = read_index(folder, expect=expect)
        chosen = tuple(sorted(self.index.kinds if kinds is None else set(kinds)))
        for kind in chosen:
            self.index.stamp(kind)  # refuses a kind that is not there
        self._fetcher = Fetcher(
            ShardReader(folder, self.index),
            self.index,
            Wanted(
                kinds=chosen,
                layout=layout,
                dtype=dtype,
                coordinates=coordinates,
                affine=_affine(self.index, chosen, normalise or {}),
                records=records,
            ),
        )
        self._tokens, self._group = self._measure(chosen, within_bucket=within_bucket)
        self._nodes, self._node, self._tail, self._workers = nodes, node, tail, workers
        self._max_skipped, self._pin_memory = max_skipped, pin_memory
        self._settings: dict[str, Any] = {
            "seed": seed,
            "batch_size": batch_size,
            "max_tokens": max_tokens,
            "padded": layout == "padded",
            "window": window,
            "shuffle": shuffle,
            "drop_incomplete": tail == "drop",
        }
        self._identity = {**self._settings, "within_bucket": within_bucket, "shards": self._fingerprint()}
        self._epoch = self._done = 0
        self._skipped: list[tuple[str, str]] = []
        self._epoch_batches()  # refuses impossible limits now rather than later

    @property
    def epoch(self) -> int:
        """The epoch that the next batch is of, from 0."""
        return self._epoch

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(image id, reason) of the samples of this epoch that could not be read, on this node."""
        return tuple(self._skipped)

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch."""
        if epoch < 0:
            raise UsageError(f"epoch {epoch} does not exist; epochs count from 0")
        self._epoch, self._done, self._skipped = epoch, 0, []

    def __len__(self) -> int:
        """Batches that this node still gets in the current epoch."""
        return len(self._plan()[self._node :: self._nodes])

    def __iter__(self) -> Iterator[Batch]:
        """The batches that are left of the current epoch; after the last one the next epoch begins.

        Raises:
            FormatError: more samples than allowed cannot be read; the message names the last.
        """
        plan = self._plan()
        ends = self._done + np.cumsum([len(batch) for batch in plan])
        mine = plan[self._node :: self._nodes]
        for step, batch in enumerate(self._read(mine)):
            # One step of all nodes is done once this batch is handed out.
            self._done = int(ends[min((step + 1) * self._nodes, len(plan)) - 1])
            self._count(batch)
            yield batch
        self._epoch, self._done, self._skipped = self._epoch + 1, 0, []

    def state_dict(self) -> dict[str, Any]:
        """Where this loader is; what was handed out counts as read. Equal on all nodes after equally many batches."""
        return {
            "version": STATE_VERSION,
            "epoch": self._epoch,
            "done": self._done,
            "skipped": [list(one) for one in self._skipped],
            "identity": dict(self._identity),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go where another loader was; nodes, workers, tail (`drop` excepted) and what is read may differ.

        Raises:
            UsageError: the state is of other shards or of settings that change the order; the message names them.
        """
        if state.get("version") != STATE_VERSION:
            raise UsageError(f"a state of version {state.get('version')!r} is not {STATE_VERSION}")
        theirs = state["identity"]
        differing = [name for name in self._identity if self._identity[name] != theirs.get(name)]
        if differing:
            pairs = "; ".join(
                f"{name}: {self._identity[name]!r} here, {theirs.get(name)!r} there" for name in differing
            )
            raise UsageError(f"this state is of a loader that reads in another order ({pairs})")
        self._epoch, self._done = int(state["epoch"]), int(state["done"])
        self._skipped = [(image_id, reason) for image_id, reason in state["skipped"]]

    def _epoch_batches(self) -> list[list[int]]:
        return epoch_batches(self._fetcher.shard, self._group, self._tokens, epoch=self._epoch, **self._settings)

    def _plan(self) -> list[list[int]]:
        """What all nodes together still read in this epoch, in turns."""
        return share(after(self._epoch_batches(), self._done), nodes=self._nodes, tail=self._tail)

    def _read(self, batches: list[list[int]]) -> Iterator[Batch]:
        dataset = _Batches(self._fetcher)
        return iter(
            DataLoader(
                dataset,
                sampler=batches,
                batch_size=None,
                num_workers=self._workers,
                collate_fn=_as_it_is,  # type: ignore[arg-type]  # with batch_size=None it gets what the data set gave
                pin_memory=self._pin_memory,
            )
        )

    def _count(self, batch: Batch) -> None:
        for image_id, reason in batch.skipped:
            self._skipped.append((image_id, reason))
            if len(self._skipped) > self._max_skipped:
                raise FormatError(
                    f"{image_id} cannot be read: {reason} (unreadable in epoch {self._epoch}: {len(self._skipped)}, "
                    f"allowed by max_skipped: {self._max_skipped})"
                )
            log.warning("left out %s: %s", image_id, reason)

    def _fingerprint(self) -> str:
        """Which samples lie where and, if that matters, how long they are."""
        content = "\n".join("/".join([shard.bucket, *shard.ids]) for shard in self.index.shards)
        lengths = b"" if self._settings["max_tokens"] is None else self._tokens.tobytes()
        return hashlib.sha256(content.encode() + lengths).hexdigest()

    def _measure(
        self, kinds: tuple[str, ...], *, within_bucket: bool
    ) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.int64]]]:
        """Tokens of each sample (of the kind that has most), and which samples may share a batch."""
        tokens = np.ones(self.index.samples, dtype=np.int64)
        for kind in kinds:
            layout = self.index.kinds[kind].layout
            if layout == "tokens":
                tokens = np.maximum(tokens, self._fetcher.grids(kind).prod(axis=1))
            elif layout == "channels" and not within_bucket and len(np.unique(self._fetcher.grids(kind), axis=0)) > 1:
                raise UsageError(
                    f"{kind} of several buckets do not stack; leave within_bucket on, or {kind} out of kinds"
                )
        names = sorted({shard.bucket for shard in self.index.shards})
        buckets = np.array([names.index(shard.bucket) for shard in self.index.shards], dtype=np.int64)
        group = buckets[self._fetcher.shard] if within_bucket else np.zeros(len(tokens), dtype=np.int64)
        return tokens, group


class _Batches(Dataset[Batch]):
    """Batches by the list of their samples, as `DataLoader` asks for them."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher

    def __getitem__(self, indices: list[int]) -> Batch:
        return self._fetcher.batch(indices)


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _affine(index: ShardIndex, kinds: tuple[str, ...], normalise: Mapping[str, Normalisation]) -> dict[str, Affine]:
    changes = {}
    for kind, given in normalise.items():
        if kind not in kinds or index.kinds[kind].layout != "tokens":
            raise UsageError(
                f"{kind} cannot be normalised: it is not read, or has no tokens; read are {', '.join(kinds)}"
            )
        index.stamp(kind).require(given.stamp, what=f"{kind} (in the shards, and behind the statistics)")
        mean, std = torch.tensor(given.mean, dtype=torch.float64), torch.tensor(given.std, dtype=torch.float64)
        if mean.shape != std.shape or mean.shape != (index.kinds[kind].dim,):
            raise StampError(f"statistics of {tuple(mean.shape)} features do not fit {kind} of {index.kinds[kind].dim}")
        changes[kind] = Affine.standardising(mean.float(), std.float())
    return changes
