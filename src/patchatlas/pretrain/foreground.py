"""What of a volume is worth looking at: voxels above a threshold, or the body without table and with its lungs.

Axes: z y x, growing to Superior, Anterior and Right; values in HU.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int16, UInt32
from scipy import ndimage

BODY_HU = -500.0
"""Threshold of the body mask: half-way between air and water, where the partial volume of the skin lies."""

DETACH_MM = 4.0
"""How thick a bridge may be that still does not tie the table to the body: the shell of a table, a sheet, a tube."""

_CROSS = np.array([[[0, 1, 0], [1, 1, 1], [0, 1, 0]]], dtype=bool)  # within an axial slice


def above(values: Int16[np.ndarray, "z y x"], threshold: float) -> Bool[np.ndarray, "z y x"]:
    """The voxels of more than `threshold` HU, which is finite."""
    return values > math.floor(threshold)  # the same of whole numbers, and 16 bits are compared, not 64


def body_mask(
    values: Int16[np.ndarray, "z y x"],
    spacing_zyx: Sequence[float],
    *,
    threshold: float = BODY_HU,
    detach_mm: float = DETACH_MM,
) -> Bool[np.ndarray, "z y x"]:
    """The largest connected body above a threshold, filled: lungs and bowel gas belong to it, table and air do not.

    Bridges up to `detach_mm` thick are cut in every axial slice (an erosion), the largest component that remains is
    taken (6 neighbours), and what the erosion took from it is given back as far as it lay above the threshold, and with
    it as much of a bridge. Walls of the body as thin as a bridge are lost as well. Then holes are filled slice by
    slice, since lungs open to the outside only through the airway. What a ring of body encloses in a slice, such as air
    between the arms above the head, is filled as well; an airway that opens to the outside within a slice is not.

    Args:
        values: HU.
        spacing_zyx: mm between voxels.
        threshold: body is above it.
        detach_mm: 0 cuts no bridges.

    Returns:
        All false if nothing is above the threshold.
    """
    mask: Bool[np.ndarray, "z y x"] = above(values, threshold)
    steps = round(detach_mm / 2 / min(spacing_zyx[1:]))
    core = ndimage.binary_erosion(mask, _CROSS, iterations=steps, border_value=1) if steps else mask
    if not core.any():  # thinner than a bridge everywhere
        core, steps = mask, 0
    body = _largest_component(core)
    if steps:
        body = ndimage.binary_dilation(body, _CROSS, iterations=2 * steps, mask=mask)  # twice: corners lie further
    for section in body:
        _fill_holes(section)
    return body


def count_cells(mask: Bool[np.ndarray, "z y x"], cell_zyx: Sequence[int]) -> UInt32[np.ndarray, "gz gh gw"]:
    """How many voxels of every cell are in `mask`; the last cells may reach beyond it and count what is inside.

    Args:
        mask: foreground.
        cell_zyx: voxels in a cell along each axis.
    """
    slabs = (mask[z : z + cell_zyx[0]] for z in range(0, mask.shape[0], cell_zyx[0]))
    return np.stack([_count(slab, cell_zyx) for slab in slabs])


def count_above(
    values: Int16[np.ndarray, "z y x"], threshold: float, cell_zyx: Sequence[int]
) -> UInt32[np.ndarray, "gz gh gw"]:
    """`count_cells` of `above`, in half the time: the mask is never whole, its slabs stay in the processor's cache.

    Args:
        values: HU.
        threshold: voxels of more count; finite.
        cell_zyx: voxels in a cell along each axis.
    """
    slabs = (above(values[z : z + cell_zyx[0]], threshold) for z in range(0, values.shape[0], cell_zyx[0]))
    return np.stack([_count(slab, cell_zyx) for slab in slabs])


def _count(slab: Bool[np.ndarray, "_z y x"], cell_zyx: Sequence[int]) -> UInt32[np.ndarray, "gh gw"]:
    """Counts of one row of cells: along z, then y, in bytes, of which a processor adds many at once, then along x."""
    z, y, x = cell_zyx
    counts = slab.view(np.uint8).sum(axis=0, dtype=_holding(z))
    rows, columns = -(-counts.shape[0] // y), -(-counts.shape[1] // x)
    beyond = (0, rows * y - counts.shape[0]), (0, columns * x - counts.shape[1])
    counts = np.pad(counts, beyond).reshape(rows, y, columns * x).sum(axis=1, dtype=_holding(z * y))
    found: UInt32[np.ndarray, "gh gw"] = counts[:, ::x].astype(np.uint32)
    for column in range(1, x):  # faster than one sum of the few numbers of each cell
        found += counts[:, column::x]
    return found


def _holding(largest: int) -> type[np.unsignedinteger[Any]]:
    """Unsigned whole numbers, as small as may be, that hold a count."""
    return np.uint8 if largest < 256 else np.uint32


def _largest_component(mask: Bool[np.ndarray, "z y x"]) -> Bool[np.ndarray, "z y x"]:
    labels = np.empty(mask.shape, np.int32)
    found = ndimage.label(mask, output=labels)
    if found <= 1:
        return mask.copy()
    sizes = np.zeros(found + 1, np.int64)
    for section in labels:  # slice by slice: bincount turns what it counts into 64 bits
        sizes += np.bincount(section.ravel(), minlength=found + 1)
    sizes[0] = 0
    largest: Bool[np.ndarray, "z y x"] = labels == sizes.argmax()
    return largest


def _fill_holes(section: Bool[np.ndarray, "y x"]) -> None:
    """Set, in place, what has no path to the outside of a slice (4 neighbours)."""
    rows, columns = np.flatnonzero(section.any(axis=1)), np.flatnonzero(section.any(axis=0))
    if not len(rows):
        return
    part = section[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    outside = np.pad(~part, 1, constant_values=True)
    labels, _ = ndimage.label(outside)
    part |= (labels != labels[0, 0])[1:-1, 1:-1]
