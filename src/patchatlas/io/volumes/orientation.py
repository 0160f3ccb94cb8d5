"""Turn an array of any orientation into the one convention: axes (z, y, x) that grow to Superior, Anterior and Right.

World coordinates are RAS+ mm, as in NIfTI. Foreign affines put the centre of the first voxel at index 0; ours puts its
corner at 0 (docs/conventions.md), so the two differ by half a voxel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from jaxtyping import Float64, Shaped

from patchatlas.io.volumes.reasons import VolumeError

_SHEAR = 0.02
"""Largest cosine between two axes that passes for a right angle: 1.1 degrees, above what rounding of positions does."""

_WORLD = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}


@dataclass(frozen=True, eq=False)
class Oriented:
    """An array in the one orientation.

    Attributes:
        values: a view of the array given, axes flipped and permuted.
        spacing_zyx: mm between voxels.
        affine: from (x, y, z, 1) in the continuous space of voxels to RAS+ mm.
    """

    values: Shaped[np.ndarray, "z y x"]
    spacing_zyx: tuple[float, float, float]
    affine: Float64[np.ndarray, "4 4"]


def orient(values: Shaped[np.ndarray, "i j k"], affine_centres: Float64[np.ndarray, "4 4"]) -> Oriented:
    """Flip and permute axes so that they run as close to the convention as whole turns allow; no voxel is resampled.

    Args:
        values: axes in any order.
        affine_centres: from (i, j, k, 1), centres of voxels at whole numbers, to RAS+ mm.

    Raises:
        VolumeError: an affine that is not finite or has an axis of no length (no_spacing), or axes that are not at
            right angles (sheared).
    """
    columns = affine_centres[:3, :3]
    lengths = np.linalg.norm(columns, axis=0)
    if not np.isfinite(affine_centres).all() or lengths.min() <= 0:
        raise VolumeError(
            f"its affine gives voxels of {lengths.tolist()} mm, which is no size; write a correct affine",
            reason="no_spacing",
        )
    directions = columns / lengths
    angles = directions.T @ directions - np.eye(3)
    if np.abs(angles).max() > _SHEAR:
        raise VolumeError(
            f"its axes are not at right angles (cosine {np.abs(angles).max():.3f}), as with a tilted gantry; resample "
            f"it first, for example with dcm2niix",
            reason="sheared",
        )
    # along[w] is the array axis that runs along world axis w (Right, Anterior, Superior).
    along = max(permutations(range(3)), key=lambda order: sum(abs(directions[w, a]) for w, a in enumerate(order)))
    turned = np.empty((3, 3))
    corner = affine_centres[:3, 3].copy()
    flips = [slice(None)] * 3
    for world, axis in enumerate(along):
        sign = 1.0 if directions[world, axis] >= 0 else -1.0
        turned[:, world] = sign * columns[:, axis]
        if sign < 0:
            corner += columns[:, axis] * (values.shape[axis] - 1)
            flips[axis] = slice(None, None, -1)
    affine = np.eye(4)
    affine[:3, :3] = turned + 0.0  # no negative zeros
    affine[:3, 3] = corner - turned @ np.full(3, 0.5)
    x, y, z = (float(lengths[axis]) for axis in along)
    return Oriented(values[tuple(flips)].transpose(along[::-1]), (z, y, x), affine)


def affine_of_axes(axes: str, spacing: Sequence[float]) -> Float64[np.ndarray, "4 4"]:
    """The affine, centres at whole numbers, of an array whose axes grow to the sides named.

    Args:
        axes: one letter an array axis, such as `SAR` (the convention) or `SPL` (arrays of SimpleITK and nnU-Net).
        spacing: mm along each array axis.

    Raises:
        VolumeError: letters that do not name three different axes (no_orientation), or sizes that are not above 0
            (no_spacing).
    """
    known = [_WORLD[letter] for letter in axes.upper() if letter in _WORLD]
    if len(axes) != 3 or sorted(world for world, _ in known) != [0, 1, 2]:
        raise VolumeError(
            f"axes {axes!r} do not name where three axes grow to; give one of S/I, of A/P and of R/L, such as SAR",
            reason="no_orientation",
        )
    if len(spacing) != 3 or not all(np.isfinite(step) and step > 0 for step in spacing):
        raise VolumeError(f"a spacing of {tuple(spacing)} mm is no size; give three above 0", reason="no_spacing")
    affine = np.eye(4)
    affine[:3, :3] = 0.0
    for axis, ((world, sign), step) in enumerate(zip(known, spacing, strict=True)):
        affine[world, axis] = sign * step
    return affine
