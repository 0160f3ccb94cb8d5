"""ptychodus products, HDF5 or NPZ: positions in metres in a world that the object's centre and pixel size tie down.

By ptychodus' data contract a position lies at x_px = (x - centre) / pixel + W / 2 of the object, and a patch of N
pixels about it begins at x_px - N / 2.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from patchatlas.errors import FormatError
from patchatlas.io.scans import hdf5
from patchatlas.io.scans.archive import Archive
from patchatlas.io.scans.scan import Content, probe_modes, real_numbers

FORMAT = "ptychodus product"


def is_product(names: tuple[str, ...]) -> bool:
    """Whether a file with these arrays is one."""
    return {"probe_position_x_m", "probe_position_y_m"} <= set(names)


def read_product_npz(archive: Archive) -> Content:
    """Read an NPZ product.

    Raises:
        FormatError: arrays that do not fit.
    """
    return _content(
        archive.path,
        array=lambda name: archive.load(name) if name in archive else None,
        # Facts of the object are arrays of their own here, and attributes in HDF5.
        object_fact=lambda name: float(archive.load(f"object_{name}")) if f"object_{name}" in archive else None,
    )


def read_product_hdf5(file: Any) -> Content:
    """Read an HDF5 product.

    Raises:
        FormatError: arrays that do not fit.
    """

    def array(name: str) -> ndarray | None:
        found = hdf5.dataset(file, [name])
        return None if found is None else hdf5.values(found)

    def object_fact(name: str) -> float | None:
        found = hdf5.dataset(file, ["object"])
        return float(found.attrs[name]) if found is not None and name in found.attrs else None

    return _content(Path(file.filename), array=array, object_fact=object_fact)


def _content(
    path: Path, *, array: Callable[[str], ndarray | None], object_fact: Callable[[str], float | None]
) -> Content:
    x, y = array("probe_position_x_m"), array("probe_position_y_m")
    if x is None or y is None or x.ndim != 1 or x.shape != y.shape:
        raise FormatError(f"{path}: probe_position_x_m and probe_position_y_m must be two lists of one length")
    rule = f"the rule of {FORMAT}"
    known: dict[str, tuple[object, str]] = {
        "unit": ("m", "the names probe_position_x_m, probe_position_y_m"),
        "order": ("xy", "the names probe_position_x_m, probe_position_y_m"),
        "sign": ("plus", rule),
        "anchor": ("middle", rule),
    }
    pixel = [object_fact("pixel_width_m"), object_fact("pixel_height_m")]
    centre = [object_fact("center_x_m"), object_fact("center_y_m")]
    image = array("object")
    notes = []
    if image is not None and image.ndim == 3:
        if len(image) > 1:
            notes.append(f"the object has {len(image)} layers; their product is taken")
        image = np.prod(image, axis=0)
    if None not in pixel:
        if not all(p is not None and np.isfinite(p) and p > 0 for p in pixel):
            raise FormatError(
                f"{path}: the object's pixel_width_m and pixel_height_m are {pixel}, which are no lengths"
            )
        known["pixel_size"] = (tuple(pixel), "object pixel_width_m, pixel_height_m")
        if image is not None and image.size and None not in centre:
            sides = (image.shape[1], image.shape[0])
            origin = tuple(w / 2 - c / p for w, c, p in zip(sides, centre, pixel, strict=True) if p and c is not None)
            known["origin_px"] = (origin, "object center_x_m, center_y_m and size")
    stored, probe = array("probe"), None
    if stored is not None and stored.ndim == 4 and len(stored) > 1:
        # (coherent, incoherent, h, w): the former vary the probe from position to position.
        notes.append(f"the first of {len(stored)} coherent (OPR) parts of the probe is taken")
        stored = stored[0]
    if stored is not None:
        probe, more = probe_modes(stored, "probe")
        notes += more
    return Content(
        format=FORMAT,
        positions=real_numbers(np.stack([x, y], axis=1), f"{path}: probe_position_x_m, probe_position_y_m"),
        known=known,
        frame_hw=None if probe is None else (probe.shape[1], probe.shape[2]),
        probe=probe,
        object=image,
        notes=tuple(notes),
    )
