"""A gallery on the disk: SQLite for what is known, and .npy files beside it, written once, for vectors.

A transaction writes its vectors first, to files that nothing names yet, and then commits the rows that name them. So a
process killed at any moment leaves the old gallery or the new one, and at worst a file that the next writer removes.

Axes: n vectors, d features.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from patchatlas import __version__
from patchatlas.errors import FormatError, InputError, ResourceError, UsageError
from patchatlas.files import replacing, sync_folder
from patchatlas.io.disk import disk_errors
from patchatlas.reid.gallery.kinds import require_kind
from patchatlas.reid.gallery.schema import APPLICATION_ID, FORMAT, TABLES, VERSION
from patchatlas.stamp import Stamp

DATABASE = "gallery.sqlite"
VECTORS = "vectors"

_REFUSED = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
)

WAIT_S = 30.0
"""How long a writer waits for another one."""


class Store:
    """An open gallery. Reads see what was committed last; changes are made inside `writing`.

    Attributes:
        folder: of the gallery.
        db: the connection; rows are tuples.
    """

    def __init__(self, folder: Path, db: sqlite3.Connection) -> None:
        self.folder, self.db = folder, db
        self._arrays: dict[int, ndarray] = {}
        self._fresh: list[Path] = []

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        return self.db.execute(sql, values).fetchall()

    def value(self, sql: str, *values: Any) -> Any:
        """The first column of the first row of a query, None where there is none."""
        row = self.db.execute(sql, values).fetchone()
        return None if row is None else row[0]

    def insert(self, table: str, **columns: Any) -> int:
        """Add a row, and give its number."""
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        added = self.db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(columns.values()))
        return int(added.lastrowid or 0)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A transaction: all that is changed within becomes the gallery, or nothing of it.

        Raises:
            ResourceError: the disk is full or read-only, or another process writes for longer than `WAIT_S`.
        """
        with _database_errors(self.folder):
            self.db.execute("BEGIN IMMEDIATE")
            self._fresh.clear()
            try:
                self._sweep()
                yield
                self.db.execute("COMMIT")
            except BaseException:
                self._arrays.clear()
                for path in self._fresh:
                    path.unlink(missing_ok=True)
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise

    @property
    def stamp(self) -> Stamp | None:
        """How the vectors of this gallery were made; None while it is empty."""
        facts = self.value("SELECT facts FROM stamps")
        return None if facts is None else Stamp.from_json(facts)

    def take_stamp(self, stamp: Stamp, dim: int) -> None:
        """Say how vectors are made, or refuse those that are made differently.

        Raises:
            StampError: the gallery holds others; says what differs.
        """
        if self.stamp is None:
            self.insert("stamps", digest=stamp.digest, facts=stamp.to_json(), dim=dim)
        else:
            one = f"the gallery {self.folder}"
            require_kind(self.stamp, stamp, one=one, other="the episode", remedy="give --gallery OTHER")

    def add_vectors(self, vectors: Float32[ndarray, "n d"]) -> int:
        """Write vectors of the gallery's stamp to a file of their own, and give the number of that segment.

        Raises:
            ResourceError: the disk is full, or the folder may not be written.
        """
        stamp = self.stamp
        if stamp is None:
            raise UsageError("an empty gallery has no stamp yet; take one first")
        folder = self.folder / VECTORS / stamp.digest[:16]
        numbers = count(1 + (self.value("SELECT seq FROM sqlite_sequence WHERE name = 'segments'") or 0))
        name = next(f"{number:06d}.npy" for number in numbers if not (folder / f"{number:06d}.npy").exists())
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._fresh.append(folder / name)
            with replacing(folder / name) as temporary:
                np.save(temporary, vectors, allow_pickle=False)
            sync_folder(folder.parent)
            sync_folder(self.folder)
        file = f"{VECTORS}/{folder.name}/{name}"
        return self.insert("segments", stamp=stamp.digest, file=file, rows=len(vectors))

    def vectors(self, places: Sequence[tuple[int, int]]) -> Float32[ndarray, "n d"]:
        """Vectors by segment and row, in the order asked for; only what is asked for is read.

        Raises:
            FormatError: a file is absent or not as the gallery says.
        """
        out = np.empty((len(places), self.value("SELECT dim FROM stamps") or 0), dtype=np.float32)
        wanted = np.array(places, dtype=np.int64).reshape(-1, 2)
        for segment in np.unique(wanted[:, 0]).tolist():
            mine = wanted[:, 0] == segment
            out[mine] = self.segment(segment)[wanted[mine, 1]]
        return out

    def segment(self, number: int) -> ndarray:
        """The vectors of a segment, mapped from its file.

        Raises:
            FormatError: as `vectors`.
        """
        if number not in self._arrays:
            file, rows, dim = self.db.execute(
                "SELECT file, rows, dim FROM segments JOIN stamps ON digest = stamp WHERE id = ?", (number,)
            ).fetchone()
            path = self.folder / file
            try:
                array = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise FormatError(f"{path} cannot be read ({error}); restore it, or link all episodes anew") from error
            if array.shape != (rows, dim) or array.dtype != np.float32:
                raise FormatError(
                    f"{path} holds {array.dtype} {array.shape}, the gallery tells of float32 {(rows, dim)}; "
                    "restore it, or link all episodes anew"
                )
            self._arrays[number] = array
        return self._arrays[number]

    def _sweep(self) -> None:
        """Remove files that no row names: a process that was killed left them, or their rows are gone. Only a writer
        may do so, for only then nobody else has begun some."""
        known = {file for (file,) in self.rows("SELECT file FROM segments")}
        for path in (self.folder / VECTORS).glob("*/*"):
            if path.relative_to(self.folder).as_posix() not in known:
                path.unlink(missing_ok=True)


@contextmanager
def open_gallery(folder: str | Path, *, create: bool = False) -> Iterator[Store]:
    """Open a gallery, and close it at the end.

    Args:
        folder: of the gallery.
        create: make an empty one where there is none.

    Raises:
        InputError: there is none.
        FormatError: the database is damaged, no gallery, or of a version that is not known.
        ResourceError: it cannot be written.
    """
    folder = Path(folder)
    path = folder / DATABASE
    if create and not path.exists():
        if folder.is_dir() and any(one.name != f"{DATABASE}-journal" for one in folder.iterdir()):
            raise UsageError(f"{folder} holds other files and no gallery; name a new folder, or that of a gallery")
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
    elif not path.is_file():
        raise InputError(f"{folder} holds no gallery ({DATABASE}); make one with: patchatlas reid link EPISODE ...")
    with _database_errors(folder):
        db = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None)
        try:
            db.execute("PRAGMA foreign_keys = ON")
            db.execute("PRAGMA synchronous = FULL")
            _prepare(db, path, create=create)
            yield Store(folder, db)
        finally:
            db.close()


def dump(store: Store) -> dict[str, list[list[Any]]]:
    """All that a gallery says, table by table, without vectors; for tests and comparisons."""
    names = [name for (name,) in store.rows("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
    return {
        name: sorted((list(row) for row in store.rows(f"SELECT * FROM {name}")), key=repr)
        for name in names
        if not name.startswith("sqlite_")
    }


def _prepare(db: sqlite3.Connection, path: Path, *, create: bool) -> None:
    """Make the tables in an empty database, or check that they are those of a gallery."""
    known = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if not known:
        if not create:
            raise InputError(f"{path} is empty; make a gallery with: patchatlas reid link EPISODE ...")
        db.execute("BEGIN IMMEDIATE")
        for statement in TABLES.split(";\n"):
            if statement.strip():
                db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        for key, value in (("format", FORMAT), ("version", str(VERSION)), ("package", __version__)):
            db.execute("INSERT INTO meta VALUES (?, ?)", (key, value))
        db.execute("COMMIT")
        sync_folder(path.parent)
        return
    if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise FormatError(f"{path} is an SQLite database, but no gallery; name another folder")
    version = db.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()[0]
    if version != str(VERSION):
        raise FormatError(
            f"{path} has version {version} of {FORMAT}, known is {VERSION}; open it with a newer patchatlas"
        )


@contextmanager
def _database_errors(folder: Path) -> Iterator[None]:
    """Turn what SQLite refuses into our errors."""
    path = folder / DATABASE
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # the upper bits only say more of it
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise ResourceError(
                f"another process has been writing {path} for more than {WAIT_S:g} s; wait for it"
            ) from error
        if code in _REFUSED:
            raise ResourceError(f"cannot write {path}: {error}; what was committed before is intact") from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise FormatError(f"{path} is no gallery, or is damaged ({error}); restore it from a copy") from error
        raise  # a bug


def facts(content: dict[str, Any]) -> str:
    """JSON as it stands in a column: sorted, without spaces."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
