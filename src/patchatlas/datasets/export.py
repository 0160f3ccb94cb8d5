"""Stored features in other formats: Zarr with a group a bucket, safetensors files a bucket, a feature map an image.

Axes: n images of a bucket, rows and columns of the patch grid, d features.
"""

import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from patchatlas import __version__
from patchatlas.datasets.reading import entry_of, feature_map
from patchatlas.errors import InputError, MissingExtraError, PatchAtlasError, StampError
from patchatlas.files import replacing, sort_safetensors_metadata, sync_folder
from patchatlas.geometry.buckets import bucket_name
from patchatlas.io.disk import disk_errors
from patchatlas.io.feature_store import FeatureStore, SetHeader
from patchatlas.io.manifest import FeatureEntry, Record

FORMAT = "patchatlas.export"
VERSION = 1

OnProgress = Callable[[int, int], None]
"""Called with how many images are done and how many there are."""

_TORCH = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "int8": torch.float32}
"""How the numbers of a stored dtype are given away: int8 becomes float32, its scales being of no use elsewhere."""


@dataclass(frozen=True)
class Report:
    """What was exported.

    Attributes:
        written: files or folders.
        images: how many images they hold.
        left_out: (image path, reason) of those without the feature.
    """

    written: tuple[Path, ...]
    images: int
    left_out: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Bucket:
    """The images of one bucket, sorted by id, and their entries."""

    name: str
    records: tuple[Record, ...]
    entries: tuple[FeatureEntry, ...]


@dataclass(frozen=True)
class _Chosen:
    """What of a manifest can be exported."""

    header: SetHeader
    buckets: tuple[_Bucket, ...]
    left_out: tuple[tuple[str, str], ...]

    @property
    def images(self) -> int:
        return sum(len(bucket.records) for bucket in self.buckets)


def export_feature_maps(
    records: Iterable[Record],
    store: FeatureStore,
    output: Path,
    *,
    kind: str = "dinov3_patches",
    strict: bool = False,
    on_progress: OnProgress | None = None,
) -> Report:
    """One `{image_id}.safetensors` an image, which `FeatureMap.load` reads.

    Args:
        records: of the manifest.
        store: where the features lie.
        output: folder, made if it is not there; files in it are replaced.
        kind: patches to export; CLS and registers go along.
        strict: stop at the first image that lacks them.
        on_progress: see `OnProgress`.

    Raises:
        InputError: no image has this kind.
        StampError: features made in different ways.
        FormatError: a file is not what the manifest says.
        ResourceError: the disk is full, or the folder may not be written.
    """
    chosen = _choose(records, store, kind, strict=strict)
    written = []
    with disk_errors(output):
        output.mkdir(parents=True, exist_ok=True)
        for record in _counted([r for bucket in chosen.buckets for r in bucket.records], on_progress):
            path = output / f"{record.image_id}.safetensors"
            feature_map(record, store, kind).save(path)
            written.append(path)
    return Report(tuple(written), chosen.images, chosen.left_out)


def export_safetensors(
    records: Iterable[Record],
    store: FeatureStore,
    output: Path,
    *,
    kind: str = "dinov3_patches",
    max_mb: float = 1024,
    strict: bool = False,
    on_progress: OnProgress | None = None,
) -> Report:
    """Files `bucket_{W}x{H}-{number}.safetensors` with a tensor an image, named by its id, of shape (rows, columns, d).

    CLS, registers and latents keep the shape that they have. The metadata name stamp, encoder, bucket and, for each
    image, its path and the crop of the source that it shows.

    Args:
        records: of the manifest.
        store: where the features lie.
        output: folder, made if it is not there; files in it are replaced.
        kind: what to export.
        max_mb: size of a file, in 1e6 bytes; one image always goes in.
        strict: stop at the first image that lacks them.
        on_progress: see `OnProgress`.

    Raises:
        InputError: no image has this kind.
        StampError: features made in different ways.
        FormatError: a file is not what the manifest says.
        ResourceError: the disk is full, or the folder may not be written.
    """
    chosen = _choose(records, store, kind, strict=strict)
    dtype = _TORCH[chosen.buckets[0].entries[0].dtype]
    written = []
    done = 0
    with disk_errors(output):
        output.mkdir(parents=True, exist_ok=True)
        for bucket in chosen.buckets:
            size = _shape(store, bucket.entries[0])
            images = max(1, int(max_mb * 1e6) // (math.prod(size) * dtype.itemsize))
            for number, first in enumerate(range(0, len(bucket.records), images)):
                part = bucket.records[first : first + images]
                tensors = {}
                for record in part:
                    tensors[record.image_id] = _read(store, record.features[kind]).to(dtype)
                    done += 1
                    if on_progress is not None:
                        on_progress(done, chosen.images)
                path = output / f"bucket_{bucket.name}-{number:05d}.safetensors"
                facts = _facts(chosen.header) | {"bucket": bucket.name, "images": _places(part)}
                with replacing(path) as temporary:
                    save_file(tensors, temporary, {key: _text(value) for key, value in facts.items()})
                    sort_safetensors_metadata(temporary)
                written.append(path)
    return Report(tuple(written), chosen.images, chosen.left_out)


def export_zarr(
    records: Iterable[Record],
    store: FeatureStore,
    output: Path,
    *,
    kind: str = "dinov3_patches",
    strict: bool = False,
    on_progress: OnProgress | None = None,
) -> Report:
    """A Zarr store of version 3: group `bucket_{W}x{H}`, array `{kind}` of shape (images, rows, columns, d).

    An image is a chunk, uncompressed: features are noise to compressors. bf16 becomes float32, which Zarr knows. The
    store appears under its name when it is complete.

    Args:
        records: of the manifest.
        store: where the features lie.
        output: folder to make; it must not be there.
        kind: what to export.
        strict: stop at the first image that lacks them.
        on_progress: see `OnProgress`.

    Raises:
        MissingExtraError: zarr is not installed.
        InputError: `output` is there already, or no image has this kind.
        StampError: features made in different ways.
        FormatError: a file is not what the manifest says.
        ResourceError: the disk is full, or the folder may not be written.
    """
    try:
        import zarr
    except ImportError as error:
        raise MissingExtraError("zarr", extra="zarr", needed_for="export --to zarr") from error

    if output.exists():
        raise InputError(f"{output} is there already; name another folder or remove it first")
    chosen = _choose(records, store, kind, strict=strict)
    dtype = torch.float16 if chosen.buckets[0].entries[0].dtype == "fp16" else torch.float32
    temporary = output.with_name(f".{output.name}.part")
    done = 0
    try:
        with disk_errors(output):
            output.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)  # of a killed export
            root = zarr.create_group(store=str(temporary), attributes=_facts(chosen.header))
            for bucket in chosen.buckets:
                places = _places(bucket.records)
                group = root.create_group(f"bucket_{bucket.name}", attributes={"images": places})
                shape = _shape(store, bucket.entries[0])
                array = group.create_array(
                    name=kind,
                    shape=(len(bucket.records), *shape),
                    chunks=(1, *shape),
                    dtype="float16" if dtype == torch.float16 else "float32",
                    compressors=None,
                    dimension_names=["image", *_axes(shape, bucket.entries[0])],
                    attributes={"image_id": list(places)},
                )
                for row, entry in enumerate(bucket.entries):
                    array[row] = _read(store, entry).to(dtype).numpy()
                    done += 1
                    if on_progress is not None:
                        on_progress(done, chosen.images)
            temporary.rename(output)
            sync_folder(output.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Report((output,), chosen.images, chosen.left_out)


def _choose(records: Iterable[Record], store: FeatureStore, kind: str, *, strict: bool) -> _Chosen:
    """Images that have the feature, by bucket; all of one stamp."""
    header: SetHeader | None = None
    buckets: dict[str, list[tuple[Record, FeatureEntry]]] = {}
    left_out: list[tuple[str, str]] = []
    for record in sorted(records, key=lambda record: record.image_id):
        try:
            entry = entry_of(record, kind)
            store.require(entry)
        except StampError:
            raise
        except PatchAtlasError as error:
            if strict:
                raise
            left_out.append((record.image_path, str(error)))
            continue
        found = store.header(store.path(entry).parent)
        if header is not None:
            header.stamp.require(found.stamp, what=f"{kind} of this manifest")
        header = found
        name = "none" if record.aspect_bucket is None else bucket_name(record.aspect_bucket)
        buckets.setdefault(name, []).append((record, entry))
    if header is None:
        why = f" (the first: {left_out[0][1]})" if left_out else ""
        raise InputError(f"no image of the manifest has {kind}{why}; run `features build` first, or name another kind")
    sorted_buckets = tuple(
        _Bucket(name, tuple(record for record, _ in pairs), tuple(entry for _, entry in pairs))
        for name, pairs in sorted(buckets.items())
    )
    return _Chosen(header, sorted_buckets, tuple(left_out))


def _counted(records: Sequence[Record], on_progress: OnProgress | None) -> Iterator[Record]:
    for done, record in enumerate(records, start=1):
        yield record
        if on_progress is not None:
            on_progress(done, len(records))


def _read(store: FeatureStore, entry: FeatureEntry) -> Tensor:
    """Features of an entry: patches over their grid, everything else as stored."""
    values = store.read(entry)
    return values.reshape(*entry.grid, entry.dim) if entry.grid is not None and values.ndim == 2 else values


def _shape(store: FeatureStore, entry: FeatureEntry) -> tuple[int, ...]:
    return tuple(_read(store, entry).shape)


def _axes(shape: tuple[int, ...], entry: FeatureEntry) -> list[str]:
    if entry.grid is None:
        return ["token", "feature"][-len(shape) :]
    return ["y", "x", "feature"] if shape[-1] == entry.dim else ["feature", "y", "x"]


def _facts(header: SetHeader) -> dict[str, Any]:
    """What every exported file says of how it was made."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "package": __version__,
        "kind": header.kind,
        "stamp": json.loads(header.stamp.to_json()),
        "stamp_sha256": header.stamp.digest,
        "spec": None if header.spec is None else asdict(header.spec),
    }


def _places(records: Sequence[Record]) -> dict[str, Any]:
    """Path and crop of each image, by id."""
    return {
        record.image_id: {
            "image_path": record.image_path,
            "crop_source": None if record.crop_source is None else [str(edge) for edge in record.crop_source],
        }
        for record in records
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
