"""Volumes that have been indexed: crops of them and counts of their foreground, read without reading the rest.

Axes: z y x, which grow to Superior, Anterior and Right. Spacing in mm, values in HU (int16). The folder is written by
`index.py`; its layout is docs/formats/volume-cache-v1.md.
"""

import json
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int16, Int64, UInt32

from patchatlas.errors import FormatError, InputError, ShapeError, UsageError
from patchatlas.io.volumes.b2nd import open_b2nd

Size = tuple[int, int, int]
Spacing = tuple[float, float, float]
Affine = tuple[tuple[float, ...], ...]

FORMAT = "patchatlas.volume-cache"
VERSION = 1
BODY = "body"
"""Key of the table that counts the voxels of the body mask."""

HISTOGRAM = "histogram"
"""Name of the histogram among the tables of a volume."""

INDEX_FILE, RECORD_FILE, VALUES_FILE, TABLES_FILE = "index.json", "volume.json", "values.b2nd", "tables.npz"

_OPEN_FILES = 64
"""Volumes that one thread keeps open, the least used closed first; a process may usually open 1024 files."""


@dataclass(frozen=True)
class VolumeRecord:
    """One volume of a cache; small and picklable.

    Attributes:
        id: its name in the cache, which is its folder's.
        source: what it was made from, relative to the folder that was indexed.
        size_zyx: voxels along each axis.
        spacing_zyx: mm from one voxel to the next along each axis.
        affine: 4 rows of 4: from the point (x, y, z, 1) in the continuous space of voxels, in which voxel (i, r, c)
            covers [c, c+1) x [r, r+1) x [i, i+1), to RAS+ world mm.
        cell_zyx: voxels in a cell of its tables along each axis.
        foreground: key of every table: share of the voxels that are foreground.
        low: smallest value, HU.
        high: largest value, HU.
        sha256: of the content of the source.
        facts: what the source said of itself, as text or numbers.
    """

    id: str
    source: str
    size_zyx: Size
    spacing_zyx: Spacing
    affine: Affine
    cell_zyx: Size
    foreground: Mapping[str, float]
    low: int
    high: int
    sha256: str
    facts: Mapping[str, str | float]

    def to_json(self) -> dict[str, Any]:
        """Plain lists, numbers and text."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "VolumeRecord":
        """The inverse of `to_json`."""
        lists = {name: tuple(stored[name]) for name in ("size_zyx", "spacing_zyx", "cell_zyx")}
        return VolumeRecord(**{**stored, **lists, "affine": tuple(tuple(row) for row in stored["affine"])})


@dataclass(frozen=True)
class CellCounts:
    """How many voxels of every cell of a volume are foreground.

    Cells tile the volume from its first voxel on. Where a side is no multiple of a cell the last cells reach beyond the
    volume: they count what lies inside, so their share of a whole cell is too low rather than too high.

    Attributes:
        counts: foreground voxels of each cell.
        cell_zyx: voxels in a cell along each axis.
    """

    counts: UInt32[np.ndarray, "z y x"]
    cell_zyx: Size

    def merged(self, cell_zyx: Sequence[int]) -> "CellCounts":
        """The same counts over larger cells.

        Args:
            cell_zyx: multiples of the cells that there are.

        Raises:
            ShapeError: they are no multiples.
        """
        if any(new % old for new, old in zip(cell_zyx, self.cell_zyx, strict=True)):
            raise ShapeError(
                f"counts over cells of {self.cell_zyx} voxels cannot be merged to {tuple(cell_zyx)}; take multiples, "
                f"or index with --cell-zyx that divide them"
            )
        counts: Int64[np.ndarray, "z y x"] = self.counts.astype(np.int64)
        for axis, (new, old) in enumerate(zip(cell_zyx, self.cell_zyx, strict=True)):
            counts = np.add.reduceat(counts, np.arange(0, counts.shape[axis], new // old), axis=axis)
        z, y, x = cell_zyx
        return CellCounts(counts.astype(np.uint32), (z, y, x))


def table_key(key: str | int | float) -> str:
    """The name of a table: of a threshold in HU, such as -500, or the name itself, such as `body`."""
    return key if isinstance(key, str) else f"hu>{key:g}"


def cells_name(key: str) -> str:
    """Under what name the counts of a key stand among the tables of a volume."""
    return f"cells/{key}"


class VolumeCache:
    """A folder of indexed volumes.

    Threads and processes may share one: every thread opens its own files, and so does a pickled copy.

    Attributes:
        folder: where it lies.
        records: its volumes, in the order of their sources.
        settings: how they were made.
    """

    def __init__(self, folder: Path, records: tuple[VolumeRecord, ...], settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.records = records
        self.settings = settings
        self._own = _OpenFiles()

    @property
    def body_hu(self) -> float:
        """The threshold that its body masks were made with, HU."""
        return float(self.settings["counting"]["body_threshold"])

    def read(
        self, record: VolumeRecord, start_zyx: Sequence[int], size_zyx: Sequence[int]
    ) -> Int16[np.ndarray, "z y x"]:
        """Copy one box of a volume, in HU.

        Args:
            record: one of `records`.
            start_zyx: its first voxel.
            size_zyx: its voxels along each axis.

        Raises:
            ShapeError: the box is empty or reaches beyond the volume.
            InputError: the file is gone.
            FormatError: the file is damaged.
        """
        inside = all(
            0 <= at and n >= 1 and at + n <= whole
            for at, n, whole in zip(start_zyx, size_zyx, record.size_zyx, strict=True)
        )
        if not inside:
            raise ShapeError(
                f"a box of {tuple(size_zyx)} voxels from {tuple(start_zyx)} on does not lie in {record.id}, which has "
                f"{record.size_zyx}; pad what lies outside"
            )
        box = tuple(slice(int(at), int(at) + int(n)) for at, n in zip(start_zyx, size_zyx, strict=True))
        values = self._opened(record)
        try:
            read: Int16[np.ndarray, "z y x"] = values[box]
        except (RuntimeError, ValueError) as error:
            raise FormatError(
                f"{self._folder_of(record) / VALUES_FILE} is damaged ({error}); delete the folder that it is in and "
                f"index again"
            ) from error
        return read

    def cells(self, record: VolumeRecord, key: str | int | float = BODY) -> CellCounts:
        """The foreground counts of a volume.

        Args:
            record: one of `records`.
            key: `body`, or a threshold in HU: voxels above it are foreground.

        Raises:
            UsageError: there is no such table; the message names those that there are.
            FormatError: the file is damaged.
        """
        name = table_key(key)
        if name not in record.foreground:
            wanted = "--body" if name == BODY else "another --thresholds"
            raise UsageError(
                f"the cache {self.folder} has no foreground table {name!r}, it has "
                f"{', '.join(map(repr, record.foreground))}; index again with {wanted}, which keeps the volumes"
            )
        counts = self._table(record, cells_name(name))
        return CellCounts(counts.astype(np.uint32), record.cell_zyx)

    def histogram(self, record: VolumeRecord) -> Int64[np.ndarray, " bins"]:
        """How many voxels of a volume fall in each bin of `histogram.EDGES`."""
        return self._table(record, HISTOGRAM).astype(np.int64)

    def _table(self, record: VolumeRecord, name: str) -> np.ndarray:
        path = self._folder_of(record) / TABLES_FILE
        try:
            with np.load(path, allow_pickle=False) as tables:
                table: np.ndarray = tables[name]
        except FileNotFoundError as error:
            raise InputError(f"{path} is gone; index again") from error
        except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise FormatError(
                f"{path} is damaged ({error}); delete the folder that it is in and index again"
            ) from error
        return table

    def _folder_of(self, record: VolumeRecord) -> Path:
        return self.folder / "volumes" / record.id

    def _opened(self, record: VolumeRecord) -> Any:
        files = self._own.by_id
        values = files.get(record.id)
        if values is None:
            values = open_b2nd(self._folder_of(record) / VALUES_FILE)
            files[record.id] = values
            if len(files) > _OPEN_FILES:
                files.popitem(last=False)
        files.move_to_end(record.id)
        return values

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "records": self.records, "settings": self.settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


class _OpenFiles(threading.local):
    """The files that this thread has open, by id: one handle of blosc2 serves one thread at a time.

    A forked process may go on with those that it inherits: they are mapped, read only and without threads.
    """

    def __init__(self) -> None:
        self.by_id: OrderedDict[str, Any] = OrderedDict()


def open_cache(folder: str | Path) -> VolumeCache:
    """Open a folder that `patchatlas pretrain index` wrote.

    Raises:
        InputError: there is no such cache, or its index was not finished.
        FormatError: its index is of another format or version, or damaged.
    """
    folder = Path(folder)
    path = folder / INDEX_FILE
    if not folder.is_dir():
        raise InputError(
            f"there is no folder {folder}; make a cache with: patchatlas pretrain index SRC --out {folder}"
        )
    if not path.is_file():
        if any((folder / "volumes").glob(f"*/{RECORD_FILE}")):
            raise InputError(
                f"the cache {folder} was not finished; finish it with: patchatlas pretrain index SRC --out {folder}"
            )
        raise InputError(
            f"{folder} is no cache of volumes, it has no {INDEX_FILE}. If it holds CT volumes, make a cache with: "
            f"patchatlas pretrain index {folder} --out CACHE. If it holds photographs, set crops.kind to photos"
        )
    try:
        index = json.loads(path.read_bytes())
        found = index["format"], index["version"]
        if found != (FORMAT, VERSION):
            raise FormatError(f"{path} is {found[0]} {found[1]}; read is {FORMAT} {VERSION}: index again")
        records = tuple(VolumeRecord.from_json(stored) for stored in index["volumes"])
        return VolumeCache(folder, records, index["settings"])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise FormatError(f"{path} is damaged ({error!r}); index again, finished volumes are kept") from error
