"""Batches through decode, encode and write at once, in threads, within a fixed window of batches.

The calling thread hands out batches in order and commits them in the same order: it waits for a batch's files, syncs
their folders and adds one line to the journal. At any time a few batches are under way, which bounds the memory. The
decoders read and resample pictures; encoders (on CPUs one torch thread each: two forwards beside each other lose less
than two threads in one) take whole batches; writers store features.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from patchatlas.datasets.build.journal import Finished, Journal
from patchatlas.datasets.build.memory import Halving
from patchatlas.datasets.build.passes import FeaturePass, Kind, input_size
from patchatlas.datasets.build.units import Batch
from patchatlas.datasets.fidelity import FidelityLog
from patchatlas.encoders.matmul import fast_float32
from patchatlas.errors import FormatError
from patchatlas.files import sync_folder
from patchatlas.geometry.buckets import Hw
from patchatlas.io.codecs import encode_array
from patchatlas.io.disk import disk_errors
from patchatlas.io.feature_store import FeatureStore
from patchatlas.io.manifest import FeatureEntry, Record, RecordError
from patchatlas.io.reasons import PictureError

log = logging.getLogger(__name__)

Draw = Callable[[Record], Tensor]
"""A record to its pixels (3, h, w); raises `PictureError`."""

AHEAD = 2
"""Batches under way beyond those that are being encoded."""


@dataclass(frozen=True, kw_only=True)
class Workers:
    """How many threads do what.

    Attributes:
        decode: threads that read and resample.
        encode: batches that are encoded at once.
        encode_threads: torch threads of each.
        write: threads that store.
    """

    decode: int
    encode: int
    encode_threads: int
    write: int

    @classmethod
    def choose(cls, device: torch.device, *, cores: int, decode: int | None = None) -> "Workers":
        """For a device and a number of cores; `decode` overrides the first."""
        encode = min(cores, 8) if device.type == "cpu" else 2
        return Workers(
            decode=decode or cores,
            encode=encode,
            encode_threads=max(1, cores // encode),
            write=min(8, 2 + cores),
        )


@dataclass(frozen=True)
class Committed:
    """A batch that is on the disk and in the journal.

    Attributes:
        batch: its pictures.
        finished: what became of them.
        bytes: of features written.
    """

    batch: Batch
    finished: Finished
    bytes: int


@dataclass(frozen=True)
class _Written:
    entries: dict[str, dict[str, Future[FeatureEntry]]]
    skipped: dict[str, RecordError]


def run_batches(
    batches: Iterable[Batch],
    feature_pass: FeaturePass,
    *,
    draw: Draw,
    store: FeatureStore,
    journal: Journal,
    workers: Workers,
    fidelity: Mapping[str, FidelityLog] | None = None,
    strict: bool = False,
) -> Iterator[Committed]:
    """Encode and store the wanted rows of each batch; yields batches in order, each when it is safe.

    Rows that are not wanted, and pictures that cannot be read, are zeros in their batch, so that the others keep their
    place and their bits.

    Args:
        batches: those without a wanted row cost nothing.
        feature_pass: what is made of them.
        draw: gives the pixels.
        store: its sets are open.
        journal: of this worker.
        workers: how many threads do what.
        fidelity: by kind, where it is noted what storing costs.
        strict: stop at the first picture that cannot be used.

    Raises:
        PictureError: such a picture, if `strict`.
        FormatError: features that the storage cannot hold; the message names the picture.
        ResourceError: memory, even for one picture, or the disk.
    """
    halving = Halving()
    logs = fidelity or {}

    def encode(batch: Batch, rows: dict[int, Future[Tensor]]) -> _Written:
        pixels, skipped = _gather(batch, rows, feature_pass, strict=strict)
        if len(skipped) == len(rows):
            return _Written({}, skipped)
        forward = partial(_features, feature_pass, batch)
        made = halving(forward, pixels, where=str(feature_pass.device))
        wanted = [(row, batch.records[row]) for row in rows if batch.records[row].image_id not in skipped]
        files = {
            record.image_id: {
                kind.name: writers.submit(
                    _store, store, kind, batch.bucket, record, made[kind.name][row], logs.get(kind.name)
                )
                for kind in feature_pass.kinds
            }
            for row, record in wanted
        }
        return _Written(files, skipped)

    with ExitStack() as pools:
        pools.enter_context(_torch_threads_restored())
        pools.enter_context(fast_float32(feature_pass.device))  # around all encoders: it is a switch of the process
        writers = _pool(pools, workers.write, "write", 1)
        encoders = _pool(pools, workers.encode, "encode", workers.encode_threads)
        decoders = _pool(pools, workers.decode, "decode", 1)
        under_way: deque[tuple[Batch, Future[_Written]]] = deque()
        for batch in batches:
            if not batch.wanted:
                continue
            rows = {row: decoders.submit(draw, batch.records[row]) for row in batch.wanted}
            under_way.append((batch, encoders.submit(encode, batch, rows)))
            if len(under_way) >= workers.encode + AHEAD:
                yield _commit(*under_way.popleft(), store=store, feature_pass=feature_pass, journal=journal)
        while under_way:
            yield _commit(*under_way.popleft(), store=store, feature_pass=feature_pass, journal=journal)


def _features(feature_pass: FeaturePass, batch: Batch, pixels: Tensor) -> dict[str, Tensor]:
    with torch.inference_mode():
        return feature_pass.features(pixels, batch.bucket)


def _gather(
    batch: Batch, rows: dict[int, Future[Tensor]], feature_pass: FeaturePass, *, strict: bool
) -> tuple[Tensor, dict[str, RecordError]]:
    """Pixels of a whole batch, (b, 3, h, w), and the pictures that could not be drawn."""
    size = input_size(batch.bucket, feature_pass.patch)
    pixels = torch.zeros(len(batch.records), 3, *size, pin_memory=feature_pass.device.type == "cuda")
    skipped = {}
    for row, drawn in rows.items():
        try:
            pixels[row] = drawn.result()
        except PictureError as error:
            if strict:
                raise
            skipped[batch.records[row].image_id] = RecordError(type=error.reason, message=str(error))
    return pixels, skipped


def _store(
    store: FeatureStore, kind: Kind, bucket: Hw, record: Record, values: Tensor, fidelity: FidelityLog | None
) -> FeatureEntry:
    try:
        content = encode_array(values, kind.dtype, channel_axis=kind.channel_axis)
    except FormatError as error:
        raise FormatError(f"{kind.name} of {record.image_path}: {error}") from error
    if fidelity is not None and fidelity.wants(record.image_id):
        fidelity.add(record.image_id, values, content)  # before the file, so that a file that is there was measured
    return store.write(
        kind.name,
        kind.stamp,
        record.image_id,
        content,
        grid=None if kind.grids is None else kind.grids[bucket],
        dim=kind.dim,
        dtype=kind.dtype,
    )


def _commit(
    batch: Batch, encoded: Future[_Written], *, store: FeatureStore, feature_pass: FeaturePass, journal: Journal
) -> Committed:
    """Wait for the files of a batch, make their names last, and only then say in the journal that they are there."""
    written = encoded.result()
    done = {name: {kind: file.result() for kind, file in files.items()} for name, files in written.entries.items()}
    if done:
        for kind in feature_pass.kinds:
            folder = store.folder(kind.name, kind.stamp)
            with disk_errors(folder):
                sync_folder(folder)
    ended = done.keys() | written.skipped.keys()
    sources = {record.image_id: record.sha256 for record in batch.records if record.image_id in ended}
    finished = Finished(done, written.skipped, sources)
    journal.append(finished)
    for name, error in written.skipped.items():
        log.info("skipped %s: %s: %s", name, error.type, error.message)
    return Committed(batch, finished, sum(entry.bytes for entries in done.values() for entry in entries.values()))


def _pool(pools: ExitStack, threads: int, name: str, torch_threads: int) -> ThreadPoolExecutor:
    """A pool that is shut down with `pools`, its waiting work dropped."""
    pool = ThreadPoolExecutor(threads, name, initializer=torch.set_num_threads, initargs=(torch_threads,))
    pools.callback(pool.shutdown, wait=True, cancel_futures=True)
    return pool


@contextmanager
def _torch_threads_restored() -> Iterator[None]:
    """Put torch's number of threads back: what a pool sets for its own threads also becomes the default of new ones."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
