"""Which sample comes when, and the batches of a run from any step on.

The samples of a run are numbered from 0. Step by step, micro-batch by micro-batch, process by process they are taken in
order, so a number says all: the epoch is the number over the count of volumes or photographs, and its place in that
epoch's own order says which. Two processes with a batch of 8 see in a step what one with 16 sees, and a run that
resumes at a step sees what it would have seen.
"""

import hashlib
import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from patchatlas.errors import UsageError
from patchatlas.pretrain.cache import open_cache
from patchatlas.pretrain.config import PretrainConfig
from patchatlas.pretrain.crops.config import CropConfig
from patchatlas.pretrain.crops.photos import PhotoViews, open_photos
from patchatlas.pretrain.crops.records import Batch, Sample, collate
from patchatlas.pretrain.crops.views import Views
from patchatlas.pretrain.losses.ranks import Ranks

log = logging.getLogger(__name__)


@runtime_checkable
class Source(Protocol):
    """What gives samples: crops of volumes, or of photographs."""

    def __len__(self) -> int:
        """Volumes or photographs."""

    def sample(self, index: int, epoch: int) -> Sample:
        """All crops of one of them, the same whenever it is asked for."""


@dataclass(frozen=True)
class Opened:
    """What a run learns from.

    Attributes:
        source: of its samples.
        fingerprint: of everything that it holds; a run resumes with the same only.
        spacing_mm: a voxel of a large crop along each axis, the median over volumes; `None` for photographs.
        skipped: name of each file that cannot be used, and why.
    """

    source: Source
    fingerprint: str
    spacing_mm: tuple[float, ...] | None
    skipped: tuple[tuple[str, str], ...] = ()


def open_source(config: PretrainConfig) -> Opened:
    """Open the cache of volumes or the folder of photographs that a config names.

    Raises:
        InputError: it is not there, or holds nothing.
        FormatError: the cache is damaged.
    """
    crops, seed = config.crops, config.train.seed
    if not isinstance(crops, CropConfig):
        photos = open_photos(config.data)
        names = (f"{record.id}:{record.size_hw}" for record in photos.records)
        views = PhotoViews(photos, crops, seed=seed, keep_bytes=config.train.photo_mib * 2**20)
        return Opened(views, _fingerprint(names), None, photos.skipped)
    cache = open_cache(config.data)
    names = (f"{record.id}:{record.sha256}:{record.size_zyx}" for record in cache.records)
    volumes = Views(cache, crops, seed=seed)
    _warn_of_padding(crops, [(record.size_zyx, record.spacing_zyx) for record in cache.records])
    return Opened(volumes, _fingerprint(names), _spacing(crops, [record.spacing_zyx for record in cache.records]))


def _warn_of_padding(crops: CropConfig, volumes: list[tuple[tuple[int, ...], tuple[float, ...]]]) -> None:
    """Say so where no volume, of so many voxels of so many mm, holds a whole global crop."""
    size, mm = crops.globals.size, crops.globals.mm
    for voxels, spacing in volumes:
        wanted = size if mm is None else tuple(side / one for side, one in zip(mm, spacing, strict=True))
        if all(need <= has for need, has in zip(wanted, voxels, strict=True)):
            return
    largest = max((voxels for voxels, _ in volumes), key=math.prod)
    log.warning(
        "a global crop of %s voxels is larger than each of the %d volumes (the largest %s) along some axis, so all are "
        "padded; take smaller crops (crops.globals.size)",
        *(" x ".join(map(str, size)), len(volumes), " x ".join(map(str, largest))),
    )


def _spacing(crops: CropConfig, spacings: list[tuple[float, float, float]]) -> tuple[float, ...]:
    if crops.globals.mm is not None:
        return tuple(mm / side for mm, side in zip(crops.globals.mm, crops.globals.size, strict=True))
    return tuple(median(axis) for axis in zip(*spacings, strict=True))


def _fingerprint(names: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def numbers(config: PretrainConfig, ranks: Ranks, step: int) -> list[list[int]]:
    """Numbers of the samples that a process takes in a step, micro-batch by micro-batch."""
    batch = config.train.batch
    first = step * samples_of_step(config, ranks)
    starts = [first + (micro * ranks.size + ranks.rank) * batch for micro in range(config.train.accumulate)]
    return [list(range(start, start + batch)) for start in starts]


def samples_of_step(config: PretrainConfig, ranks: Ranks) -> int:
    """Samples that all processes take together in a step."""
    return config.train.batch * config.train.accumulate * ranks.size


def place(number: int, count: int, seed: int) -> tuple[int, int]:
    """Which of `count` volumes a sample is of, and the epoch: every epoch takes each of them once, in its own order."""
    epoch, position = divmod(number, count)
    return int(_order(epoch, count, seed)[position]), epoch


@lru_cache(maxsize=4)
def _order(epoch: int, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


class _Numbered(Dataset[Sample]):
    """Samples by their number in the run."""

    def __init__(self, source: Source, seed: int) -> None:
        self._source = source
        self._seed = seed

    def __getitem__(self, number: int) -> Sample:
        return self._source.sample(*place(number, len(self._source), self._seed))


def batches(source: Source, config: PretrainConfig, ranks: Ranks, *, first_step: int, pin: bool) -> Iterator[Batch]:
    """The micro-batches of a process, from a step to the last of the run.

    Args:
        source: of samples.
        config: how many, and how many processes read them.
        ranks: which of the training processes asks.
        first_step: where to begin.
        pin: put them in page-locked memory, for an accelerator.

    Raises:
        UsageError: nothing to take samples from.
    """
    if not len(source):
        raise UsageError(f"{config.data} holds nothing to learn from")
    steps = range(first_step, config.train.steps)
    plan = (micro for step in steps for micro in numbers(config, ranks, step))
    samples = _Numbered(source, config.train.seed)
    if not config.train.workers:
        for micro in plan:
            yield collate([samples[number] for number in micro])
        return
    loader: DataLoader[Sample] = DataLoader(
        samples,
        batch_sampler=plan,
        num_workers=config.train.workers,
        collate_fn=collate,
        pin_memory=pin,
        multiprocessing_context="spawn",  # a fork copies the threads' locks of torch and blosc2, but not the threads
        generator=torch.Generator(),  # only so that torch's global one is left alone; samples do not depend on it
    )
    yield from loader
