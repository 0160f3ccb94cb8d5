"""The JSON file beside a bare array that says what the array cannot: spacing and where its axes grow to."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from patchatlas.io.volumes.reasons import VolumeError


@dataclass(frozen=True)
class Told:
    """What stands there, if anything.

    Attributes:
        spacing: mm along each array axis.
        axes: where they grow to, one letter each.
    """

    spacing: tuple[float, ...] | None = None
    axes: str | None = None


def read_sidecar(path: Path) -> Told:
    """What NAME.json says of NAME.npy, NAME.npz or NAME.b2nd: `{"spacing": [z, y, x], "axes": "SAR"}`, both optional.

    Raises:
        VolumeError: it is there and says something else (damaged).
    """
    beside = path.with_suffix(".json")
    try:
        told = json.loads(beside.read_bytes())
        spacing, axes = told.get("spacing"), told.get("axes")
        sizes = None if spacing is None else tuple(float(step) for step in spacing)
    except FileNotFoundError:
        return Told()
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise VolumeError(_wanted(beside, str(error)), reason="damaged") from error
    unknown = set(told) - {"spacing", "axes"}
    if unknown or not isinstance(axes, str | None) or (sizes and not all(map(math.isfinite, sizes))):
        raise VolumeError(_wanted(beside, f"it has {told}"), reason="damaged")
    return Told(sizes, axes)


def _wanted(path: Path, found: str) -> str:
    return f'{path.name} beside it should be like {{"spacing": [1.5, 0.9, 0.9], "axes": "SAR"}}: {found}'
