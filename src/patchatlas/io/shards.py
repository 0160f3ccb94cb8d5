"""Shards of a data set: tar files in folders by bucket, with an index of where each member lies.

The format is described in docs/formats/shards-v1.md. Members are read by offset; nothing is extracted or unpickled.

Axes: n samples of a shard.
"""

import json
import os
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from patchatlas import __version__
from patchatlas.errors import FormatError, InputError, StampError
from patchatlas.files import write_text
from patchatlas.io.codecs import StoredDtype
from patchatlas.io.tar import first_member
from patchatlas.stamp import Stamp

FORMAT = "patchatlas.shards"
VERSION = 1
INDEX = "index.json"

STAMP_MEMBER = "__shard__"
"""First member of each tar. WebDataset passes over names of the form `__name__` (its `tariterators.py`), and readers
that split names at the first dot find none here; a `_shard.json` would be handed out as a sample without features."""

RECORD = "json"
"""The kind that holds a sample's record."""

WHOLE = ""
"""The part that holds all kinds, where shards are not split by kind."""


Layout = Literal["tokens", "channels", "vectors"]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What is the same for all members of a kind.

    Attributes:
        suffix: how their names end, `.npy` or `.safetensors`.
        dtype: stored numbers: fp32, fp16, bf16 or int8.
        dim: features of a token, channels of a latent.
        layout: `tokens`: (patches, dim), row-major over a grid; `channels`: (dim, rows, columns); `vectors`: (dim) or
            (count, dim), of no place.
        stamp: digest of the stamp under which they were made.
    """

    suffix: str
    dtype: StoredDtype
    dim: int
    layout: Layout
    stamp: str


@dataclass(frozen=True)
class ShardFile:
    """One tar file.

    Attributes:
        path: below the folder of the index, with slashes.
        size: bytes.
        sha256: of the whole file, in hex.
        plan: hash of what it holds, which the file itself names in its first member.
    """

    path: str
    size: int
    sha256: str
    plan: str


@dataclass(frozen=True, eq=False)
class Column:
    """Where the members of one kind lie in a shard, one a sample.

    Attributes:
        part: which of the shard's files holds them.
        offset: first byte of the content.
        size: bytes of the content.
        grid: rows and columns (rows, columns, ...) of the patches, or `None` where the kind has no grid.
    """

    part: str
    offset: Int64[ndarray, " n"]
    size: Int64[ndarray, " n"]
    grid: Int64[ndarray, "n ndim"] | None = None


@dataclass(frozen=True, eq=False)
class Shard:
    """Samples of one bucket that lie side by side.

    Attributes:
        bucket: `WxH`.
        ids: one a sample, sorted.
        files: part -> tar file; one part, `WHOLE`, unless split by kind.
        columns: kind -> places, `RECORD` among them.
    """

    bucket: str
    ids: tuple[str, ...]
    files: Mapping[str, ShardFile]
    columns: Mapping[str, Column]


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardIndex:
    """All shards of a data set.

    Attributes:
        kinds: facts of each kind, the record left out.
        stamps: digest -> stamp.
        shards: sorted by bucket and first id.
        config: how they were packed.
        skipped: (image id, reason) of the records that were left out.
    """

    kinds: Mapping[str, Kind]
    stamps: Mapping[str, Stamp]
    shards: tuple[Shard, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return sum(len(shard.ids) for shard in self.shards)

    def stamp(self, kind: str) -> Stamp:
        """How the features of a kind were made.

        Raises:
            InputError: there is no such kind.
        """
        if kind not in self.kinds:
            raise InputError(f"these shards hold no {kind}; they hold {', '.join(sorted(self.kinds))}")
        return self.stamps[self.kinds[kind].stamp]

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers, in a fixed order."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "package": __version__,
            "config": dict(self.config),
            "kinds": {name: vars(kind) for name, kind in sorted(self.kinds.items())},
            "stamps": {digest: json.loads(stamp.to_json()) for digest, stamp in sorted(self.stamps.items())},
            "shards": [_shard_to_json(shard) for shard in self.shards],
            "skipped": [{"image_id": image_id, "reason": reason} for image_id, reason in self.skipped],
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "ShardIndex":
        """The inverse of `to_json`.

        Raises:
            FormatError: another format or version, or facts that contradict each other.
            StampError: a stamp that is not what its digest says.
        """
        if stored.get("format") != FORMAT or stored.get("version") != VERSION:
            raise FormatError(
                f"format {stored.get('format')!r} version {stored.get('version')!r} is not {FORMAT!r} version {VERSION}"
            )
        kinds = {name: Kind(**facts) for name, facts in stored["kinds"].items()}
        stamps = {digest: Stamp.from_json(json.dumps(facts)) for digest, facts in stored["stamps"].items()}
        for digest, stamp in stamps.items():
            if stamp.digest != digest:
                raise StampError(f"the stamp stored as {digest[:8]} has the digest {stamp.digest[:8]}; pack again")
        missing = {kind.stamp for kind in kinds.values()} - stamps.keys()
        if missing:
            raise StampError(f"the stamp {min(missing)[:8]} is named and not there; pack again")
        shards = tuple(_shard_from_json(shard, kinds) for shard in stored["shards"])
        ids = [image_id for shard in shards for image_id in shard.ids]
        if len(set(ids)) != len(ids):
            raise FormatError("an image id is there twice; pack again")
        skipped = tuple((one["image_id"], one["reason"]) for one in stored["skipped"])
        return ShardIndex(kinds=kinds, stamps=stamps, shards=shards, config=stored["config"], skipped=skipped)


def write_index(folder: str | Path, index: ShardIndex) -> None:
    """Write the index of the shards in `folder`, in one step."""
    write_text(Path(folder) / INDEX, json.dumps(index.to_json(), separators=(",", ":")) + "\n")


def read_index(folder: str | Path, *, expect: Mapping[str, Stamp] | None = None) -> ShardIndex:
    """Read the index of the shards in `folder`.

    Args:
        folder: where `pack` wrote.
        expect: kind -> stamp that its features must have.

    Raises:
        InputError: there is no index.
        FormatError: it cannot be read as one.
        StampError: features were made in another way than `expect` says; the message names what differs.
    """
    path = Path(folder) / INDEX
    if not path.is_file():
        raise InputError(f"{path} does not exist; write shards with `patchatlas features pack`, or let it finish")
    try:
        index = ShardIndex.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (FormatError, StampError) as error:
        raise type(error)(f"{path}: {error}") from error
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise FormatError(f"{path} cannot be read as an index of shards: {error!r}; pack again") from error
    for kind, stamp in (expect or {}).items():
        stamp.require(index.stamp(kind), what=kind)
    return index


class ShardReader:
    """Reads members by their place. Files are opened when they are first needed, and at most `most_open` stay open.

    Args:
        folder: where the index lies.
        index: what is there.
        most_open: files held open at once.

    Raises:
        FormatError: a file is absent, cut short, or not the one that the index was written for.
        StampError: a file holds features made in another way than the index says; the message names what differs.
    """

    def __init__(self, folder: str | Path, index: ShardIndex, *, most_open: int = 128) -> None:
        self._folder = Path(folder)
        self._most_open = most_open
        self._begin()
        for shard in index.shards:
            for file in shard.files.values():
                _require_file(self._folder / file.path, file, index)

    def read(self, file: ShardFile, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`.

        Raises:
            FormatError: the file is shorter.
        """
        buffer = bytearray(size)
        self.read_into(file, offset, [memoryview(buffer)])
        return bytes(buffer)

    def read_into(self, file: ShardFile, offset: int, buffers: list[memoryview]) -> None:
        """Fill `buffers` one after the other from `offset`; the operating system copies straight into them.

        Raises:
            FormatError: the file is shorter.
        """
        handle = self._handle(file)
        left = [buffer.cast("B") for buffer in buffers if buffer.nbytes]
        while left:
            got = os.preadv(handle, left, offset)
            if got == 0:
                raise FormatError(f"{self._folder / file.path} ends at byte {offset}; copy it again or pack again")
            offset += got
            while left and got >= left[0].nbytes:
                got -= left.pop(0).nbytes
            if left:
                left[0] = left[0][got:]

    def close(self) -> None:
        """Close all files; reading opens them again."""
        _close_all(self._open)

    def _handle(self, file: ShardFile) -> int:
        if file.path in self._open:
            self._open.move_to_end(file.path)
            return self._open[file.path]
        while len(self._open) >= self._most_open:
            os.close(self._open.popitem(last=False)[1])
        self._open[file.path] = os.open(self._folder / file.path, os.O_RDONLY)
        return self._open[file.path]

    def _begin(self) -> None:
        self._open: OrderedDict[str, int] = OrderedDict()
        self._finalizer = weakref.finalize(self, _close_all, self._open)

    def __getstate__(self) -> dict[str, Any]:  # open files do not travel to another process
        return {"_folder": self._folder, "_most_open": self._most_open}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()


def shard_head(path: str | Path) -> dict[str, Any] | None:
    """What the first member of a shard says, or `None` where the file is no shard of ours."""
    first = first_member(Path(path))
    if first is None or first[0] != STAMP_MEMBER:
        return None
    try:
        stored = json.loads(first[1])
    except ValueError:
        return None
    known = isinstance(stored, dict) and stored.get("format") == FORMAT and stored.get("version") == VERSION
    return stored if known and {"plan", "kinds", "stamps"} <= stored.keys() else None


def shard_plan(path: str | Path) -> str | None:
    """The plan that a shard's first member names, or `None` where the file is no shard of ours."""
    head = shard_head(path)
    return None if head is None else str(head["plan"])


def _require_file(path: Path, file: ShardFile, index: ShardIndex) -> None:
    """Refuse a file that is not the one the index was written for."""
    if not path.is_file():
        raise FormatError(f"{path} is absent; copy it again or pack again")
    head = shard_head(path)
    if head is None:
        raise FormatError(f"{path} does not begin as a shard of ours does; copy it again or pack again")
    for kind, facts in head["kinds"].items():
        if kind in index.kinds and facts["stamp"] != index.kinds[kind].stamp:
            other = Stamp.from_json(json.dumps(head["stamps"][facts["stamp"]]))
            index.stamp(kind).require(other, what=f"{kind} (by {INDEX}, and in {path})")
    if head["plan"] != file.plan:
        raise FormatError(f"{path} is not the file that {INDEX} was written for; copy both again or pack again")
    if path.stat().st_size != file.size:
        raise FormatError(
            f"{path} has {path.stat().st_size} bytes, {INDEX} says {file.size}; copy it again or pack again"
        )


def _close_all(handles: "OrderedDict[str, int]") -> None:
    while handles:
        os.close(handles.popitem()[1])


def _shard_to_json(shard: Shard) -> dict[str, Any]:
    columns = {
        kind: {
            "part": column.part,
            "offset": column.offset.tolist(),
            "size": column.size.tolist(),
            **({} if column.grid is None else {"grid": column.grid.tolist()}),
        }
        for kind, column in sorted(shard.columns.items())
    }
    files = {part: vars(file) for part, file in sorted(shard.files.items())}
    return {"bucket": shard.bucket, "files": files, "ids": list(shard.ids), "columns": columns}


def _shard_from_json(stored: dict[str, Any], kinds: Mapping[str, Kind]) -> Shard:
    ids = tuple(stored["ids"])
    files = {part: ShardFile(**facts) for part, facts in stored["files"].items()}
    for file in files.values():
        if PurePosixPath(file.path).is_absolute() or ".." in PurePosixPath(file.path).parts:
            raise FormatError(f"the file {file.path!r} lies outside the folder of the index")
    columns = {}
    for kind, facts in stored["columns"].items():
        grid = None if "grid" not in facts else np.array(facts["grid"], dtype=np.int64).reshape(len(ids), -1)
        offset, size = (np.array(facts[name], dtype=np.int64) for name in ("offset", "size"))
        columns[kind] = Column(facts["part"], offset, size, grid)
        if not len(ids) == len(offset) == len(size):
            raise FormatError(f"{kind} has {len(offset)} offsets and {len(size)} sizes for {len(ids)} samples")
        if (offset < 0).any() or (size < 0).any() or (offset + size > files[facts["part"]].size).any():
            raise FormatError(f"a member of {kind} lies outside its file {files[facts['part']].path}")
    if columns.keys() != {RECORD, *kinds}:
        raise FormatError(f"a shard of {stored['bucket']} holds {sorted(columns)}, the index names {sorted(kinds)}")
    return Shard(stored["bucket"], ids, files, columns)
