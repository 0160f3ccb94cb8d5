"""Peaks of similarity maps: where they are, to a part of a patch, how wide they are, and what else comes close.

Axes: k maps (one a landmark) over the cells of one patch grid, `*shape` = (rows, cols) or (z, rows, cols); m peaks a
map. `scored` says which cells may be an answer. Points are (x, y[, z]) in cell coordinates, so the centre of cell
(row, col) is (col + 0.5, row + 0.5); distances are in cells.
"""

import math
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from patchatlas.errors import ShapeError
from patchatlas.geometry.grid import PatchGrid

_ROUNDING = 1e-6  # pixels; a mark on the very edge of the picture is the centre of its patch, give or take float64


@dataclass(frozen=True)
class Peaks:
    """The best cells of each map, best first.

    Attributes:
        cells: index of each, ([z,] row, col); where a map has fewer peaks than were asked for, the rest is 0.
        values: similarity of each; minus infinity where there is none.
    """

    cells: Int64[Tensor, "k m ndim"]
    values: Float[Tensor, "k m"]

    @property
    def present(self) -> Bool[Tensor, "k m"]:
        """Which entries are peaks."""
        return self.values > -torch.inf


def scored_cells(grid: PatchGrid) -> Bool[Tensor, "*shape"]:
    """True for the patches with their centre in the picture; the others show mostly padding."""
    extent = torch.tensor(grid.frame.source_size[::-1], dtype=torch.float64)
    centres = grid.centres()
    inside = (centres >= -_ROUNDING) & (centres <= extent + _ROUNDING)
    return inside.all(dim=1).reshape(grid.shape)


def find_peaks(
    similarity: Float[Tensor, "k *shape"], scored: Bool[Tensor, "*shape"], *, radius: float, count: int
) -> Peaks:
    """Of each map the best cell, then the best one farther than `radius` from all before it, and so on.

    Of equal cells the first in row-major order is taken.

    Args:
        count: peaks a map, at most.

    Raises:
        ShapeError: no cell is scored.
    """
    if not scored.any():
        raise ShapeError("no patch of this map has its centre in the picture; take a larger image size")
    shape = scored.shape
    values = similarity.masked_fill(~scored, -torch.inf).flatten(1)
    near = _ball(radius, len(shape), device=similarity.device)
    cells, found = [], []
    for _ in range(count):
        best, at = values.max(dim=1)
        cell = torch.stack(torch.unravel_index(at, shape), dim=1)
        cells.append(torch.where(best[:, None] > -torch.inf, cell, 0))
        found.append(best)
        around = cell[:, None] + near  # (k, cells of the ball, ndim)
        # Beyond the border nothing is to be closed: the peak itself is named instead, which is closed anyhow.
        flat = torch.where(_inside(around, shape), _flat(around, shape), at[:, None])
        values.scatter_(1, flat, -torch.inf)
    return Peaks(torch.stack(cells, dim=1), torch.stack(found, dim=1))


def refine(
    similarity: Float[Tensor, "k *shape"], scored: Bool[Tensor, "*shape"], cells: Int64[Tensor, "k m ndim"]
) -> Float64[Tensor, "k m ndim"]:
    """The tops of peaks, each from a parabola through its cell and the two neighbours along each axis.

    The top of the parabola through a, b, c at -1, 0, 1 lies at (a - c) / (2 (a - 2 b + c)). Along an axis on which a
    neighbour is missing or higher the cell's centre is kept, so the point stays within half a cell of it.

    Returns:
        (x, y[, z]) in cell coordinates.
    """
    shape = scored.shape
    here = _read(similarity, cells)
    tops = []
    for axis in reversed(range(len(shape))):
        step = torch.zeros(len(shape), dtype=torch.long, device=cells.device)
        step[axis] = 1
        before, after = _read(similarity, cells - step), _read(similarity, cells + step)
        bend = before - 2 * here + after
        beside = _among(scored, cells - step) & _among(scored, cells + step)
        usable = beside & (bend < 0) & (torch.maximum(before, after) <= here)
        offset = torch.where(usable, (before - after) / (2 * torch.where(usable, bend, 1.0)), 0.0)
        tops.append(cells[..., axis] + 0.5 + offset)
    return torch.stack(tops, dim=-1)


def covariance(
    similarity: Float[Tensor, "k *shape"],
    scored: Bool[Tensor, "*shape"],
    at: Float64[Tensor, "k ndim"],
    *,
    reach: int,
) -> Float64[Tensor, "k ndim ndim"]:
    """How far the mass of a peak lies from `at`, as second moments (x first), in cells squared.

    The mass of a cell is what its similarity has above half height, midway between the median of the map and the
    largest value near `at`, spread evenly over the cell (which by itself has a variance of 1/12 along each axis). No
    temperature is involved, so encoders with narrow and wide ranges of similarity are measured alike.

    Args:
        at: a point a map, in cell coordinates.
        reach: cells to each side of the cell of `at` that are looked at, at least one.
    """
    shape = scored.shape
    own = at.flip(1).long()  # truncation: the cell that a point lies in
    side = torch.arange(-reach, reach + 1, device=similarity.device)
    window = own[:, None] + torch.cartesian_prod(*[side] * len(shape))
    usable = _among(scored, window)
    values = _read(similarity, window)
    middle = similarity.flatten(1)[:, scored.flatten()].median(dim=1).values.double()
    half = (values.masked_fill(~usable, -torch.inf).amax(dim=1) + middle) / 2
    mass = torch.where(usable, (values - half[:, None]).clamp(min=0), 0.0)
    flat = ~mass.any(dim=1, keepdim=True)  # every cell is as good as any other
    mass = torch.where(flat, usable.double(), mass)
    mass = mass / mass.sum(dim=1, keepdim=True)
    away = window.flip(2) + 0.5 - at[:, None]
    cell = torch.eye(len(shape), dtype=torch.float64, device=similarity.device) / 12
    return torch.einsum("kw,kwi,kwj->kij", mass, away, away) + cell


def _ball(radius: float, ndim: int, *, device: torch.device) -> Tensor:
    """Index steps within `radius`, the zero step among them."""
    reach = range(-math.floor(radius), math.floor(radius) + 1)
    steps = [step for step in product(reach, repeat=ndim) if sum(n * n for n in step) <= radius * radius]
    return torch.tensor(steps, device=device)


def _inside(cells: Tensor, shape: torch.Size) -> Tensor:
    return ((cells >= 0) & (cells < torch.tensor(shape, device=cells.device))).all(dim=-1)


def _flat(cells: Tensor, shape: torch.Size) -> Tensor:
    """Row-major numbers of cells, those beyond the border moved onto it."""
    number = torch.zeros_like(cells[..., 0])
    for axis, n in enumerate(shape):
        number = number * n + cells[..., axis].clamp(0, n - 1)
    return number


def _among(scored: Tensor, cells: Tensor) -> Tensor:
    """Which cells exist and are scored."""
    return _inside(cells, scored.shape) & scored.flatten()[_flat(cells, scored.shape)]


def _read(similarity: Tensor, cells: Tensor) -> Tensor:
    """Values of each map at its own cells, float64."""
    return similarity.flatten(1).gather(1, _flat(cells, similarity.shape[1:])).double()
