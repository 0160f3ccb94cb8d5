"""What a build will make and whether it pays: counts, bytes, hours, and cached features against encoding every time.

MB and GB are 1e6 and 1e9 bytes. Files have a header of some 128 to 256 bytes on top, which is left out.
"""

import math
import os
import secrets
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from patchatlas.encoders.protocol import Encoder
from patchatlas.errors import InputError
from patchatlas.geometry.buckets import Hw, to_patches
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.grid import PatchGrid
from patchatlas.io.codecs import STORED_DTYPES, StoredDtype, value_bytes
from patchatlas.io.disk import disk_errors
from patchatlas.io.manifest import MIGRATE, Record
from patchatlas.spec import EncoderSpec

TRIAL_BYTES = 64_000_000
"""What the disk is timed with: more than its own memory holds, little enough to take a moment."""

TRANSFORMERS = frozenset({"dinov2", "dinov3", "vit3d"})
"""Families whose cost is that of `forward_flops`; the others cost as much as they have tokens."""


@dataclass(frozen=True, kw_only=True)
class BucketPlan:
    """What one picture of a bucket becomes, and how many there are.

    Attributes:
        bucket: (h, w).
        images: pictures.
        input_size: (h, w) that the encoder sees.
        grid: (rows, columns).
        bytes: of the patches of one picture, by dtype; int8 with its scales.
    """

    bucket: Hw
    images: int
    input_size: Hw
    grid: Hw
    bytes: Mapping[StoredDtype, int]

    @property
    def tokens(self) -> int:
        """Patches of one picture."""
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a build will make.

    Attributes:
        buckets: those that have pictures, the fullest first.
        skipped: pictures that cannot be used.
        beside: bytes of CLS and registers of one picture, always fp32.
    """

    buckets: tuple[BucketPlan, ...]
    skipped: int
    beside: int

    @property
    def images(self) -> int:
        """Pictures that will be encoded."""
        return sum(bucket.images for bucket in self.buckets)

    @property
    def tokens(self) -> int:
        """Patches of all pictures."""
        return sum(bucket.images * bucket.tokens for bucket in self.buckets)

    def total_bytes(self, dtype: StoredDtype) -> int:
        """Of all files, headers left out."""
        return sum(bucket.images * (bucket.bytes[dtype] + self.beside) for bucket in self.buckets)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long the encoder takes.

    Attributes:
        bucket: (h, w) that was timed.
        batch: pictures of a forward.
        seconds: of one picture, the median over the forwards.
        forwards: how many were timed.
    """

    bucket: Hw
    batch: int
    seconds: float
    forwards: int


@dataclass(frozen=True, kw_only=True)
class DiskSpeed:
    """Bytes a second.

    Attributes:
        read: from the disk itself, not from memory.
        write: until the disk says that it has them.
    """

    read: float
    write: float


@dataclass(frozen=True, kw_only=True)
class BreakEven:
    """Cached features against encoding in every epoch, in seconds of one picture.

    Attributes:
        encode: making the features.
        write: storing them once.
        read: reading them back, each epoch.
        epochs: number of epochs from which on caching takes less time in all; `None` where reading is no faster than
            encoding, so that it never does.
    """

    encode: float
    write: float
    read: float
    epochs: int | None

    def gain(self, epochs: int) -> float:
        """How many times faster caching is over so many epochs."""
        return epochs * self.encode / (self.encode + self.write + epochs * self.read)


def plan_bucket(bucket: Hw, images: int, *, patch: Hw, dim: int) -> BucketPlan:
    """What pictures of one bucket become: the whole bucket at the size rounded half-up to whole patches."""
    grid = PatchGrid.on(to_patches(Frame.whole(bucket), patch), patch)
    shape = (grid.count, dim)
    return BucketPlan(
        bucket=bucket,
        images=images,
        input_size=(grid.frame.size[0], grid.frame.size[1]),
        grid=(grid.shape[0], grid.shape[1]),
        bytes={dtype: value_bytes(shape, dtype) for dtype in STORED_DTYPES},
    )


def plan_build(records: Iterable[Record], *, patch: Hw, dim: int, registers: int = 0, has_cls: bool = True) -> Plan:
    """What a build of these records will make.

    Args:
        records: of a manifest, or of a scan.
        patch: (h, w) of the encoder.
        dim: length of its tokens.
        registers: register tokens.
        has_cls: whether it has a class token.

    Raises:
        InputError: a record that was not skipped has no bucket; the message says to migrate.
    """
    counts: Counter[Hw] = Counter()
    skipped = 0
    for record in records:
        if record.status == "skipped":
            skipped += 1
        elif record.aspect_bucket is None:
            raise InputError(f"aspect_bucket not found for {record.image_path!r}; {MIGRATE}")
        else:
            counts[record.aspect_bucket] += 1
    fullest = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return Plan(
        buckets=tuple(plan_bucket(bucket, images, patch=patch, dim=dim) for bucket, images in fullest),
        skipped=skipped,
        beside=(int(has_cls) + registers) * dim * torch.float32.itemsize,
    )


def forward_flops(tokens: int, *, patches: int, patch_area: int, dim: int, depth: int) -> int:
    """Multiplications and additions of one picture in a ViT whose hidden layer is 4 wide.

    Each block: 24 T d^2 for q, k, v, the projection and the hidden layer, 4 T^2 d for attention; once 2 N 3 p^2 d for
    the patches.
    """
    return depth * (24 * tokens * dim**2 + 4 * tokens**2 * dim) + 2 * patches * 3 * patch_area * dim


def relative_cost(bucket: BucketPlan, spec: EncoderSpec) -> float:
    """What a picture of this bucket costs, in a unit that is the same for all buckets of one encoder."""
    if spec.family not in TRANSFORMERS:
        return float(bucket.tokens)
    tokens = bucket.tokens + spec.registers + int(spec.has_cls)
    area = math.prod(spec.patch)
    return float(forward_flops(tokens, patches=bucket.tokens, patch_area=area, dim=spec.dim, depth=spec.depth))


def time_encoder(
    encoder: Encoder, bucket: BucketPlan, *, token_budget: int = 8192, seconds: float = 10.0, forwards: int = 5
) -> Timing:
    """Time forwards over noise of one bucket, after one that warms up.

    Args:
        encoder: what will be built with.
        bucket: which size; take the fullest.
        token_budget: patches of a batch; at least one picture is taken.
        seconds: begin no further forward after so long; one is always timed.
        forwards: time no more than so many.
    """
    batch = max(1, token_budget // bucket.tokens)
    h, w = bucket.input_size
    noise = torch.rand(batch, encoder.spec.channels, h, w, generator=torch.Generator().manual_seed(0))
    pixels = noise.to(encoder.device)
    _timed(encoder, pixels)
    taken: list[float] = []
    while not taken or (len(taken) < forwards and sum(taken) < seconds):
        taken.append(_timed(encoder, pixels))
    return Timing(bucket=bucket.bucket, batch=batch, seconds=statistics.median(taken) / batch, forwards=len(taken))


def encode_seconds(plan: Plan, timing: Timing, spec: EncoderSpec) -> float:
    """Seconds to encode all pictures of a plan: the timed bucket's, the others by their cost."""
    costs = {bucket.bucket: relative_cost(bucket, spec) for bucket in plan.buckets}
    unit = timing.seconds / costs[timing.bucket]
    return sum(bucket.images * costs[bucket.bucket] * unit for bucket in plan.buckets)


def break_even(*, encode: float, size: float, disk: DiskSpeed) -> BreakEven:
    """From how many epochs on it pays to store features.

    Stored: encode once, write once, read each epoch. Not stored: encode each epoch. Reading and decoding the pictures
    and whatever uses the features is left out on both sides.

    Args:
        encode: seconds to encode a picture.
        size: bytes of its features.
        disk: speed of the disk they lie on.
    """
    write, read = size / disk.write, size / disk.read
    epochs = math.ceil((encode + write) / (encode - read)) if read < encode else None
    return BreakEven(encode=encode, write=write, read=read, epochs=epochs)


def time_disk(folder: Path, *, size: int = TRIAL_BYTES) -> DiskSpeed:
    """Write a file of `size` bytes in `folder`, read it back past the system's memory, and remove it.

    Raises:
        InputError: there is no such folder.
        ResourceError: the disk is full, or the folder may not be written.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder} to time; create it first, or give the speed of its disk")
    path = folder / f".trial.{secrets.token_hex(4)}.part"  # a name that the next build sweeps away
    content = os.urandom(1 << 20) * (size >> 20 or 1)
    try:
        with disk_errors(path):
            begin = time.perf_counter()
            with path.open("w+b") as handle:  # opened once: a build that begins meanwhile may sweep its name away
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
                written = time.perf_counter() - begin
                handle.seek(0)
                if hasattr(os, "posix_fadvise"):  # elsewhere the file may be read from memory, and looks faster
                    os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                begin = time.perf_counter()
                while handle.read(1 << 22):
                    pass
                read = time.perf_counter() - begin
    finally:
        path.unlink(missing_ok=True)
    return DiskSpeed(read=len(content) / read, write=len(content) / written)


def _timed(encoder: Encoder, pixels: torch.Tensor) -> float:
    _settle(encoder.device)
    begin = time.perf_counter()
    encoder(pixels)
    _settle(encoder.device)
    return time.perf_counter() - begin


def _settle(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
