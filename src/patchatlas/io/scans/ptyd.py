"""PtyPy's .ptyd files (HDF5): `meta` with the geometry, `chunks/0, 1, ...` with frames and positions.

Written from the section "Ptyd file format" of PtyPy's manual. Positions are metres, (row, column), of the probe in the
object, and name the centre of a view; energy is in keV.
"""

from typing import Any

import numpy as np
from numpy import ndarray

from patchatlas.errors import FormatError
from patchatlas.io.scans import hdf5
from patchatlas.io.scans.scan import Content, FarField, real_numbers

FORMAT = "PtyPy .ptyd"

_KEV_TIMES_METRE = 1.2398419843e-9  # h c in keV m, exact by the SI of 2019


def is_ptyd(file: Any) -> bool:
    """Whether an HDF5 file is one."""
    return "chunks" in file


def read_ptyd(file: Any, *, frames: bool) -> Content:
    """Read one; its chunks in the order of their numbers.

    Raises:
        FormatError: a chunk without positions, of other shapes, or linked to a file that is not there.
    """
    names = sorted((name for name in file["chunks"] if name.isdigit()), key=int)
    positions: list[ndarray] = []
    shapes: list[tuple[int, ...]] = []
    data: list[ndarray] = []
    for name in names:
        at, stack = (hdf5.dataset(file, [f"chunks/{name}/{key}"]) for key in ("positions", "data"))
        if at is None or len(at.shape) != 2 or at.shape[1] != 2:
            shape = None if at is None else at.shape
            raise FormatError(f"{file.filename}: chunks/{name}/positions must be (n, 2), and is {shape or 'absent'}")
        positions.append(hdf5.values(at))
        if stack is not None:
            if len(stack.shape) != 3 or (shapes and shapes[0][1:] != stack.shape[1:]):
                raise FormatError(f"{file.filename}: chunks/{name}/data has the shape {stack.shape}, unlike (n, h, w)")
            shapes.append(stack.shape)
            if frames:
                data.append(hdf5.values(stack))
    if not positions:
        raise FormatError(f"{file.filename} holds no chunks: the scan is empty")
    frame_hw = (int(shapes[0][1]), int(shapes[0][2])) if shapes else None
    rule = f"the rule of {FORMAT}"
    known: dict[str, tuple[object, str]] = {
        "unit": ("m", rule),
        "order": ("yx", rule),
        "sign": ("plus", rule),
        "anchor": ("centre", rule),
    }
    far_field = _far_field(file, frame_hw)
    propagation = _text(file, "meta/propagation")
    pixel = _pair(file, "meta/psize")
    if propagation == "farfield" and far_field is not None:
        known["pixel_size"] = (far_field.size, f"{far_field.origin}, as meta/propagation is farfield")
    elif propagation == "nearfield" and pixel is not None:
        known["pixel_size"] = (pixel, "meta/psize, as meta/propagation is nearfield")
    return Content(
        format=FORMAT,
        positions=real_numbers(np.concatenate(positions), f"{file.filename}: positions"),
        known=known,
        frame_hw=frame_hw,
        frames=sum(int(shape[0]) for shape in shapes) if shapes else None,
        diffraction=np.concatenate(data) if data else None,
        far_field=far_field,
    )


def _far_field(file: Any, frame_hw: tuple[int, int] | None) -> FarField | None:
    energy, distance = hdf5.number(file, ["meta/energy"]), hdf5.number(file, ["meta/distance"])
    pixel = _pair(file, "meta/psize")
    if frame_hw is None or not energy or not distance or pixel is None:
        return None
    wavelength = _KEV_TIMES_METRE / energy
    h, w = frame_hw
    size = (wavelength * distance / (w * pixel[0]), wavelength * distance / (h * pixel[1]))
    return FarField(size, "meta/energy, distance, psize and the frame size")


def _pair(file: Any, name: str) -> tuple[float, float] | None:
    """One number for both axes, or (row, column); given as (x, y)."""
    found = hdf5.dataset(file, [name])
    if found is None or not np.issubdtype(found.dtype, np.number) or found.size not in (1, 2):
        return None
    numbers = hdf5.values(found).reshape(-1).astype(float)
    return float(numbers[-1]), float(numbers[0])


def _text(file: Any, name: str) -> str | None:
    found = hdf5.dataset(file, [name])
    if found is None or found.shape != ():
        return None
    value = found[()]
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
