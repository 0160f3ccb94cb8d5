"""InVesalius projects (.inv3): a gzip tar with a property list and the voxels as plain int16.

InVesalius keeps the columns of DICOM and turns its rows upside down, so slices grow to Superior, rows to Anterior and
columns to Left. (In the head CT of Debian's invesalius-examples the nose is at high rows and the jaw at low slices; a
head does not tell left from right.)
"""

import math
import plistlib
import tarfile
import zlib
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

import numpy as np

from patchatlas.io.volumes.orientation import affine_of_axes
from patchatlas.io.volumes.reasons import VolumeError
from patchatlas.io.volumes.volume import Declared, Volume, make_volume

_AXES = "SAL"
_LARGEST = 4 * 1024**3
"""Bytes of the largest matrix that is read, 2 GiVoxels: an archive can announce any size."""


def read_inv3(path: Path, declared: Declared) -> Volume:
    """Read the volume of a project; its masks and surfaces are left.

    Raises:
        VolumeError: it cannot be used; see its reason.
    """
    try:
        with tarfile.open(path, "r:*") as project:
            members = {Path(member.name).name: member for member in project if member.isfile()}
            told = plistlib.loads(_content(project, members, "main.plist", 1024**2))
            matrix = told["matrix"]
            shape = tuple(int(n) for n in matrix["shape"])
            dtype = np.dtype(str(matrix["dtype"]))
            content = _content(project, members, str(matrix["filename"]), _LARGEST)
            spacing = [float(step) for step in told["spacing"]]
    except (EOFError, tarfile.ReadError, zlib.error) as error:
        raise VolumeError(f"it ends early or is no tar archive ({error}); copy it again", reason="truncated") from error
    except (plistlib.InvalidFileException, ExpatError, LookupError, TypeError, ValueError, OSError) as error:
        if isinstance(error, VolumeError):
            raise
        raise VolumeError(f"its property list is not that of a project ({error!r})", reason="damaged") from error
    if dtype.kind not in "biuf" or any(n < 1 for n in shape):
        raise VolumeError(f"its matrix is of {shape} {dtype}, which are no numbers; copy it again", reason="damaged")
    if len(shape) != 3 or len(content) != math.prod(shape) * dtype.itemsize:
        raise VolumeError(f"its matrix has {len(content)} bytes, not those of {shape} {dtype}", reason="truncated")
    if told.get("modality", "CT") != "CT" and declared.units == "hounsfield":
        raise VolumeError(f"it is of modality {told['modality']}, not CT; --units any takes it as is", reason="not_ct")
    stored = np.frombuffer(content, dtype).reshape(shape)
    facts = {"format": "inv3", "dtype": str(dtype), "program": str(told.get("invesalius_version", ""))}
    return make_volume(stored, affine_of_axes(_AXES, spacing[::-1]), facts=facts, units=declared.units)


def _content(project: tarfile.TarFile, members: dict[str, Any], name: str, largest: int) -> bytes:
    """The bytes of one member; nothing is unpacked to the disk."""
    member = members.get(name)
    if member is None:
        raise VolumeError(f"the project has no {name}; is it one of InVesalius?", reason="not_a_volume")
    if member.size > largest:
        raise VolumeError(f"its {name} announces {member.size} bytes, more than {largest}", reason="unsupported")
    handle = project.extractfile(member)
    assert handle is not None, "members are files"
    return handle.read()
