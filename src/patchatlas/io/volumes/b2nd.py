"""Blosc2 arrays (.b2nd): written in blocks that one crop can be read from, and read mapped into memory.

Format: https://www.blosc.org/c-blosc2/format/b2nd_format.html. nnU-Net and nnssl keep their preprocessed cases so, with
a .pkl beside each. That pickle is never opened: unpickling runs whatever code the file names, and the spacing that
nnU-Net keeps in it is that of before resampling. blosc2 is imported only here and its types are unknown to type
checkers, so arrays pass as `Any`.
"""

import math
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int16, Shaped

from patchatlas.errors import FormatError, InputError, MissingExtraError
from patchatlas.files import write_bytes
from patchatlas.io.volumes.reasons import VolumeError, printable
from patchatlas.io.volumes.sidecar import read_sidecar
from patchatlas.io.volumes.volume import Declared, Volume, make_from_array

CHUNK, BLOCK, LEVEL = 64, 32, 5
"""Voxels a side of what is compressed together and of what is decompressed at once, and the level of zstd. Of a
300x512x512 volume a crop of 128^3 reads in 11 ms so and the file is 0.4 of its size (docs/pretrain-volumes.md)."""

_DAMAGE = (RuntimeError, ValueError, OSError, KeyError, TypeError, OverflowError, SyntaxError)
"""What blosc2 raises for damaged bytes; SyntaxError for a type that NumPy cannot spell out."""


def open_b2nd(path: Path) -> Any:
    """Open an array: `shape`, `dtype`, and slices of it are NumPy arrays. One handle serves one thread at a time.

    Raises:
        InputError: there is no such file.
        FormatError: it is damaged or cut short.
        MissingExtraError: blosc2 is not installed.
    """
    blosc2 = require_blosc2()
    if not path.is_file():
        raise InputError(f"there is no file {path}; if it is of a cache, index again")
    try:
        # One thread: training has its own worker processes, and blosc2's pool of threads does not outlive a fork.
        array = blosc2.open(str(path), mode="r", mmap_mode="r", dparams=blosc2.DParams(nthreads=1))
    except _DAMAGE as error:
        raise FormatError(f"{path} cannot be read as a Blosc2 array ({error}); it is damaged or cut short") from error
    if not hasattr(array, "blocks"):
        raise FormatError(f"{path} holds {type(array).__name__}, not an array of blosc2")
    needed = math.prod(-(-side // chunk) for side, chunk in zip(array.shape, array.chunks, strict=True) if chunk)
    if array.schunk.nchunks != needed:  # before anyone asks for the memory that a damaged shape announces
        raise FormatError(
            f"{path} has {array.schunk.nchunks} chunks and needs {needed} for its shape {array.shape}; it is damaged"
        )
    return array


def write_b2nd(path: Path, values: Int16[np.ndarray, "z y x"]) -> None:
    """Write a volume in one step; the same values are the same bytes.

    Raises:
        OSError: the disk is full, or refuses for another reason.
        MissingExtraError: blosc2 is not installed.
    """
    blosc2 = require_blosc2()
    array = blosc2.asarray(
        np.ascontiguousarray(values),
        chunks=tuple(min(CHUNK, n) for n in values.shape),
        blocks=tuple(min(BLOCK, n) for n in values.shape),
        contiguous=True,
        cparams=blosc2.CParams(codec=blosc2.Codec.ZSTD, clevel=LEVEL, nthreads=1),
    )
    write_bytes(path, array.to_cframe())  # blosc2 itself would not say why it cannot write


def read_b2nd(path: Path, declared: Declared) -> Volume:
    """Read a whole .b2nd file as a volume: three axes, or one channel and three axes.

    nnU-Net's preprocessed CT is z-scored and so refused; its imagesTr hold Hounsfield units.

    Raises:
        VolumeError: it cannot be used; see its reason.
        MissingExtraError: blosc2 is not installed.
    """
    if printable(str(path)) != str(path):
        raise VolumeError("blosc2 opens no files whose names are not UTF-8; rename it", reason="unreadable")
    try:
        array = open_b2nd(path)
        stored: Shaped[np.ndarray, "..."] = array[...]
    except FormatError as error:
        raise VolumeError(f"{error}; copy or make it again", reason="damaged") from error
    except _DAMAGE as error:
        raise VolumeError(f"its blocks are damaged or cut short ({error}); copy it again", reason="damaged") from error
    told = read_sidecar(path)
    facts = {"format": "b2nd", "dtype": str(stored.dtype)}
    return make_from_array(stored, declared, spacing=told.spacing, axes=told.axes, facts=facts)


def require_blosc2() -> Any:
    """The blosc2 module.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return import_module("blosc2")
    except ImportError as error:
        raise MissingExtraError("blosc2", extra="volumes", needed_for="the cache of volumes") from error
