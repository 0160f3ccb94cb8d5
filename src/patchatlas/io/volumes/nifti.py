"""NIfTI volumes (.nii, .nii.gz), read with nibabel as stored integers; slope and intercept are applied once.

NIfTI-1: https://nifti.nimh.nih.gov/nifti-1, "METHOD 2" and "METHOD 3" for orientation, xyzt_units for the unit.
"""

import zlib
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from patchatlas.errors import MissingExtraError
from patchatlas.io.volumes.reasons import VolumeError
from patchatlas.io.volumes.volume import Declared, Facts, Volume, make_volume

_MM = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}


def read_nifti(path: Path, declared: Declared) -> Volume:
    """Read one NIfTI file.

    Raises:
        VolumeError: it cannot be used; see its reason.
        MissingExtraError: nibabel is not installed.
    """
    nibabel = _nibabel()
    try:
        image = nibabel.load(path)
    except (nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError) as error:
        raise VolumeError(f"it is no NIfTI file or its header is damaged: {error}", reason="damaged") from error
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(error) from error
    if not isinstance(image, nibabel.Nifti1Image):
        raise VolumeError(f"it is {type(image).__name__}, not NIfTI; convert it", reason="unsupported")
    shape = image.shape
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
    proxy = image.dataobj
    try:
        stored = np.asanyarray(proxy.get_unscaled())
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise _unreadable(error) from error
    unit = _MM[image.header.get_xyzt_units()[0]]
    affine = np.asarray(image.affine, dtype=np.float64)
    affine[:3] *= unit
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


def _unreadable(error: Exception) -> VolumeError:
    """Which reason stands for what nibabel and gzip raise."""
    if isinstance(error, PermissionError):
        return VolumeError(f"it may not be opened: {error}", reason="unreadable")
    # gzip: EOFError; nibabel: "Expected N bytes, got M bytes"; numpy: "mmap length is greater than file size"
    if isinstance(error, EOFError) or "Expected" in str(error) or "mmap length" in str(error):
        return VolumeError(f"it ends before its voxels do ({error}); copy it again", reason="truncated")
    return VolumeError(f"its bytes are damaged ({error}); copy it again", reason="damaged")


def _nibabel() -> Any:
    try:
        module = import_module("nibabel")
    except ImportError as error:
        raise MissingExtraError("nibabel", extra="volumes", needed_for="reading NIfTI") from error
    return module
