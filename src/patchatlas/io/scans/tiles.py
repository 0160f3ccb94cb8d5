"""Tiles to be stitched, from a file of their own: NPY, one array of an NPZ, or one dataset of an HDF5 file."""

from pathlib import Path

import numpy as np
from numpy import ndarray

from patchatlas.errors import FormatError, UsageError
from patchatlas.io.scans import hdf5
from patchatlas.io.scans.archive import archive, load_npy
from patchatlas.io.scans.read import fingerprint

# Numbers looked at in one go.
_AT_A_TIME = 2**22


def read_tiles(path: str | Path, *, key: str | None = None) -> tuple[ndarray, str]:
    """Tiles and the SHA-256 of their file.

    Args:
        path: the file.
        key: name of the array in an NPZ or HDF5 file; needed only where there are several of three or four axes.

    Returns:
        Tiles (n, c, h, w), real or complex; (n, h, w) and (n, h, w, 1) in the file get one channel. Those of an NPY
        file and of an HDF5 dataset in one piece stay in the file until they are used.

    Raises:
        InputError: no such file.
        FormatError: no array of that shape, no tiles, objects in place of numbers, or values that are not finite.
        UsageError: several arrays could be meant, or a key for a file that has none.
    """
    path = Path(path)
    start, digest = fingerprint(path)
    if start.startswith(b"\x89HDF\r\n\x1a\n") or path.suffix.lower() in (".h5", ".hdf5"):
        with hdf5.opened(path) as file:
            shapes: dict[str, tuple[int, ...]] = {}
            file.visititems(lambda name, found: shapes.update({name: found.shape} if hasattr(found, "shape") else {}))
            tiles = hdf5.mapped(path, file[_chosen(path, shapes, key)])
    elif start.startswith(b"\x93NUMPY"):
        if key is not None:
            raise UsageError(f"{path} is one array and has no key {key!r}; leave --tiles-key out")
        tiles = load_npy(path, mapped=True)
    else:
        with archive(path) as members:
            shapes = {name: members.shape(name) for name in members.names}
            tiles = members.load(_chosen(path, shapes, key))
    return with_channels(tiles, str(path)), digest


def with_channels(tiles: ndarray, what: str) -> ndarray:
    """Tiles as (n, c, h, w).

    Raises:
        FormatError: another number of axes, no tiles, no numbers, or values that are not finite.
    """
    if tiles.ndim == 4 and tiles.shape[-1] == 1:
        tiles = tiles[..., 0]
    tiles = tiles[:, None] if tiles.ndim == 3 else tiles
    if tiles.ndim != 4 or not np.issubdtype(tiles.dtype, np.number):
        raise FormatError(
            f"{what}: tiles must be numbers, (n, h, w) or (n, c, h, w), and are {tiles.dtype} {tiles.shape}"
        )
    if 0 in tiles.shape:
        raise FormatError(f"{what}: there are no tiles, the shape is {tiles.shape}")
    step = max(1, _AT_A_TIME // tiles[0].size)
    parts = [tiles[first : first + step] for first in range(0, len(tiles), step)]
    bad = np.flatnonzero(~np.concatenate([np.isfinite(part).all(axis=(1, 2, 3)) for part in parts]))
    if len(bad):
        raise FormatError(
            f"{what}: {len(bad)} of {len(tiles)} tiles hold NaN or infinity, first tile {bad[0]} (from 0)"
        )
    return tiles


def _chosen(path: Path, shapes: dict[str, tuple[int, ...]], key: str | None) -> str:
    if key is not None:
        if key not in shapes:
            raise UsageError(f"{path} has no array {key!r}; it has: {', '.join(shapes)}")
        return key
    fitting = [name for name, shape in shapes.items() if len(shape) in (3, 4)]
    if len(fitting) != 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise UsageError(f"{path} has {len(fitting)} arrays that could be tiles; name one with --tiles-key: {listed}")
    return fitting[0]
