"""HDF5 files opened for reading, with errors that say what is wrong with them; h5py is imported only here.

h5py's own types are unknown to type checkers, so files and datasets pass as `Any`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from patchatlas.errors import FormatError, MissingExtraError
from patchatlas.io.scans.numbers import native, native_type

_MAGIC = b"\x89HDF\r\n\x1a\n"
_SUFFIXES = (".cxi", ".ptyd", ".h5", ".hdf5")

# What h5py raises for damaged files and for links whose target is not there.
_DAMAGE = (OSError, KeyError, RuntimeError, ValueError)


def h5py(needed_for: str) -> Any:
    """The h5py module.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return import_module("h5py")
    except ImportError as error:
        raise MissingExtraError("h5py", extra="ptycho", needed_for=needed_for) from error


def is_hdf5(path: Path, start: bytes) -> bool:
    """Whether a file that begins with these bytes is HDF5, or is named so: a damaged one is told as one."""
    return start.startswith(_MAGIC) or path.suffix.lower() in _SUFFIXES


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An HDF5 file, open for reading.

    Raises:
        FormatError: it is no HDF5 file, or is cut short.
        MissingExtraError: h5py is not installed.
    """
    module = h5py(f"reading {path.name}")
    try:
        file = module.File(path, "r")
    except OSError as error:
        raise FormatError(
            f"{path} cannot be opened as HDF5 ({error}); it is cut short, damaged or of another kind: copy it again"
        ) from error
    with file:
        yield file


def dataset(file: Any, names: Sequence[str]) -> Any | None:
    """The first of these datasets that the file has; `None` if it has none.

    Raises:
        FormatError: a link to a file or dataset that is not there.
    """
    for name in names:
        if file.get(name, getlink=True) is None:
            continue
        try:
            found = file[name]
        except _DAMAGE as error:
            raise FormatError(
                f"{file.filename}: {name} is a link that leads nowhere ({error}); keep the linked files beside it"
            ) from error
        if hasattr(found, "shape"):
            return found
    return None


def shapes(file: Any) -> dict[str, tuple[int, ...]]:
    """Shape of each dataset by its name, those in groups as well."""
    found: dict[str, tuple[int, ...]] = {}
    file.visititems(lambda name, item: found.update({name: item.shape} if hasattr(item, "shape") else {}))
    return found


def values(found: Any) -> ndarray:
    """All values of a dataset, as `numbers.native` gives them.

    Raises:
        FormatError: they cannot be read, or are no numbers.
    """
    try:
        array = np.asarray(found[()])
    except _DAMAGE as error:
        raise FormatError(
            f"{found.file.filename}: {found.name} cannot be read ({error}); the file is damaged"
        ) from error
    if array.dtype.hasobject:
        raise FormatError(f"{found.file.filename}: {found.name} holds no numbers but {array.dtype}")
    return native(array)


def mapped(path: Path, found: Any) -> ndarray:
    """All values of a dataset, left in the file until they are used where they lie there in one piece as they are.

    Raises:
        FormatError: they cannot be read, or are no numbers.
    """
    offset = found.id.get_offset()  # None where they are compressed, in chunks, elsewhere or not written
    as_it_is = found.dtype.kind in "fiuc" and found.dtype == native_type(found.dtype)
    plain = as_it_is and found.size and not found.file.userblock_size
    if offset is None or not plain:
        return values(found)
    return np.memmap(path, dtype=found.dtype, mode="c", offset=offset, shape=found.shape)


def number(file: Any, names: Sequence[str]) -> float | None:
    """The single number in the first of these datasets that is there; `None` where it is missing or no number."""
    found = dataset(file, names)
    if found is None or found.size != 1 or not np.issubdtype(found.dtype, np.number):
        return None
    return float(values(found).reshape(()))
