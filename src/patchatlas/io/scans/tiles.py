"""Tiles to be stitched, from a file of their own: NPY, one array of an NPZ, or one dataset of an HDF5 file.

Axes: n tiles, c channels, h w pixels of a tile.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy import ndarray

from patchatlas.errors import FormatError, UsageError
from patchatlas.io.scans import hdf5
from patchatlas.io.scans.archive import archive, load_npy
from patchatlas.io.scans.read import fingerprint

ChannelsAxis = Literal["first", "last"]

# Numbers looked at in one go.
_AT_A_TIME = 2**22


def read_tiles(
    path: str | Path,
    *,
    key: str | None = None,
    frame_hw: tuple[int, int] | None = None,
    channels_axis: ChannelsAxis | None = None,
    any_size: bool = False,
) -> tuple[ndarray, str]:
    """Tiles and the SHA-256 of their file.

    Args:
        path: the file.
        key: name of the array in an NPZ or HDF5 file; needed only where there are several of three or four axes.
        frame_hw, channels_axis, any_size: see `with_channels`.

    Returns:
        Tiles (n, c, h, w), real or complex. Those of an NPY file and of an HDF5 dataset in one piece stay in the file
        until they are used.

    Raises:
        InputError: no such file.
        FormatError: no array of that shape, no tiles, objects in place of numbers, tiles of another size than the
            frames, or values that are not finite.
        UsageError: several arrays could be meant, channels could be last, or a key for a file that has none.
    """
    path = Path(path)
    start, digest = fingerprint(path)
    if hdf5.is_hdf5(path, start):
        with hdf5.opened(path) as file:
            tiles = hdf5.mapped(path, file[_chosen(path, hdf5.shapes(file), key)])
    elif start.startswith(b"\x93NUMPY"):
        if key is not None:
            raise UsageError(f"{path} is one array and has no key {key!r}; leave --tiles-key out")
        tiles = load_npy(path, mapped=True)
    else:
        with archive(path) as members:
            shapes = {name: members.shape(name) for name in members.names}
            tiles = members.load(_chosen(path, shapes, key))
    return with_channels(tiles, str(path), frame_hw=frame_hw, channels_axis=channels_axis, any_size=any_size), digest


def with_channels(
    tiles: ndarray,
    what: str,
    *,
    frame_hw: tuple[int, int] | None = None,
    channels_axis: ChannelsAxis | None = None,
    any_size: bool = False,
) -> ndarray:
    """Tiles as (n, c, h, w); (n, h, w) and (n, h, w, 1) get one channel.

    Args:
        tiles: as stored.
        what: they are called in messages.
        frame_hw: rows and columns of the scan's frames, which are those of its tiles.
        channels_axis: where the channels of tiles with four axes are; needed only where the shape does not tell.
        any_size: take tiles of another size than the frames.

    Raises:
        FormatError: another number of axes, no tiles, no numbers, another size, or values that are not finite.
        UsageError: channels that could be last.
    """
    if tiles.ndim not in (3, 4) or tiles.dtype.kind not in "fiuc":
        raise FormatError(
            f"{what}: tiles must be numbers, (n, h, w) or (n, c, h, w), and are {tiles.dtype} {tiles.shape}"
        )
    if 0 in tiles.shape:
        raise FormatError(f"{what}: there are no tiles, the shape is {tiles.shape}")
    if tiles.ndim == 3:
        tiles = tiles[:, None]
    elif _channels_last(tiles.shape, what, frame_hw, channels_axis):
        tiles = np.moveaxis(tiles, -1, 1)
    if frame_hw is not None and tiles.shape[2:] != frame_hw and not any_size:
        (h, w), (frame_h, frame_w) = tiles.shape[2:], frame_hw
        raise FormatError(
            f"{what}: tiles are {h} x {w} (rows x columns) and the scan's frames are {frame_h} x {frame_w}; give tiles "
            f"of the frames' size, or pass --any-size if they have the scan's pixel size all the same"
        )
    step = max(1, _AT_A_TIME // tiles[0].size)
    parts = [tiles[first : first + step] for first in range(0, len(tiles), step)]
    bad = np.flatnonzero(~np.concatenate([np.isfinite(part).all(axis=(1, 2, 3)) for part in parts]))
    if len(bad):
        raise FormatError(
            f"{what}: {len(bad)} of {len(tiles)} tiles hold NaN or infinity, first tile {bad[0]} (from 0)"
        )
    return tiles


def _channels_last(
    shape: tuple[int, ...], what: str, frame_hw: tuple[int, int] | None, said: ChannelsAxis | None
) -> bool:
    """Whether the last of four axes is that of the channels.

    Raises:
        UsageError: it is not said, and could be: the axes before it have the frames' size, or, where that does not
            tell, the last two are no square and there would be more channels than columns.
    """
    if said is not None:
        return said == "last"
    if shape[3] == 1:
        return True
    _, channels, rows, columns = shape
    if frame_hw in (shape[1:3], shape[2:]):
        open_ = frame_hw == shape[1:3]
    else:
        open_ = rows != columns and channels > columns
    if open_:
        raise UsageError(
            f"{what} has the shape {shape}, which could be {channels} channels of {rows} x {columns} or {columns} "
            f"channels of {channels} x {rows}; pass --channels-axis first|last"
        )
    return False


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
