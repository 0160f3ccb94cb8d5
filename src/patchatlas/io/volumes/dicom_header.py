"""What the header of one DICOM picture says of its place, read with pydicom; no pixels, and no names of people.

Attributes by keyword: DICOM PS3.6; where pixels lie: PS3.3 C.7.6.2 (image plane), C.11.1 (modality LUT).
"""

import struct
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from patchatlas.errors import MissingExtraError
from patchatlas.io.volumes.reasons import VolumeError

_KEYWORDS = (
    *("SOPClassUID", "SeriesInstanceUID", "Modality", "ImageType", "InstanceNumber", "NumberOfFrames"),
    *("Rows", "Columns", "BitsAllocated", "SamplesPerPixel", "PixelSpacing"),
    *("ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept"),
    "RescaleType",
    *("Manufacturer", "ConvolutionKernel", "KVP", "SliceThickness", "BodyPartExamined", "ContrastBolusAgent"),
)
_FACTS = {
    "Manufacturer": "manufacturer",
    "ConvolutionKernel": "kernel",
    "KVP": "kvp",
    "SliceThickness": "slice_thickness_mm",
    "BodyPartExamined": "body_part",
    "ContrastBolusAgent": "contrast",
}
_PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
"""Transfer syntaxes whose pixels are not compressed: implicit, explicit and big-endian."""


@dataclass(frozen=True)
class Header:
    """One picture of a series.

    Attributes:
        path: its file.
        series: unique identifier of its series.
        modality: CT, MR ...
        localizer: whether it is an overview made to plan the scan.
        size_hw: rows and columns.
        spacing_hw: mm from row to row and from column to column; `None` if it does not say.
        position: of the centre of its first pixel, mm, LPS; `None` likewise.
        orientation: directions in which columns and rows grow, LPS; `None` likewise.
        slope: stored numbers times this ...
        intercept: ... plus this are of its unit.
        unit: HU also where it does not say: it must where they are others (C.11.1.1.2).
        facts: what else is worth keeping.
    """

    path: Path
    series: str
    modality: str
    localizer: bool
    size_hw: tuple[int, int]
    spacing_hw: tuple[float, float] | None
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    slope: float
    intercept: float
    unit: str
    facts: dict[str, str | float]


def read_header(path: Path) -> Header:
    """Read the header of one file.

    Raises:
        VolumeError: no DICOM or a damaged header (damaged), no picture in it (not_a_volume), several frames or colours
            (unsupported), fewer bytes than its pixels take (truncated), or it may not be opened (unreadable).
        MissingExtraError: pydicom is not installed.
    """
    pydicom = import_pydicom()
    try:
        with path.open("rb") as handle:
            dataset = pydicom.dcmread(handle, stop_before_pixels=True, specific_tags=list(_KEYWORDS))
            rest = path.stat().st_size - handle.tell()
        return _header(path, dataset, rest)
    except VolumeError:
        raise
    except PermissionError as error:
        raise VolumeError(f"{path.name} may not be opened: {error}", reason="unreadable") from error
    except (pydicom.errors.InvalidDicomError, *DAMAGE) as error:
        raise VolumeError(
            f"{path.name} is no DICOM file or its header is damaged ({error}); copy it again", reason="damaged"
        ) from error


DAMAGE = (OSError, EOFError, ValueError, TypeError, AttributeError, KeyError, NotImplementedError, struct.error)
"""What pydicom raises for damaged files."""


def _header(path: Path, dataset: Any, rest: int) -> Header:
    """Args: `rest` is the number of bytes from the element of the pixels on, of which its own head takes 8 at least."""
    if "Rows" not in dataset or "Columns" not in dataset:
        raise VolumeError(f"{path.name} is DICOM without a picture, such as a report or a plan", reason="not_a_volume")
    frames, samples = int(dataset.get("NumberOfFrames") or 1), int(dataset.get("SamplesPerPixel") or 1)
    if frames != 1 or samples != 1:
        raise VolumeError(
            f"{path.name} holds {frames} frames of {samples} colours; read are series of single slices. Convert "
            f"multi-frame files to NIfTI, for example with dcm2niix",
            reason="unsupported",
        )
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    needed = rows * columns * int(dataset.get("BitsAllocated") or 16) // 8
    if str(dataset.file_meta.get("TransferSyntaxUID")) in _PLAIN and rest - 8 < needed:
        raise VolumeError(
            f"{path.name} ends {needed - rest + 8} bytes before its {rows} x {columns} pixels do; copy it again",
            reason="truncated",
        )
    spacing, kind = _floats(dataset, "PixelSpacing", 2), dataset.get("ImageType") or ()
    return Header(
        path=path,
        series=str(dataset.get("SeriesInstanceUID") or ""),
        modality=str(dataset.get("Modality") or ""),
        localizer="LOCALIZER" in [str(word) for word in kind],
        size_hw=(rows, columns),
        spacing_hw=None if spacing is None else (spacing[0], spacing[1]),
        position=_floats(dataset, "ImagePositionPatient", 3),
        orientation=_floats(dataset, "ImageOrientationPatient", 6),
        slope=float(1 if dataset.get("RescaleSlope") is None else dataset.RescaleSlope),
        intercept=float(dataset.get("RescaleIntercept") or 0),
        unit=str(dataset.get("RescaleType") or "HU").strip().upper(),
        facts=_facts(dataset),
    )


def _floats(dataset: Any, keyword: str, count: int) -> tuple[float, ...] | None:
    values = dataset.get(keyword)
    return None if values is None or len(values) != count else tuple(float(value) for value in values)


def _facts(dataset: Any) -> dict[str, str | float]:
    facts: dict[str, str | float] = {}
    for keyword, name in _FACTS.items():
        value = dataset.get(keyword)
        if value is not None and str(value):
            facts[name] = float(value) if name in ("kvp", "slice_thickness_mm") else str(value)
    return facts


def import_pydicom() -> Any:
    """The pydicom module.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return import_module("pydicom")
    except ImportError as error:
        raise MissingExtraError("pydicom", extra="volumes", needed_for="reading DICOM") from error
