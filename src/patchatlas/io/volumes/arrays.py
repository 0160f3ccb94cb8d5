"""NumPy volumes: NPY, and NPZ with one array of three axes; nothing is unpickled."""

from pathlib import Path

import numpy as np

from patchatlas.errors import FormatError
from patchatlas.io.scans.archive import archive, load_npy
from patchatlas.io.volumes.reasons import VolumeError
from patchatlas.io.volumes.sidecar import read_sidecar
from patchatlas.io.volumes.volume import Declared, Volume, make_from_array

_SPACING = "spacing"
"""Array of an NPZ with mm along each axis of the volume."""


def read_npy(path: Path, declared: Declared) -> Volume:
    """Read an NPY file; its spacing comes from a sidecar or from the caller.

    Raises:
        VolumeError: it cannot be used; see its reason.
    """
    try:
        stored = load_npy(path, mapped=True)
    except FormatError as error:
        raise VolumeError(f"{error}; save it again", reason="damaged") from error
    told = read_sidecar(path)
    facts = {"format": "npy", "dtype": str(stored.dtype)}
    return make_from_array(stored, declared, spacing=told.spacing, axes=told.axes, facts=facts)


def read_npz(path: Path, declared: Declared) -> Volume:
    """Read an NPZ file with one array of three axes (or one channel and three), and perhaps one named `spacing`.

    Raises:
        VolumeError: it cannot be used; see its reason.
    """
    try:
        with archive(path) as members:
            arrays = {name: members.load(name) for name in members.names}
    except FormatError as error:
        raise VolumeError(f"{error}; save it again", reason="damaged") from error
    volumes = {name: array for name, array in arrays.items() if array.ndim in (3, 4)}
    if len(volumes) != 1:
        raise VolumeError(
            f"it has {len(volumes)} arrays of three axes ({', '.join(arrays) or 'no arrays'}); save one volume a file",
            reason="not_a_volume",
        )
    ((name, stored),) = volumes.items()
    told = read_sidecar(path)
    spacing = told.spacing
    if _SPACING in arrays:
        steps = np.ravel(arrays[_SPACING])
        if steps.dtype.kind not in "iuf":
            raise VolumeError(
                f"its array `spacing` holds {steps.dtype}, no numbers; save three of mm", reason="damaged"
            )
        spacing = tuple(float(step) for step in steps)
    facts = {"format": "npz", "dtype": str(stored.dtype), "array": name}
    return make_from_array(stored, declared, spacing=spacing, axes=told.axes, facts=facts)
