"""Zarr volumes (folders NAME.zarr), read only: an array, a group with one, or the finest level of an OME-Zarr image.

Zarr v3: https://zarr-specs.readthedocs.io/en/latest/v3/core/index.html; v2 is read as well. OME-Zarr 0.5 and 0.4:
https://ngff.openmicroscopy.org/0.5/, "multiscales" and "axes"; `orientation` of an axis is RFC-4 of the same. Sizes of
voxels come from its scales where all three axes of space have a unit, and from the sidecar or the caller otherwise, as
for bare arrays. Translations are left: an array lies at the origin of the world.
zarr is imported only here and its types are unknown to type checkers, so arrays pass as `Any`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from patchatlas.errors import MissingExtraError
from patchatlas.io.volumes.reasons import VolumeError
from patchatlas.io.volumes.sidecar import read_sidecar
from patchatlas.io.volumes.volume import Declared, Volume, make_from_array

SUFFIX = ".zarr"

_MM = {
    "nanometer": 1e-6,
    "micrometer": 1e-3,
    "millimeter": 1.0,
    "centimeter": 10.0,
    "decimeter": 100.0,
    "meter": 1000.0,
    "inch": 25.4,
}
"""Units of length as OME-Zarr names them (UDUNITS-2) that a body is measured in."""

_GROWS_TO = {
    "left-to-right": "R",
    "right-to-left": "L",
    "posterior-to-anterior": "A",
    "anterior-to-posterior": "P",
    "inferior-to-superior": "S",
    "superior-to-inferior": "I",
}

_WARMEST_FILL = -200
"""HU that fat and all other tissue lie above: what is not stored of a volume may only be air."""

_DAMAGE = (RuntimeError, ValueError, OSError, KeyError, TypeError, NotImplementedError)
"""What zarr and its codecs raise for other bytes, other metadata and codecs than they know."""


Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class _Image:
    """What the metadata of an OME-Zarr image say of its finest level.

    Attributes:
        path: of its array in the group.
        space: places of the three axes of space among those of the array, in the order (z, y, x) if they are so named.
        spacing: mm along them, if the image says it.
        grows_to: one letter each, if all say.
    """

    path: str
    space: tuple[int, int, int]
    spacing: Spacing | None
    grows_to: str | None


def read_zarr(path: Path, declared: Declared) -> Volume:
    """Read one volume from a folder of zarr.

    Raises:
        VolumeError: it cannot be used; see its reason.
        MissingExtraError: zarr is not installed.
    """
    zarr = _zarr()
    try:
        node = zarr.open(path, mode="r")
        image = _ome_image(dict(node.attrs)) if isinstance(node, zarr.Group) else None
        array = node if isinstance(node, zarr.Array) else _member(node, image)
        absent = int(array.nchunks) - int(array.nchunks_initialized)
        if absent and declared.units == "hounsfield" and not _is_air(array.fill_value):
            fill = "nothing that it names" if array.fill_value is None else f"{array.fill_value} HU"
            raise VolumeError(
                f"{absent} of its {array.nchunks} chunks are not there and would read as {fill}, which is no air; copy "
                f"it again, or store empty chunks too",
                reason="truncated",
            )
        stored: Shaped[np.ndarray, "..."] = np.asarray(array[...])
    except (VolumeError, PermissionError):
        raise
    except _DAMAGE as error:
        raise VolumeError(f"its metadata or chunks are damaged ({error!r}); copy it again", reason="damaged") from error
    facts = {"format": "zarr", "dtype": str(stored.dtype), "array": array.path, "chunks_absent": absent}
    told = read_sidecar(path)
    spacing, axes = told.spacing, told.axes
    if image is not None:
        stored = _of_space(stored, image)
        spacing, axes = image.spacing or spacing, image.grows_to or axes
    return make_from_array(stored, declared, spacing=spacing, axes=axes, facts=facts)


def _is_air(fill: Any) -> bool:
    """Whether what is not stored may be air. v2 may name no value (`null`), and then it is not known what is read."""
    return fill is not None and float(fill) <= _WARMEST_FILL


def _member(group: Any, image: _Image | None) -> Any:
    """The array of an image, or the only one of a group that may be a volume."""
    if image is not None:
        return group[image.path]
    arrays = dict(group.arrays())
    volumes = [array for array in arrays.values() if array.ndim in (3, 4)]
    if len(volumes) != 1:
        raise VolumeError(
            f"it has no OME-Zarr image, and {len(volumes)} arrays of three axes (of {', '.join(arrays) or 'none'}); "
            f"save one volume a folder",
            reason="not_a_volume",
        )
    return volumes[0]


def _ome_image(attributes: Mapping[str, Any]) -> _Image | None:
    """The first image of a group; 0.5 has it below `ome`, 0.4 beside the other attributes."""
    images = attributes.get("ome", attributes).get("multiscales")
    if not images:
        return None
    image = images[0]
    finest = image["datasets"][0]
    axes = image["axes"]
    names = [str(axis["name"]) for axis in axes]
    space = [k for k, axis in enumerate(axes) if axis.get("type", "space") == "space"]
    if len(space) != 3:
        raise VolumeError(
            f"its axes are {', '.join(names)}, of which {len(space)} are of space; a volume has three",
            reason="not_a_volume",
        )
    if {names[k] for k in space} == {"z", "y", "x"}:
        space = [names.index(name) for name in "zyx"]
    z, y, x = space
    return _Image(str(finest["path"]), (z, y, x), _spacing(axes, space, image), _letters(axes, space))


def _spacing(axes: Sequence[Mapping[str, Any]], space: Sequence[int], image: Mapping[str, Any]) -> Spacing | None:
    """mm between voxels of the finest level; `None` without a scale of that level or with a unit that is not known."""
    units = [str(axes[k].get("unit")) for k in space]
    scales = _scales(image["datasets"][0])
    if not scales or not all(unit in _MM for unit in units):
        return None
    scales += _scales(image)  # of all levels
    z, y, x = (_MM[unit] * math.prod(float(scale[k]) for scale in scales) for k, unit in zip(space, units, strict=True))
    return z, y, x


def _scales(told: Mapping[str, Any]) -> list[Any]:
    return [change["scale"] for change in told.get("coordinateTransformations", []) if change["type"] == "scale"]


def _letters(axes: Sequence[Mapping[str, Any]], space: Sequence[int]) -> str | None:
    """Where the axes of space grow to, if they say it as RFC-4 has it."""
    told = [axes[k].get("orientation") for k in space]
    if not any(told):
        return None
    values: list[Any] = [one["value"] if one else None for one in told]
    if not all(value in _GROWS_TO for value in values):
        raise VolumeError(
            f"the orientations of its axes are {values}; read are {', '.join(_GROWS_TO)} for each of them, or none",
            reason="no_orientation",
        )
    return "".join(_GROWS_TO[value] for value in values)


def _of_space(stored: Shaped[np.ndarray, "..."], image: _Image) -> Shaped[np.ndarray, "z y x"]:
    """The axes of space in their order; time and channels go if they have one entry."""
    others = tuple(k for k in range(stored.ndim) if k not in image.space)
    if any(stored.shape[k] != 1 for k in others):
        raise VolumeError(
            f"its array has shape {stored.shape}, with several channels or times; save each as a volume of its own",
            reason="not_a_volume",
        )
    return stored.transpose(*others, *image.space).reshape([stored.shape[k] for k in image.space])


def _zarr() -> Any:
    try:
        return import_module("zarr")
    except ImportError as error:
        raise MissingExtraError("zarr", extra="zarr", needed_for="reading zarr") from error
