"""CXI files: frames and the translation of the sample in metres, SI units throughout.

Written from the CXI format (Maia, Nature Methods 9, 2012; version 1.60) and NeXus' NXcxi_ptycho. The translation is the
sample's, so the beam moves the other way in the object; `basis_vectors` say which way rows and columns of the detector
run. Where these are absent the direction is open (cdtools negates, ptychodus does not) and the caller must say it.
"""

from typing import Any

import numpy as np

from patchatlas.errors import FormatError
from patchatlas.io.scans import hdf5
from patchatlas.io.scans.scan import Content, FarField, Sign, real_numbers

FORMAT = "CXI"

_PLACES = ("entry_1/data_1", "entry_1/sample_1/geometry_1", "entry_1/instrument_1/detector_1")
_DETECTOR = "entry_1/instrument_1/detector_1"
_SOURCE = "entry_1/instrument_1/source_1"

_PLANCK_TIMES_LIGHT = 1.986445857e-25  # joule metres; exact by the SI of 2019: 6.62607015e-34 J s * 299792458 m/s


def is_cxi(file: Any) -> bool:
    """Whether an HDF5 file is one."""
    return "entry_1" in file


def read_cxi(file: Any, *, frames: bool) -> Content:
    """Read one.

    Raises:
        FormatError: no translation, arrays of other shapes, or detector axes that are not along x and y.
    """
    found = hdf5.dataset(file, [f"{place}/translation" for place in _PLACES])
    if found is None:
        raise FormatError(f"{file.filename} has no positions: translation is in none of {', '.join(_PLACES)}")
    translation = hdf5.values(found)
    if translation.ndim != 2 or translation.shape[1] not in (2, 3):
        raise FormatError(f"{file.filename}: translation has the shape {translation.shape}; it must be (n, 3)")
    data = hdf5.dataset(file, ["entry_1/data_1/data", f"{_DETECTOR}/data"])
    if data is not None and len(data.shape) != 3:
        raise FormatError(f"{file.filename}: data has the shape {data.shape}; it must be (n, h, w)")
    known: dict[str, tuple[object, str]] = {
        "unit": ("m", f"the rule of {FORMAT}"),
        "order": ("xy", f"the rule of {FORMAT}: translation is (x, y, z)"),
        "anchor": ("corner", "translation is known up to a constant, so any anchor will do"),
    }
    basis = hdf5.dataset(file, [f"{_DETECTOR}/basis_vectors"])
    if basis is not None:
        known["sign"] = (_sign(hdf5.values(basis), file.filename), "the sample's translation and basis_vectors")
    frame_hw = None if data is None else (int(data.shape[1]), int(data.shape[2]))
    return Content(
        format=FORMAT,
        positions=real_numbers(translation[:, :2], f"{file.filename}: translation"),
        known=known,
        frame_hw=frame_hw,
        frames=None if data is None else int(data.shape[0]),
        diffraction=hdf5.values(data) if frames and data is not None else None,
        far_field=_far_field(file, frame_hw),
    )


def _sign(basis: np.ndarray, path: str) -> Sign:
    """Direction of a stored coordinate in the object, rows and columns of which run as the detector's.

    The beam is at minus the sample's translation; column 0 of `basis` is one detector row down, column 1 one pixel to
    the right (CXI 1.60, section on detectors), rows x, y, z.
    """
    if basis.shape != (3, 2):
        raise FormatError(f"{path}: basis_vectors has the shape {basis.shape}; it must be (3, 2)")
    down, right = basis.T
    if abs(down[1]) < 0.99 * np.linalg.norm(down) or abs(right[0]) < 0.99 * np.linalg.norm(right):
        raise FormatError(
            f"{path}: basis_vectors {basis.tolist()} do not have rows along y and columns along x; turn the scan, "
            f"write it as a table in pixels, and read that"
        )
    signs: dict[tuple[bool, bool], Sign] = {
        (True, True): "plus",
        (False, False): "minus",
        (False, True): "minus-x",
        (True, False): "minus-y",
    }
    return signs[bool(-right[0] > 0), bool(-down[1] > 0)]


def _far_field(file: Any, frame_hw: tuple[int, int] | None) -> FarField | None:
    energy = hdf5.number(file, [f"{_SOURCE}/energy"])
    distance = hdf5.number(file, [f"{_DETECTOR}/distance"])
    pixels = [hdf5.number(file, [f"{_DETECTOR}/{axis}_pixel_size"]) for axis in "xy"]
    if frame_hw is None or not energy or not distance or not all(pixels):
        return None
    wavelength = _PLANCK_TIMES_LIGHT / energy
    sides = (frame_hw[1], frame_hw[0])
    x, y = (wavelength * distance / (n * pixel) for n, pixel in zip(sides, pixels, strict=True) if pixel)
    return FarField((x, y), "energy, distance, x_pixel_size, y_pixel_size and frame size")
