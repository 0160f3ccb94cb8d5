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
            pictures of several sizes, directions or times (mixed_series), gaps (missing_slices, uneven_slices).
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
    orientation = np.array([header.orientation for header in headers], dtype=np.float64)
    spacing = np.array([header.spacing_hw for header in headers], dtype=np.float64)
    _require_same("sizes", [header.size_hw for header in headers], [h.size_hw == first.size_hw for h in headers])
    _require_same("directions", orientation.tolist(), np.abs(orientation - orientation[0]).max(1) <= _SAME)
    _require_same("pixel sizes", spacing.tolist(), np.abs(spacing / spacing[0] - 1).max(1) <= _SAME)
    if len(headers) < 2:
        raise VolumeError("it has one slice; a volume has two at least", reason="too_small")

    right, down = orientation[0, :3], orientation[0, 3:]  # where columns and rows grow
    positions = np.array([header.position for header in headers], dtype=np.float64)
    along = positions @ np.cross(right, down)
    order = np.argsort(along, kind="stable")
    _require_even(along[order])
    positions = positions[order]
    affine = np.eye(4)
    affine[:3, 0] = (positions[-1] - positions[0]) / (len(headers) - 1)
    affine[:3, 1] = down * spacing[0, 0]
    affine[:3, 2] = right * spacing[0, 1]
    affine[:3, 3] = positions[0]
    affine[:2] *= -1  # LPS to RAS
    return Stack(tuple(headers[k] for k in order), affine)


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
