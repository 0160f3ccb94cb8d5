"""Put the pictures of a DICOM series on top of each other by their positions, and see that none is missing or foreign.

Slices are sorted along their common normal, never by file name or instance number, which need not follow the body.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from patchatlas.io.volumes.dicom_header import Header
from patchatlas.io.volumes.reasons import VolumeError

_SAME = 1e-3
"""How far directions and pixel sizes of one series may differ: positions are written with few digits."""

_UNEVEN, _UNEVEN_MM = 0.05, 0.02
"""How far the distance of two slices may lie off the usual one, as a share of it or in mm, whichever is more."""

_ASIDE = 0.5
"""How far a slice may lie off its place in the stack: half a pixel within its plane, half a slice along the normal."""

_UNIT = 0.01
"""How far directions may be off length 1 and off a right angle: they are written with few digits."""


@dataclass(frozen=True, eq=False)
class Stack:
    """A complete series.

    Attributes:
        slices: in the order in which they lie along the normal.
        affine_centres: from (slice, row, column, 1), centres of voxels at whole numbers, to RAS+ mm.
    """

    slices: tuple[Header, ...]
    affine_centres: Float64[np.ndarray, "4 4"]


def stack(headers: Sequence[Header]) -> Stack:
    """Order a series and check it.

    Raises:
        VolumeError: no position or direction (no_orientation), no pixel size (no_spacing), one slice only (too_small),
            pictures of several sizes, directions or times (mixed_series), gaps (missing_slices, uneven_slices), slices
            that lie aside of the others (uneven_slices).
    """
    first = headers[0]
    for header in headers:
        if header.position is None or header.orientation is None:
            raise VolumeError(
                f"{header.path.name} does not say where it lies (ImagePositionPatient, ImageOrientationPatient)",
                reason="no_orientation",
            )
        if header.spacing_hw is None:
            raise VolumeError(f"{header.path.name} does not say how large its pixels are", reason="no_spacing")
        _require_sizes(header.path.name, header.position, header.orientation, header.spacing_hw)
    orientation = np.array([header.orientation for header in headers], dtype=np.float64)
    spacing = np.array([header.spacing_hw for header in headers], dtype=np.float64)
    _require_same("sizes", [header.size_hw for header in headers], [h.size_hw == first.size_hw for h in headers])
    _require_same("directions", orientation.tolist(), np.abs(orientation - orientation[0]).max(1) <= _SAME)
    _require_same("pixel sizes", spacing.tolist(), np.abs(spacing / spacing[0] - 1).max(1) <= _SAME)
    if len(headers) < 2:
        raise VolumeError("it has one slice; a volume has two at least", reason="too_small")

    right, down = orientation[0, :3], orientation[0, 3:]  # where columns and rows grow
    positions = np.array([header.position for header in headers], dtype=np.float64)
    normal = np.cross(right, down)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    _require_even(along[order])
    positions = positions[order]
    step = (positions[-1] - positions[0]) / (len(headers) - 1)
    _require_straight(positions, step, normal, pixel=float(spacing[0].min()))
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = down * spacing[0, 0]
    affine[:3, 2] = right * spacing[0, 1]
    affine[:3, 3] = positions[0]
    affine[:2] *= -1  # LPS to RAS
    return Stack(tuple(headers[k] for k in order), affine)


def _require_sizes(
    name: str, position: Sequence[float], orientation: Sequence[float], spacing: Sequence[float]
) -> None:
    """Refuse places, directions and sizes that are none."""
    rows, columns = np.array(orientation[:3]), np.array(orientation[3:])
    off = rows @ rows - 1, columns @ columns - 1, rows @ columns
    if not (np.isfinite(position).all() and np.abs(off).max() <= _UNIT):
        raise VolumeError(
            f"{name} lies at {position} mm and runs along {orientation}; these must be a place and two directions of "
            f"length 1 at right angles: export the series again",
            reason="no_orientation",
        )
    if not all(np.isfinite(side) and side > 0 for side in spacing):
        raise VolumeError(
            f"the pixels of {name} are {spacing} mm, which is no size; export the series again", reason="no_spacing"
        )


def _require_straight(
    positions: Float64[np.ndarray, "n 3"],
    step: Float64[np.ndarray, " 3"],
    normal: Float64[np.ndarray, " 3"],
    *,
    pixel: float,
) -> None:
    """Refuse slices, sorted, that do not lie where the first one and the common step put them."""
    off = positions - (positions[0] + np.arange(len(positions))[:, None] * step)
    along = off @ normal
    aside = np.linalg.norm(off - along[:, None] * normal, axis=1)
    if aside.max() > _ASIDE * pixel:
        raise VolumeError(
            f"its slices are not stacked in one line: number {int(aside.argmax()) + 1} of {len(positions)} along their "
            f"normal lies {aside.max():.3g} mm aside, more than half a pixel; split the series",
            reason="uneven_slices",
        )
    if np.abs(along).max() > _ASIDE * float(step @ normal):
        raise VolumeError(
            f"the distance of its slices drifts: number {int(np.abs(along).argmax()) + 1} of {len(positions)} lies "
            f"{np.abs(along).max():.3g} mm off its place, more than half a slice; resample the series evenly",
            reason="uneven_slices",
        )


def _require_same(what: str, values: Sequence[object], same: Sequence[bool] | np.ndarray) -> None:
    """Refuse a series in which not all pictures are as the first one."""
    if not all(same):
        other = [bool(one) for one in same].index(False)
        raise VolumeError(
            f"its pictures have different {what}, {values[0]} and {values[other]}, so they are not one volume; "
            f"separate them by series",
            reason="mixed_series",
        )


def _require_even(along: Float64[np.ndarray, " n"]) -> None:
    """Refuse slices, sorted by their place in mm, that do not follow each other at one distance."""
    steps = np.diff(along)
    usual = float(np.median(steps))
    if steps.min() < _UNEVEN_MM:
        raise VolumeError(
            f"{int((steps < _UNEVEN_MM).sum())} of its {len(along)} pictures lie where another one lies, as phases or "
            f"two reconstructions do; separate them",
            reason="mixed_series",
        )
    off = np.abs(steps - usual) > max(_UNEVEN * usual, _UNEVEN_MM)
    if not off.any():
        return
    times = steps[off] / usual
    where = float(along[:-1][off][0])
    if (times > 1.5).all() and np.abs(times - np.rint(times)).max() <= 2 * _UNEVEN:
        missing = int((np.rint(times) - 1).sum())
        raise VolumeError(
            f"{missing} slices are missing: they are {usual:.3g} mm apart and leave {int(off.sum())} gaps, the first "
            f"after {where:.2f} mm along their normal; export the series again",
            reason="missing_slices",
        )
    raise VolumeError(
        f"its slices are {steps.min():.3g} to {steps.max():.3g} mm apart, the first odd step after {where:.2f} mm "
        f"along their normal; resample the series evenly or split it",
        reason="uneven_slices",
    )
