"""Small sets of features on disk, as a build leaves them, for the tests of shards and what reads them.

Token i of picture k is filled with k + i / 1000, so every value says where it belongs.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from patchatlas.datasets.recipe import Recipe, stamp_for
from patchatlas.encoders.fake import FakeEncoder
from patchatlas.geometry.buckets import Hw
from patchatlas.io.codecs import StoredDtype, encode_array
from patchatlas.io.feature_store import FeatureStore
from patchatlas.io.manifest import FeatureEntry, Record, RecordError
from patchatlas.stamp import Stamp

DIM = 8
PATCH = 16
BUCKETS: tuple[Hw, ...] = ((64, 64), (64, 96), (96, 64))
PATCHES, CLS, REGISTERS, LATENTS = "dinov3_patches", "dinov3_cls", "dinov3_registers", "vae_latents"
KINDS = (PATCHES, CLS, REGISTERS, LATENTS)


def stamp(*, storage: StoredDtype = "fp16", layer: int = 0, buckets: tuple[Hw, ...] = BUCKETS) -> Stamp:
    """A stamp of the fake encoder."""
    spec = replace(FakeEncoder().spec, layer=layer)
    return stamp_for(spec, Recipe(buckets=buckets, storage=storage))


def features(number: int, bucket: Hw) -> dict[str, Tensor]:
    """What is stored of picture `number`."""
    rows, columns = (side // PATCH for side in bucket)
    tokens = number + torch.arange(rows * columns)[:, None] / 1000 + torch.zeros(DIM)
    return {
        PATCHES: tokens,
        CLS: torch.full((DIM,), float(number)),
        REGISTERS: torch.full((2, DIM), -float(number)),
        LATENTS: torch.full((4, bucket[0] // 8, bucket[1] // 8), float(number)),
    }


def image_id(number: int) -> str:
    """Ids in no particular order of their numbers."""
    return f"photo_{number * 7919 % 1000:03d}-{number:08x}"


def number_of(name: str) -> int:
    """The picture's number, from its id."""
    return int(name.partition("-")[2], 16)


def build_set(
    derived: Path,
    count: int = 12,
    *,
    kinds: Sequence[str] = KINDS,
    storage: StoredDtype = "fp32",
    layer: int = 0,
    buckets: tuple[Hw, ...] = BUCKETS,
    first: int = 0,
) -> list[Record]:
    """Store features of `count` pictures in several buckets, unevenly, and return their records."""
    made = stamp(storage=storage, layer=layer, buckets=buckets)
    records = []
    with FeatureStore(derived) as store:
        for kind in kinds:
            store.open_set(kind, made, spec=FakeEncoder().spec, config={})
        for number in range(first, first + count):
            bucket = buckets[min(len(buckets) - 1, (number % 7) // 3)]
            entries = {kind: store_one(store, kind, made, number, bucket, storage) for kind in kinds}
            records.append(record(number, bucket, entries))
    return records


def store_one(
    store: FeatureStore, kind: str, made: Stamp, number: int, bucket: Hw, storage: StoredDtype
) -> FeatureEntry:
    """Store one kind of feature of one picture."""
    values = features(number, bucket)[kind]
    placed = kind in (PATCHES, LATENTS)
    dtype: StoredDtype = storage if placed else "fp32"
    shape = values.shape[1:] if kind == LATENTS else (bucket[0] // PATCH, bucket[1] // PATCH)
    content = encode_array(values, dtype, channel_axis=0 if kind == LATENTS else -1)
    return store.write(
        kind,
        made,
        image_id(number),
        content,
        grid=tuple(shape) if placed else None,
        dim=4 if kind == LATENTS else DIM,
        dtype=dtype,
    )


def record(number: int, bucket: Hw, entries: dict[str, FeatureEntry]) -> Record:
    """The manifest record of a picture."""
    return Record(
        image_path=f"pictures/{number}.jpg",
        image_id=image_id(number),
        width=2 * bucket[1],
        height=2 * bucket[0],
        aspect_bucket=bucket,
        caption=f"picture number {number}",
        features=entries,
    )


def skipped_record(number: int) -> Record:
    """The record of a picture that could not be read."""
    error = RecordError(type="truncated", message="the file ends in the middle of a row")
    return Record(image_path=f"pictures/{number}.jpg", image_id=image_id(number), status="skipped", error=error)
