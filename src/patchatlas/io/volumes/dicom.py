"""DICOM series: grouped and checked by their headers, pixels decoded by SimpleITK (GDCM) or else by pydicom."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Shaped

from patchatlas.io.volumes.dicom_header import DAMAGE, Header, import_pydicom, read_header
from patchatlas.io.volumes.dicom_stack import stack
from patchatlas.io.volumes.reasons import VolumeError, printable
from patchatlas.io.volumes.volume import Declared, Volume, make_volume

Decoder = Literal["simpleitk", "pydicom"]


def read_series(paths: Sequence[Path], declared: Declared, *, decoder: Decoder | None = None) -> Volume:
    """Read one series.

    Args:
        paths: its files, in any order.
        declared: what the caller says.
        decoder: which library decodes the pixels; SimpleITK where it is installed, if not given. It knows all
            compressed transfer syntaxes, pydicom alone only the plain ones; but names of files must be UTF-8 for it.

    Raises:
        VolumeError: it cannot be used; see its reason.
        MissingExtraError: pydicom is not installed.
    """
    headers = [read_header(path) for path in paths]
    return read_headers(headers, declared, decoder=decoder)


def read_headers(headers: Sequence[Header], declared: Declared, *, decoder: Decoder | None = None) -> Volume:
    """As `read_series`, of headers that have been read."""
    first = headers[0]
    if declared.units == "hounsfield":
        _require_ct(headers)
    if len({header.series for header in headers}) > 1:
        raise VolumeError("its pictures are of several series; read one series at a time", reason="mixed_series")
    stacked = stack(headers)
    named = all(printable(str(header.path)) == str(header.path) for header in headers)
    decoder = decoder or ("simpleitk" if named and _simpleitk() is not None else "pydicom")
    if decoder == "simpleitk" and not named:  # it would end the process
        raise VolumeError("SimpleITK opens no files whose names are not UTF-8; rename them", reason="unreadable")
    decode: Callable[[Header], np.ndarray] = _by_simpleitk if decoder == "simpleitk" else _by_pydicom
    slices = [decode(header) for header in stacked.slices]
    wrong = [section.shape for section in slices if section.shape != first.size_hw]
    if wrong:
        raise VolumeError(f"a picture decodes to {wrong[0]}, its header says {first.size_hw}", reason="damaged")
    facts = {"format": "dicom", "series": first.series, "slices": float(len(slices)), "decoder": decoder, **first.facts}
    return make_volume(np.stack(slices), stacked.affine_centres, facts=facts, units=declared.units)


def _require_ct(headers: Sequence[Header]) -> None:
    """Refuse pictures that say that they are no CT, or that their numbers are no Hounsfield units."""
    for header in headers:
        if header.modality != "CT":
            raise VolumeError(
                f"it is of modality {header.modality or 'unknown'}, not CT; --units any takes it as it is",
                reason="not_ct",
            )
        if header.localizer:
            raise VolumeError("it is a localizer, an overview made to plan the scan", reason="not_ct")
        if header.unit != "HU":
            raise VolumeError(
                f"its numbers are of type {header.unit} (RescaleType), not HU; --units any takes them as they are",
                reason="wrong_units",
            )


def group_by_series(headers: Iterable[Header]) -> Mapping[str, list[Header]]:
    """Headers by the identifier of their series, in the order in which each is first seen."""
    groups: dict[str, list[Header]] = {}
    for header in headers:
        groups.setdefault(header.series, []).append(header)
    return groups


def _by_simpleitk(header: Header) -> Shaped[np.ndarray, "h w"]:
    """The values of one picture, slope and intercept applied by GDCM."""
    simpleitk = _simpleitk()
    assert simpleitk is not None, "chosen only where it is installed"
    told = simpleitk.ProcessObject.GetGlobalWarningDisplay()
    simpleitk.ProcessObject.SetGlobalWarningDisplay(False)  # it writes to stderr; what matters is raised
    try:
        image = simpleitk.ReadImage(str(header.path), imageIO="GDCMImageIO")
        values: np.ndarray = simpleitk.GetArrayFromImage(image)
    except RuntimeError as error:
        last = str(error).strip().splitlines()[-1]
        raise VolumeError(f"{header.path.name} cannot be decoded ({last}); copy it again", reason="damaged") from error
    finally:
        simpleitk.ProcessObject.SetGlobalWarningDisplay(told)
    return values.reshape(values.shape[-2:])


def _by_pydicom(header: Header) -> Shaped[np.ndarray, "h w"]:
    """The values of one picture, slope and intercept applied here."""
    try:
        stored: np.ndarray = import_pydicom().dcmread(header.path).pixel_array
    except (RuntimeError, *DAMAGE) as error:
        raise VolumeError(
            f"{header.path.name} cannot be decoded ({error}); if it is compressed, install SimpleITK, "
            f"else copy it again",
            reason="damaged",
        ) from error
    if float(header.slope).is_integer() and float(header.intercept).is_integer():
        return stored.astype(np.int32) * int(header.slope) + int(header.intercept)
    return stored.astype(np.float32) * np.float32(header.slope) + np.float32(header.intercept)


def _simpleitk() -> Any | None:
    try:
        return import_module("SimpleITK")
    except ImportError:
        return None
