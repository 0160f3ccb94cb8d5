"""NIfTI volumes (.nii, .nii.gz), read with nibabel as stored integers; slope and intercept are applied once.

NIfTI-1: https://nifti.nimh.nih.gov/nifti-1, "METHOD 2" and "METHOD 3" for orientation, xyzt_units for the unit.
"""

import gzip
import math
import zlib
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from patchatlas.errors import MissingExtraError
from patchatlas.io.volumes.reasons import VolumeError
from patchatlas.io.volumes.volume import Declared, Facts, Volume, make_volume

_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""mm of the unit of length by its code, the low three bits of xyzt_units: not told, metre, millimetre, micrometre."""
_AT_ONCE = 1 << 20
"""Bytes that are decompressed at once."""


def read_nifti(path: Path, declared: Declared) -> Volume:
    """Read one NIfTI file.

    Raises:
        VolumeError: it cannot be used; see its reason.
        MissingExtraError: nibabel is not installed.
    """
    nibabel = _nibabel()
    try:
        with np.errstate(invalid="ignore"):  # an offset of NaN is told below
            image = nibabel.load(path)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(error) from error
    except (*_NO_HEADER, nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError) as error:
        raise VolumeError(f"it is no NIfTI file or its header is damaged: {error!r}", reason="damaged") from error
    if not isinstance(image, nibabel.Nifti1Image):
        raise VolumeError(f"it is {type(image).__name__}, not NIfTI; convert it", reason="unsupported")
    shape = tuple(int(n) for n in image.shape)
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        raise VolumeError(
            f"it has shape {shape}; read are single volumes of three axes, so split it first", reason="not_a_volume"
        )
    if not (int(image.header["sform_code"]) or int(image.header["qform_code"])):
        raise VolumeError(
            "its sform and qform codes are both 0, so it does not say which way its axes run; set one, for example by "
            "converting it again from DICOM",
            reason="no_orientation",
        )
    if min(shape) < 1:
        raise VolumeError(f"its header gives it {shape} voxels; copy it again", reason="damaged")
    unit = int(image.header["xyzt_units"]) & 7
    if unit not in _MM:
        raise VolumeError(f"its header gives a unit of length of code {unit}, which NIfTI has not", reason="damaged")
    proxy = image.dataobj
    try:
        stored = _decompressed(path, proxy) if path.name.lower().endswith(".gz") else _mapped(path, proxy)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise _unreadable(error) from error
    affine = np.asarray(image.affine, dtype=np.float64)
    affine[:3] *= _MM[unit]
    slope, intercept = float(proxy.slope), float(proxy.inter)
    facts: Facts = {"format": "nifti", "dtype": str(stored.dtype), "slope": slope, "intercept": intercept}
    return make_volume(
        stored.reshape(shape[:3]),
        affine,
        facts=facts,
        units=declared.units,
        slope=slope,
        intercept=intercept,
    )


_NO_HEADER = (ValueError, KeyError, TypeError, OverflowError)
"""What nibabel raises for numbers in a header that mean nothing: an offset of NaN, a type without a name."""


def _decompressed(path: Path, proxy: Any) -> Shaped[np.ndarray, "..."]:
    """The stored numbers of a .nii.gz, read past the last voxel to the end: only there gzip compares its checksum.

    Raises:
        EOFError: it ends early.
        OSError, zlib.error: it is damaged.
    """
    needed = math.prod(proxy.shape) * proxy.dtype.itemsize
    content = bytearray()  # it grows by what is there: a header can announce any size
    with gzip.open(path, "rb") as stream:
        stream.seek(proxy.offset)
        while len(content) < needed and (part := stream.read(min(_AT_ONCE, needed - len(content)))):
            content += part
        if len(content) < needed:
            raise EOFError(f"{len(content)} of {needed} bytes are there")
        while stream.read(_AT_ONCE):
            pass
    return np.frombuffer(content, proxy.dtype).reshape(proxy.shape, order="F")


def _mapped(path: Path, proxy: Any) -> Shaped[np.ndarray, "..."]:
    """The stored numbers of a .nii, mapped.

    Raises:
        EOFError: it ends early.
    """
    needed, held = proxy.offset + math.prod(proxy.shape) * proxy.dtype.itemsize, path.stat().st_size
    if held < needed:
        raise EOFError(f"{held} of {needed} bytes are there")
    return np.asanyarray(proxy.get_unscaled())


def _unreadable(error: Exception) -> VolumeError:
    """Which reason stands for what the disk and gzip raise."""
    if isinstance(error, PermissionError):
        return VolumeError(f"it may not be opened: {error}", reason="unreadable")
    if isinstance(error, EOFError):
        return VolumeError(f"it ends before its voxels do ({error}); copy it again", reason="truncated")
    return VolumeError(f"its bytes are damaged ({error}); copy it again", reason="damaged")


def _nibabel() -> Any:
    try:
        module = import_module("nibabel")
    except ImportError as error:
        raise MissingExtraError("nibabel", extra="volumes", needed_for="reading NIfTI") from error
    return module
