"""How often each HU occurs: bins of 16 HU, fixed for all volumes, so that histograms add up."""

import numpy as np
from jaxtyping import Int16, Int64

BIN = 16
LOW, HIGH = -1024, 3072
EDGES: Int64[np.ndarray, " edges"] = np.arange(LOW, HIGH + 1, BIN)
"""Edges of the bins; the first also counts what lies below it, the last what lies above."""


def count_values(values: Int16[np.ndarray, "z y x"]) -> Int64[np.ndarray, " bins"]:
    """The voxels in each bin."""
    counts = np.zeros(len(EDGES) - 1, np.int64)
    for section in values:  # slice by slice: bincount turns what it counts into 64 bits
        bins = (np.clip(section, LOW, HIGH - 1) - np.int16(LOW)) // BIN
        counts += np.bincount(bins.ravel(), minlength=len(counts))
    return counts


def percentile(counts: Int64[np.ndarray, " bins"], share: float) -> float:
    """The HU below which a share (0..1) of the voxels lies, linear within its bin; NaN without voxels."""
    total = counts.sum()
    if not total:
        return float("nan")
    below = np.concatenate([[0], np.cumsum(counts)]) / total
    return float(np.interp(share, below, EDGES))
