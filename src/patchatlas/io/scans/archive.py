"""NumPy files without pickle: NPY, NPZ and bz2-compressed NPZ read, each array looked at before; NPZ written."""

import bz2
import io
import lzma
import math
import os
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from patchatlas.errors import FormatError
from patchatlas.files import replacing
from patchatlas.io.scans.numbers import native, native_type

# What NumPy and zipfile raise for damaged bytes; RuntimeError for encrypted members and unknown compression, TokenError
# and TypeError for headers whose text makes no sense.
_DAMAGE = (
    *(OSError, ValueError, EOFError, KeyError, RuntimeError, SyntaxError, TypeError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, tokenize.TokenError),
)


class Archive:
    """The arrays of an NPZ file by name.

    Attributes:
        path: the file.
        names: its arrays.
    """

    def __init__(self, path: Path, members: zipfile.ZipFile) -> None:
        self.path = path
        self._members = members
        self.names = tuple(name.removesuffix(".npy") for name in members.namelist() if name.endswith(".npy"))

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def is_object(self, name: str) -> bool:
        """Whether an array holds Python objects."""
        return self._header(name)[1].hasobject

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an array, without loading it.

        Raises:
            FormatError: a damaged array.
        """
        return self._header(name)[0]

    def load(self, name: str) -> ndarray:
        """An array, its numbers as `numbers.native` gives them.

        Raises:
            FormatError: it is not there, is damaged, or holds Python objects.
        """
        if name not in self:
            raise FormatError(f"{self.path} has no array {name!r}; it has: {', '.join(self.names) or 'none'}")
        if self.is_object(name):
            raise object_array(f"{self.path}: the array {name!r}")
        try:
            with self._members.open(f"{name}.npy") as handle:
                array: ndarray = np.lib.format.read_array(handle, allow_pickle=False)
        except _DAMAGE as error:
            raise _damaged(f"{self.path}: the array {name!r}", error) from error
        return native(array)

    def _header(self, name: str) -> tuple[tuple[int, ...], np.dtype]:
        try:
            with self._members.open(f"{name}.npy") as handle:
                return _read_header(handle, self._members.getinfo(f"{name}.npy").file_size)
        except _DAMAGE as error:
            raise _damaged(f"{self.path}: the array {name!r}", error) from error


@contextmanager
def archive(path: Path) -> Iterator[Archive]:
    """The arrays of an NPZ file, plain or packed by bzip2.

    Raises:
        FormatError: it is no such file, or is cut short.
    """
    try:
        source: Path | io.BytesIO = path
        if path.suffix.lower() == ".bz2":
            source = io.BytesIO(bz2.decompress(path.read_bytes()))
        members = zipfile.ZipFile(source)
    except _DAMAGE as error:
        raise _damaged(str(path), error) from error
    with members:
        yield Archive(path, members)


def load_npy(path: Path, *, mapped: bool = False) -> ndarray:
    """The array of an NPY file, its numbers as `numbers.native` gives them.

    Args:
        path: the file.
        mapped: leave numbers that are native as they are in the file until they are used; what is written to the array
            stays in memory.

    Raises:
        FormatError: it is no such file, is cut short, or holds Python objects.
    """
    try:
        with path.open("rb") as handle:
            shape, dtype = _read_header(handle, os.fstat(handle.fileno()).st_size)
            if dtype.hasobject:
                raise object_array(str(path))
            handle.seek(0)
            array: ndarray = (
                np.load(path, mmap_mode="c", allow_pickle=False)
                if mapped and 0 not in shape and dtype == native_type(dtype)
                else np.lib.format.read_array(handle, allow_pickle=False)
            )
    except FormatError:
        raise
    except _DAMAGE as error:
        raise _damaged(str(path), error) from error
    return native(array)


def write_npz(path: Path, arrays: Mapping[str, ndarray]) -> None:
    """Write arrays of numbers or text as an uncompressed NPZ, in one step; the same arrays are the same bytes.

    (`numpy.savez` writes the time of day into the file.)

    Raises:
        InputError: the folder does not exist.
    """
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as members:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # its time is 1980-01-01
            with members.open(entry, "w", force_zip64=True) as handle:
                np.lib.format.write_array(handle, np.asarray(array), allow_pickle=False)


def object_array(what: str) -> FormatError:
    """The error for an array that would have to be unpickled."""
    return FormatError(
        f"{what} holds Python objects, and loading those could run any code in the file, so it is refused; save it "
        f"again as numbers (np.asarray(array, dtype=complex), say)"
    )


def _read_header(handle: Any, size: int) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type from the header of a file of so many bytes.

    Raises:
        ValueError: the header claims more numbers than the file holds; reading them would first ask for their memory.
    """
    version = np.lib.format.read_magic(handle)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = reader(handle)
    claimed, held = math.prod(shape) * dtype.itemsize, size - handle.tell()
    if not dtype.hasobject and claimed > held:
        raise ValueError(f"its header claims {claimed} bytes of numbers, {dtype} {shape}, and {held} are there")
    return shape, dtype


def _damaged(what: str, error: Exception) -> FormatError:
    return FormatError(f"{what} cannot be read as NumPy data ({error}); it is damaged, cut short or of another kind")
