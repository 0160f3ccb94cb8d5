"""Peaks of a similarity map: where they are, to a part of a patch, how wide they are, and what else comes close.

A map is an array over the cells of a patch grid, `rows cols`; `scored` says which of them may be an answer. Points are
(x, y) in cell coordinates, so the centre of cell (row, col) is (col + 0.5, row + 0.5); distances are in cells.
"""

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from patchatlas.errors import ShapeError
from patchatlas.geometry.grid import PatchGrid

Cell = tuple[int, int]
"""Row and column of a patch."""

_ROUNDING = 1e-6  # pixels; a mark on the very edge of the picture is the centre of its patch, give or take float64


def scored_cells(grid: PatchGrid) -> Bool[Tensor, "rows cols"]:
    """True for the patches with their centre in the picture; the others show mostly padding."""
    width_height = torch.tensor(grid.frame.source_size[::-1], dtype=torch.float64)
    centres = grid.centres()
    inside = (centres >= -_ROUNDING) & (centres <= width_height + _ROUNDING)
    return inside.all(dim=1).reshape(grid.shape)


def find_peaks(
    similarity: Float[Tensor, "rows cols"], scored: Bool[Tensor, "rows cols"], *, radius: float, count: int
) -> list[Cell]:
    """The best cell, then the best one farther than `radius` from all before it, and so on: at most `count` cells.

    Of equal cells the first in row-major order is taken.

    Raises:
        ShapeError: no cell is scored.
    """
    if not scored.any():
        raise ShapeError("no patch of this map has its centre in the picture; take a larger image size")
    rows, cols = similarity.shape
    row_of = torch.arange(rows, device=similarity.device)[:, None]
    col_of = torch.arange(cols, device=similarity.device)
    open_cells = scored.clone()
    found: list[Cell] = []
    while len(found) < count and open_cells.any():
        row, col = divmod(int(similarity.masked_fill(~open_cells, -torch.inf).argmax()), cols)
        found.append((row, col))
        open_cells &= (row_of - row) ** 2 + (col_of - col) ** 2 > radius**2
    return found


def refine(
    similarity: Float[Tensor, "rows cols"], scored: Bool[Tensor, "rows cols"], cell: Cell
) -> tuple[float, float]:
    """The top of a peak, from a parabola through its cell and the two neighbours along each axis.

    The top of the parabola through a, b, c at -1, 0, 1 lies at (a - c) / (2 (a - 2 b + c)). Along an axis on which a
    neighbour is missing or higher the cell's centre is kept, so the point stays within half a cell of it.

    Returns:
        (x, y) in cell coordinates.
    """
    row, col = cell
    x = col + 0.5 + _top(similarity[row], scored[row], col)
    y = row + 0.5 + _top(similarity[:, col], scored[:, col], row)
    return x, y


def covariance(
    similarity: Float[Tensor, "rows cols"],
    scored: Bool[Tensor, "rows cols"],
    at: tuple[float, float],
    *,
    reach: int,
) -> Float64[Tensor, "2 2"]:
    """How far the mass of a peak lies from `at`, as second moments (x first), in cells squared.

    The mass of a cell is what its similarity has above half height, midway between the median of the map and the
    largest value near `at`, spread evenly over the cell's square (which by itself has a variance of 1/12 along each
    axis). No temperature is involved, so encoders with narrow and wide ranges of similarity are measured alike.

    Args:
        at: the point, in cell coordinates.
        reach: cells to each side of the cell of `at` that are looked at, at least one.
    """
    rows, cols = similarity.shape
    row, col = int(at[1]), int(at[0])
    near = (
        slice(max(0, row - reach), min(rows, row + reach + 1)),
        slice(max(0, col - reach), min(cols, col + reach + 1)),
    )
    values = similarity[near].double().masked_fill(~scored[near], -torch.inf)
    half = (values.max() + similarity[scored].double().median()) / 2
    mass = (values - half).clamp(min=0)
    if not mass.any():  # flat: every cell is as good as any other
        mass = scored[near].double()
    mass = mass / mass.sum()
    dy = torch.arange(near[0].start, near[0].stop, dtype=torch.float64, device=mass.device)[:, None] + 0.5 - at[1]
    dx = torch.arange(near[1].start, near[1].stop, dtype=torch.float64, device=mass.device) + 0.5 - at[0]
    xx, xy, yy = (mass * dx * dx).sum(), (mass * dx * dy).sum(), (mass * dy * dy).sum()
    return torch.stack([xx, xy, xy, yy]).reshape(2, 2) + torch.eye(2, dtype=torch.float64, device=mass.device) / 12


def _top(line: Tensor, scored: Tensor, at: int) -> float:
    """Offset of the parabola's top from cell `at` of one row or column, -0.5..0.5."""
    if not 0 < at < len(line) - 1 or not (scored[at - 1] and scored[at + 1]):
        return 0.0
    before, here, after = line[at - 1 : at + 2].tolist()
    bend = before - 2 * here + after
    if bend >= 0 or max(before, after) > here:
        return 0.0
    return float((before - after) / (2 * bend))
