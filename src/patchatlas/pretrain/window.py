"""Windows of HU that become 0..1, by name, and the refusal of one that hides the foreground.

Values outside a window are indistinguishable: [500, 3000] shows bone and maps all other tissue, and the air, to 0. With
such a window and body foreground, the crops would be chosen for what the network cannot see.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int16

from patchatlas.errors import UsageError

WINDOWS: dict[str, tuple[float, float]] = {
    "ct": (-1000.0, 1000.0),  # FlexiCT and SPECTRE, the default
    "full": (-1024.0, 3071.0),  # all of a 12-bit scale
    "chest": (-1000.0, 500.0),  # VoCo, Large-Scale-Medical
    # Level and width as radiologists set them: Radiopaedia, "Windowing (CT)".
    "lung": (-1350.0, 150.0),  # level -600, width 1500
    "bone": (-500.0, 1300.0),  # level 400, width 1800
    "soft": (-150.0, 250.0),  # level 50, width 400
    "brain": (0.0, 80.0),  # level 40, width 80
}
"""Lower and upper end, HU. `soft` and `brain` need a foreground threshold at or above their lower end."""


def check_window(window: Sequence[float], threshold: float) -> None:
    """Refuse a window in which foreground looks like what is none.

    Args:
        window: lower and upper end, HU.
        threshold: voxels above it are foreground, HU; for the body mask, the threshold it is made with.

    Raises:
        UsageError: the window is empty, or its lower end lies above the threshold.
    """
    low, high = window
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"the window {low:g} to {high:g} HU is empty; give its lower end first, such as -1000 1000")
    if low > threshold:
        raise UsageError(
            f"the window {low:g} to {high:g} HU begins above the foreground threshold of {threshold:g} HU: foreground "
            f"from {threshold:g} to {low:g} HU would look the same as air. Begin the window at {threshold:g} or below, "
            f"or raise the threshold if only what lies above {low:g} HU is meant to be learnt"
        )


def normalise(values: Int16[np.ndarray, "*size"], window: Sequence[float]) -> Float32[np.ndarray, "*size"]:
    """HU as shares of a window, 0 at its lower end and below, 1 at its upper end and above.

    Args:
        values: HU.
        window: lower and upper end, HU.
    """
    low, high = window
    share = (values.astype(np.float32) - np.float32(low)) / np.float32(high - low)
    return np.clip(share, 0.0, 1.0, out=share)
