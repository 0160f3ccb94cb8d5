"""PtychoPINN's NPZ files: `xcoords`, `ycoords`, and frames under `diffraction` or, in older files, `diff3d`.

By its data contract (docs/data_contracts.md of hoidn/PtychoPINN) coordinates are object pixels, x is the column, and
a position is where element N // 2 of the patch lies.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from patchatlas import __version__
from patchatlas.errors import FormatError, UsageError
from patchatlas.io.scans.archive import Archive, write_npz
from patchatlas.io.scans.scan import Content, Declared, probe_modes, real_numbers

FORMAT = "PtychoPINN NPZ"

FRAME_KEYS = ("diffraction", "diff3d")
"""Names of the frames: today's, and that of older files."""

LEAST_SPAN_PX = 0.01
"""A scan that is no wider than this in pixels is in metres: files of SLAC's layout have the same keys (ptychodus reads
their coordinates as metres)."""


def is_ptychopinn(names: tuple[str, ...]) -> bool:
    """Whether an NPZ with these arrays is one."""
    return {"xcoords", "ycoords"} <= set(names)


def read_ptychopinn(archive: Archive, declared: Declared, *, frames: bool) -> Content:
    """Read one.

    Raises:
        FormatError: coordinates, frames or patches of shapes that do not fit.
        UsageError: frames of which nothing says along which axis they are counted.
    """
    x, y = (real_numbers(archive.load(key), f"{archive.path}: {key}") for key in ("xcoords", "ycoords"))
    if x.ndim != 1 or x.shape != y.shape:
        raise FormatError(
            f"{archive.path}: xcoords has the shape {x.shape} and ycoords {y.shape}; both must be lists of one length"
        )
    rule = f"the rule of {FORMAT}"
    known: dict[str, tuple[object, str]] = {
        "unit": ("px", rule),
        "order": ("xy", "the names xcoords, ycoords"),
        "sign": ("plus", rule),
        "anchor": ("centre", rule),
    }
    if len(x) > 1 and 0 < max(np.ptp(x), np.ptp(y)) < LEAST_SPAN_PX:
        del known["unit"]
    notes = []
    key = next((key for key in FRAME_KEYS if key in archive), None)
    shape, last = (None, False) if key is None else _frame_shape(archive, key, len(x), declared)
    diffraction = None
    if key is not None and frames:
        diffraction = archive.load(key)
        diffraction = np.moveaxis(diffraction, -1, 0) if last else diffraction
    if last:
        notes.append(f"{key} counts its frames along the last axis")
    tiles = None
    if "Y" in archive and archive.is_object("Y"):
        notes.append("Y holds Python objects, which are never unpickled; its patches were not read")
    elif "Y" in archive:
        tiles = _patches(archive)
    probe = None
    if "probeGuess" in archive and archive.is_object("probeGuess"):
        notes.append("probeGuess holds Python objects, which are never unpickled; there is no probe")
    elif "probeGuess" in archive:
        probe, more = probe_modes(archive.load("probeGuess"), "probeGuess")
        notes += more
    return Content(
        format=FORMAT,
        positions=np.stack([x, y], axis=1),
        known=known,
        tiles=tiles,
        frame_hw=None if shape is None else (shape[1], shape[2]),
        frames=None if shape is None else shape[0],
        diffraction=diffraction,
        probe=probe,
        object=_plane(archive, "objectGuess"),
        notes=tuple(notes),
    )


def write_ptychopinn(
    path: Path,
    *,
    centres: ndarray,
    diffraction: ndarray,
    probe: ndarray,
    image: ndarray,
    patches: ndarray,
    metadata: Mapping[str, Any],
    more: Mapping[str, ndarray],
) -> None:
    """Write a scan in today's layout, so that PtychoPINN and `read_ptychopinn` can read it; the same bytes every time.

    Args:
        path: ends in .npz.
        centres: (n, 2), x and y of element N // 2 of each patch, object pixels.
        diffraction: amplitudes (n, N, N), zero frequency in the middle.
        probe: complex (N, N).
        image: complex object (rows, columns).
        patches: complex (n, N, N).
        metadata: kept as JSON under `_metadata`.
        more: arrays of our own.

    Raises:
        InputError: the folder does not exist.
    """
    x, y = centres.T
    told = json.dumps({"written_by": f"patchatlas {__version__}", **metadata}, sort_keys=True)
    arrays = {
        "diffraction": diffraction.astype(np.float32),
        "xcoords": x,
        "ycoords": y,
        "xcoords_start": x,
        "ycoords_start": y,
        "scan_index": np.zeros(len(x), dtype=np.int64),
        "probeGuess": probe.astype(np.complex64),
        "objectGuess": image.astype(np.complex64),
        "Y": patches.astype(np.complex64),
        "_metadata": np.array(told),
        **more,
    }
    write_npz(path, arrays)


def _frame_shape(archive: Archive, key: str, count: int, declared: Declared) -> tuple[tuple[int, int, int], bool]:
    """Shape (n, h, w) and whether the file has the count last. `diffraction` has it first by contract; `diff3d` varies.

    The count is along the axis that is as long as the list of coordinates; if both ends are, it must be said.
    """
    shape = archive.shape(key)
    if len(shape) != 3:
        raise FormatError(f"{archive.path}: {key} has the shape {shape}; it must have three axes")
    first, last = shape[0] == count, shape[2] == count
    if declared.frames_axis is not None:
        at_end = declared.frames_axis == "last"
    elif first and last and key == "diff3d":
        raise UsageError(
            f"{archive.path}: diff3d has the shape {shape}, so its frames may be counted first or last; "
            f"pass --frames-axis first|last"
        )
    else:
        at_end = last and not first
    return ((shape[2], shape[0], shape[1]) if at_end else (shape[0], shape[1], shape[2])), at_end


def _patches(archive: Archive) -> ndarray:
    patches = archive.load("Y")
    if patches.ndim == 4 and patches.shape[3] == 1:
        patches = patches[..., 0]
    if patches.ndim != 3:
        raise FormatError(
            f"{archive.path}: Y has the shape {patches.shape}; patches must be (n, h, w) or (n, h, w, 1): take groups "
            f"of several patches apart first, each with its own coordinates"
        )
    return patches


def _plane(archive: Archive, key: str) -> ndarray | None:
    """A two-dimensional array, leading axes of length one dropped; `None` where there is none of the kind."""
    if key not in archive or archive.is_object(key):
        return None
    plane = archive.load(key)
    plane = plane.reshape(plane.shape[-2:]) if plane.ndim > 2 and plane.size == np.prod(plane.shape[-2:]) else plane
    return plane if plane.ndim == 2 else None
