"""What every reader gives: a CT volume in HU and in one orientation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64, Int16, Shaped

from patchatlas.io.volumes.hounsfield import Kind, to_int16
from patchatlas.io.volumes.orientation import affine_of_axes, orient
from patchatlas.io.volumes.reasons import VolumeError

FINEST_MM, COARSEST_MM = 0.001, 100.0
"""Sides of voxels that are believed: micro-CT ends near 1 micrometre. Metres taken for mm are less, micrometres more.
"""

Facts = Mapping[str, str | float]


@dataclass(frozen=True, eq=False)
class Volume:
    """A CT volume.

    Attributes:
        values: HU; axes grow to Superior, Anterior and Right.
        spacing_zyx: mm between voxels.
        affine: from (x, y, z, 1) in the continuous space of voxels, in which voxel (i, r, c) covers
            [c, c+1) x [r, r+1) x [i, i+1), to RAS+ world mm.
        facts: what the file says of itself, without names of people.
    """

    values: Int16[np.ndarray, "z y x"]
    spacing_zyx: tuple[float, float, float]
    affine: Float64[np.ndarray, "4 4"]
    facts: Facts = field(default_factory=dict)


@dataclass(frozen=True)
class Declared:
    """What a caller says of volumes whose files do not.

    Attributes:
        spacing_zyx: mm between voxels, for arrays that do not tell.
        axes: where the axes of such arrays grow to, one letter each.
        units: what values must be: Hounsfield units, labels, or any.
    """

    spacing_zyx: tuple[float, float, float] | None = None
    axes: str = "SAR"
    units: Kind = "hounsfield"


def make_volume(
    stored: Shaped[np.ndarray, "i j k"],
    affine_centres: Float64[np.ndarray, "4 4"],
    *,
    facts: Facts,
    units: Kind,
    slope: float = 1.0,
    intercept: float = 0.0,
) -> Volume:
    """A volume from what a file holds.

    Args:
        stored: numbers as stored, axes in any order.
        affine_centres: from (i, j, k, 1), centres of voxels at whole numbers, to RAS+ mm.
        facts: see `Volume`.
        units: what the values must be.
        slope: stored numbers times this ...
        intercept: ... plus this are HU.

    Raises:
        VolumeError: too few voxels, or values, axes or sizes of voxels that cannot be used.
    """
    if min(stored.shape) < 2:
        raise VolumeError(
            f"it has {' x '.join(map(str, stored.shape))} voxels; a volume has two at least along each axis",
            reason="too_small",
        )
    oriented = orient(stored, affine_centres)
    if not all(FINEST_MM <= step <= COARSEST_MM for step in oriented.spacing_zyx):
        sizes = " x ".join(f"{step:.3g}" for step in oriented.spacing_zyx)
        raise VolumeError(
            f"its voxels are {sizes} mm (z, y, x); read are {FINEST_MM:g} to {COARSEST_MM:g}, so the unit may be "
            f"wrong: write it again with the size in mm",
            reason="no_spacing",
        )
    values = to_int16(np.ascontiguousarray(oriented.values), slope=slope, intercept=intercept, units=units)
    return Volume(values, oriented.spacing_zyx, oriented.affine, facts)


def make_from_array(
    stored: Shaped[np.ndarray, "..."],
    declared: Declared,
    *,
    spacing: Sequence[float] | None,
    axes: str | None,
    facts: Facts,
) -> Volume:
    """A volume from a bare array; what its file tells goes before what the caller declares.

    Args:
        stored: three axes, or four of which the first has one channel.
        declared: what the caller says.
        spacing: mm along each array axis, if the file tells.
        axes: where they grow to, if the file tells.
        facts: see `Volume`.

    Raises:
        VolumeError: another number of axes (not_a_volume), no spacing from either (no_spacing), and what
            `make_volume` refuses.
    """
    if stored.ndim == 4 and stored.shape[0] == 1:
        stored = stored[0]
    if stored.ndim != 3:
        raise VolumeError(
            f"its array has shape {stored.shape}; a volume has three axes, or one channel and three axes",
            reason="not_a_volume",
        )
    step = spacing if spacing is not None else declared.spacing_zyx
    if step is None:
        raise VolumeError(
            "nothing says how large its voxels are; put a file NAME.json beside it with "
            '{"spacing": [z, y, x], "axes": "SAR"}, or declare --assume-spacing-zyx Z Y X for all such files',
            reason="no_spacing",
        )
    affine = affine_of_axes(axes if axes is not None else declared.axes, step)
    return make_volume(stored, affine, facts=facts, units=declared.units)
