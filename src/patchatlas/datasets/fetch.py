"""Read samples of shards into a batch: tokens go from the file into their place in one step, nothing is unpickled.

Axes: b samples, n tokens of a sample, d features.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from numpy import ndarray
from torch import Tensor
from torch.utils.data import get_worker_info

from patchatlas.datasets.batch import Batch, Packed, Padded, cumulative, packed_coordinates, padded_coordinates
from patchatlas.errors import FormatError
from patchatlas.io.codecs import StoredDtype, decode_array, read_header, value_bytes
from patchatlas.io.shards import RECORD, Column, ShardFile, ShardIndex, ShardReader

SequenceLayout = Literal["padded", "packed"]

# Stored numbers that lie in the file as torch has them in memory.
_PLAIN: dict[str, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Affine:
    """`x * scale + shift` for each channel.

    Attributes:
        scale: factor.
        shift: summand.
    """

    scale: Float32[Tensor, " d"]
    shift: Float32[Tensor, " d"]

    @classmethod
    def standardising(cls, mean: Float32[Tensor, " d"], std: Float32[Tensor, " d"]) -> "Affine":
        """Takes the mean away and divides by the standard deviation; a channel that never changes becomes zero."""
        scale = torch.where(std > 0, 1 / std, 1.0)
        return Affine(scale, -mean * scale)

    def apply_(self, values: Float32[Tensor, "n d"]) -> None:
        """Change `values` in place."""
        torch.addcmul(self.shift, values, self.scale, out=values)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is read of each sample.

    Attributes:
        kinds: which kinds.
        layout: how tokens of several samples lie together.
        dtype: of all values.
        coordinates: also give the centre of each patch.
        affine: kind -> change of its tokens.
        records: also read the manifest records.
    """

    kinds: tuple[str, ...]
    layout: SequenceLayout
    dtype: torch.dtype
    coordinates: bool
    affine: Mapping[str, Affine]
    records: bool


class _UnreadableError(FormatError):
    """A member that is not what the index says, with the sample it is of."""

    def __init__(self, index: int, image_id: str, reason: str) -> None:
        super().__init__(f"{image_id}: {reason}")
        self.index = index
        self.image_id = image_id
        self.reason = reason


class Fetcher:
    """Reads batches. Samples are numbered through all shards in the order of the index.

    Args:
        reader: of the shards.
        index: what is there.
        wanted: what to read.
    """

    def __init__(self, reader: ShardReader, index: ShardIndex, wanted: Wanted) -> None:
        self._reader, self._index, self._wanted = reader, index, wanted
        sizes = [len(shard.ids) for shard in index.shards]
        self.shard: Int64[ndarray, " n"] = np.repeat(np.arange(len(sizes)), sizes)
        self._row: Int64[ndarray, " n"] = np.concatenate([np.arange(size) for size in sizes])
        self._scratch: UInt8[Tensor, " bytes"] = torch.empty(0, dtype=torch.uint8)

    def grids(self, kind: str) -> Int64[ndarray, "n ndim"]:
        """Grid of each sample."""
        return np.concatenate([_grid(shard.columns[kind]) for shard in self._index.shards])

    def batch(self, indices: Sequence[int]) -> Batch:
        """Read some samples; those that cannot be read are named in `skipped`, and whoever asked decides on them."""
        left, skipped = list(indices), list[tuple[str, str]]()
        while True:
            try:
                return replace(self._read(left), skipped=tuple(skipped))
            except _UnreadableError as error:
                skipped.append((error.image_id, error.reason))
                left.remove(error.index)

    def _read(self, indices: Sequence[int]) -> Batch:
        sequences: dict[str, Padded | Packed] = {}
        stacked: dict[str, Tensor] = {}
        for kind in self._wanted.kinds if indices else ():
            if self._index.kinds[kind].layout == "tokens":
                sequences[kind] = self._sequences(kind, indices)
            else:
                arrays = [self._array(kind, index) for index in indices]
                stacked[kind] = torch.stack(arrays).to(self._wanted.dtype)
        ids = tuple(self._image_id(index) for index in indices)
        records = tuple(self._record(index) if self._wanted.records else {} for index in indices)
        return Batch(ids, records, sequences, stacked)

    def _sequences(self, kind: str, indices: Sequence[int]) -> Padded | Packed:
        facts, wanted = self._index.kinds[kind], self._wanted
        grids = np.stack([_grid(self._column(kind, index)[0])[self._row[index]] for index in indices])
        lengths = grids.prod(axis=1).tolist()
        affine = wanted.affine.get(kind)
        # Statistics are applied in float32, whatever comes out.
        dtype = wanted.dtype if affine is None else torch.float32
        if wanted.layout == "padded":
            values = _empty((len(indices), max(lengths), facts.dim), dtype)
            places = [values[i, :n] for i, n in enumerate(lengths)]
            for i, n in enumerate(lengths):
                values[i, n:] = 0
        else:
            values = _empty((sum(lengths), facts.dim), dtype)
            places = list(values.split(lengths))
        for index, place in zip(indices, places, strict=True):
            self._tokens_into(place, kind, index)
            if affine is not None:
                affine.apply_(place)
        values = values.to(wanted.dtype)
        grid, length = torch.from_numpy(grids), torch.tensor(lengths)
        if wanted.layout == "padded":
            mask = torch.arange(max(lengths)) < length[:, None]
            return Padded(values, mask, grid, padded_coordinates(grid, max(lengths)) if wanted.coordinates else None)
        where = packed_coordinates(grid) if wanted.coordinates else None
        return Packed(values, cumulative(length), max(lengths), grid, where)

    def _tokens_into(self, place: Tensor, kind: str, index: int) -> None:
        """Fill `place` (n, d) with the tokens of a sample."""
        facts = self._index.kinds[kind]
        if facts.dtype not in _PLAIN:
            array = self._array(kind, index)
            if array.shape != place.shape:
                raise self._unreadable(index, f"{kind} has shape {tuple(array.shape)}, not {tuple(place.shape)}")
            place.copy_(array)
            return
        column, file = self._column(kind, index)
        row = self._row[index]
        payload = value_bytes(tuple(place.shape), facts.dtype)
        head = bytearray(max(0, int(column.size[row]) - payload))
        stored = _PLAIN[facts.dtype]
        raw = place if stored == place.dtype else self._room(payload).view(stored).reshape(place.shape)
        try:
            self._reader.read_into(file, int(column.offset[row]), [memoryview(head), _bytes_of(raw)])
            _require_header(bytes(head), payload, facts.dtype, tuple(place.shape))
        except FormatError as error:
            raise self._unreadable(index, f"{kind}: {error}") from error
        if raw is not place:
            place.copy_(raw)

    def _array(self, kind: str, index: int) -> Float32[Tensor, "..."]:
        column, file = self._column(kind, index)
        row = self._row[index]
        try:
            content = self._reader.read(file, int(column.offset[row]), int(column.size[row]))
            return decode_array(content, self._index.kinds[kind].dtype)
        except FormatError as error:
            raise self._unreadable(index, f"{kind}: {error}") from error

    def _record(self, index: int) -> Mapping[str, object]:
        column, file = self._column(RECORD, index)
        row = self._row[index]
        try:
            record = json.loads(self._reader.read(file, int(column.offset[row]), int(column.size[row])))
        except ValueError as error:  # FormatError is one, too
            raise self._unreadable(index, f"record: {error}") from error
        if not isinstance(record, dict) or record.get("image_id") != self._image_id(index):
            raise self._unreadable(index, "its record is that of another picture")
        return record

    def _column(self, kind: str, index: int) -> tuple[Column, ShardFile]:
        shard = self._index.shards[int(self.shard[index])]
        column = shard.columns[kind]
        return column, shard.files[column.part]

    def _image_id(self, index: int) -> str:
        return self._index.shards[int(self.shard[index])].ids[int(self._row[index])]

    def _room(self, size: int) -> UInt8[Tensor, " bytes"]:
        """Memory for one sample that is used again and again: fresh pages cost more than the copy itself."""
        if len(self._scratch) < size:
            self._scratch = torch.empty(size, dtype=torch.uint8)
        return self._scratch[:size]

    def _unreadable(self, index: int, reason: str) -> _UnreadableError:
        return _UnreadableError(index, self._image_id(index), reason)


def _grid(column: Column) -> Int64[ndarray, "n ndim"]:
    assert column.grid is not None, "kinds of tokens have a grid"
    return column.grid


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory for a batch; in a worker, memory that the main process sees without another copy."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=dtype)
    storage = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize)
    shared: Tensor = torch.empty(0, dtype=dtype).set_(storage, 0, shape)  # type: ignore[call-overload]
    return shared


def _bytes_of(tensor: Tensor) -> memoryview:
    return memoryview(tensor.view(torch.uint8).numpy().data)


@lru_cache(maxsize=1024)
def _require_header(head: bytes, payload: int, dtype: StoredDtype, shape: tuple[int, ...]) -> None:
    """Refuse a member whose header does not announce what the index says; equal headers are parsed once."""
    header = read_header(head + bytes(payload), expect=dtype)  # zeros stand for the values, which are elsewhere
    if header.shape != shape or header.offset != len(head):
        raise FormatError(f"it holds an array of shape {header.shape}, the index says {shape}; pack again")
