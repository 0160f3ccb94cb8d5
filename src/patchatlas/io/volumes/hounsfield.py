"""Stored numbers to Hounsfield units, and the refusal of numbers that are none.

HU: -1000 is air, 0 is water (DICOM PS3.3 C.11.1.1.2). CT scanners store 12 bits, so values end near -1024 and 3071;
metal in an extended scale reaches 32767.
"""

from typing import Literal

import numpy as np
from jaxtyping import Int16, Shaped

from patchatlas.io.volumes.reasons import VolumeError

Units = Literal["hounsfield", "any"]
"""`any` keeps the numbers as they are, for labels and other modalities; they must still be finite and fit int16."""

Kind = Units | Literal["labels"]
"""`labels` are those of a mask: whole numbers, 0 and above."""

AIR = -1024
"""The lowest HU that a 12-bit scale with the usual intercept knows. What lies below is padding outside the field."""

_INT16 = np.iinfo(np.int16)


def to_int16(
    stored: Shaped[np.ndarray, "..."],
    *,
    slope: float = 1.0,
    intercept: float = 0.0,
    units: Kind = "hounsfield",
) -> Int16[np.ndarray, "..."]:
    """The values `slope * stored + intercept`, rounded.

    In Hounsfield units what lies below `AIR` becomes `AIR`: scanners pad what they did not see with -2000, -3024 or
    -32768.

    Raises:
        VolumeError: NaN or infinity (not_finite), values that int16 does not hold or that cannot be HU (wrong_units),
            labels that are none (not_a_mask), something that is no real number (not_a_volume).
    """
    if stored.dtype.kind not in "biuf":
        raise VolumeError(f"it holds {stored.dtype}, which is no real number", reason="not_a_volume")
    low, high = float(stored.min()), float(stored.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise VolumeError("it holds NaN or infinity; fill them with the value of air, -1024", reason="not_finite")
    ends = sorted((slope * low + intercept, slope * high + intercept))
    if units == "hounsfield":
        _require_hounsfield(*ends, whole=_is_whole(stored, slope, intercept))
        ends[0] = max(ends[0], AIR)
    elif units == "labels" and (ends[0] < 0 or not _holds_whole(stored, slope, intercept)):
        raise VolumeError(
            f"its values run from {ends[0]:g} to {ends[1]:g}; a mask has whole numbers, 0 outside and above 0 inside. "
            f"Cut probabilities at a threshold first",
            reason="not_a_mask",
        )
    if ends[0] < _INT16.min or ends[1] > _INT16.max:
        raise VolumeError(
            f"its values run from {ends[0]:g} to {ends[1]:g}, beyond what 16 bits hold; it holds something else than "
            f"Hounsfield units, or its slope and intercept are wrong",
            reason="wrong_units",
        )
    if stored.dtype == np.int16 and slope == 1.0 and intercept == 0.0:
        return stored if low >= ends[0] else np.maximum(stored, np.int16(ends[0]))
    out = np.empty(stored.shape, np.int16)
    for part, drawn in zip(stored, out, strict=True):  # slice by slice: the floats of a whole volume are large
        np.copyto(drawn, np.rint(np.clip(part * np.float64(slope) + intercept, ends[0], ends[1])), casting="unsafe")
    return out


def _is_whole(stored: Shaped[np.ndarray, "..."], slope: float, intercept: float) -> bool:
    """Whether the values are whole numbers by their type."""
    return stored.dtype.kind in "biu" and float(slope).is_integer() and float(intercept).is_integer()


def _holds_whole(stored: Shaped[np.ndarray, "..."], slope: float, intercept: float) -> bool:
    """Whether all values are whole numbers, whatever their type."""
    if _is_whole(stored, slope, intercept):
        return True
    scaled = (part * np.float64(slope) + intercept for part in stored)
    return all(bool((part == np.rint(part)).all()) for part in scaled)


def _require_hounsfield(low: float, high: float, *, whole: bool) -> None:
    """Refuse ranges that no CT has. A range cannot prove HU; it shows the usual mistakes."""
    remedy = "index the volume it was made from, or say --units any if that is meant"
    if high - low <= 64 and not whole:
        raise VolumeError(
            f"its values run from {low:g} to {high:g}: scaled to 0..1 or z-scored, not Hounsfield units; {remedy}",
            reason="wrong_units",
        )
    if low >= 0 and high <= 255:
        raise VolumeError(
            f"its values run from {low:g} to {high:g}: an 8-bit picture or labels, not Hounsfield units; {remedy}",
            reason="wrong_units",
        )
    if low > -200:
        raise VolumeError(
            f"its values run from {low:g} to {high:g} and none is that of fat or air: stored without the intercept, "
            f"usually -1024, or windowed; {remedy}",
            reason="wrong_units",
        )
    if high < -200:
        raise VolumeError(f"its values end at {high:g}: nothing but air; {remedy}", reason="wrong_units")
