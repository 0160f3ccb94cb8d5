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
from patchatlas.geometry.rowmajor import unravel

SOFT_REACH = 1
SOFT_TEMPERATURE = 0.7
"""Cells to each side and temperature of a soft peak. Of 1, 2, 3 and 5 cells and 0.1 to 1.5 deviations the pair with the
least mean error: 0.19 cells (2 cells with 0.5: 0.22; 5 with 0.3: 0.29) where a parabola has 0.16 and the best cell's
centre 0.41. Measured with bundled:sift on 114 marks of 20 development cases (homography, nonrigid) whose best cell lies
within 1.5 cells of the truth."""

_EVEN = 1e-6  # float32 cosines of equal vectors differ by some 1e-7
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
    values = similarity.flatten(1) + torch.where(scored, 0.0, -torch.inf).flatten()  # a third of masked_fill's time
    near = _ball(radius, len(shape), device=similarity.device)
    cells, found = [], []
    for _ in range(count):
        # numpy's argmax takes a twentieth of the time of torch's max along rows.
        at = torch.from_numpy(values.numpy(force=True).argmax(axis=1)).to(values.device)
        best = values.gather(1, at[:, None])[:, 0]
        cell = unravel(at, shape)
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


def soft_argmax(
    similarity: Float[Tensor, "k *shape"],
    scored: Bool[Tensor, "*shape"],
    cells: Int64[Tensor, "k m ndim"],
    *,
    reach: int = SOFT_REACH,
    temperature: float = SOFT_TEMPERATURE,
) -> Float64[Tensor, "k m ndim"]:
    """Where peaks are, each as the mean of the cells about it, weighted by the softmax of their similarity.

    Args:
        cells: of the peaks, as `find_peaks` gives them.
        reach: cells to each side that are looked at.
        temperature: of the softmax, in standard deviations of the map, so that encoders with narrow and wide ranges of
            similarity are treated alike. Where all cells are the same, every one counts the same.

    Returns:
        (x, y[, z]) in cell coordinates, within `reach` cells of the peak's centre.

    Raises:
        ShapeError: a temperature that is not above 0, or a negative reach.
    """
    if not temperature > 0 or reach < 0:
        raise ShapeError(f"temperature {temperature} and reach {reach}; need one above 0 and one of at least 0")
    m, ndim = cells.shape[1:]
    side = torch.arange(-reach, reach + 1, device=similarity.device)
    window = (cells[:, :, None] + torch.cartesian_prod(*[side] * ndim).reshape(-1, ndim)).flatten(1, 2)
    deviation = level_and_deviation(similarity, scored)[1].clamp(min=_EVEN)
    heights = _read(similarity, window) / (temperature * deviation[:, None])
    heights = heights.masked_fill(~_among(scored, window), -torch.inf)
    weights = heights.unflatten(1, (m, -1)).softmax(dim=2)  # (k, m, cells of the window)
    centres = window.flip(2).double() + 0.5
    return torch.einsum("kmw,kmwi->kmi", weights, centres.unflatten(1, (m, -1)))


def level_and_deviation(
    similarity: Float[Tensor, "k *shape"], scored: Bool[Tensor, "*shape"]
) -> tuple[Float64[Tensor, " k"], Float64[Tensor, " k"]]:
    """Mean and standard deviation of the scored cells of each map; the others must be finite all the same."""
    maps, share = similarity.flatten(1), scored.flatten().to(similarity) / scored.sum()
    level = maps @ share  # as products with a vector a tenth of the time that picking the scored cells takes
    deviation = ((maps - level[:, None]).square() @ share).sqrt()
    return level.double(), deviation.double()


@dataclass(frozen=True)
class Shape:
    """How the mass of each peak lies about a point.

    Attributes:
        covariance: second moments (x first), in cells squared.
        entropy: of the masses of the cells, 0 all in one, 1 the same in each.
    """

    covariance: Float64[Tensor, "k ndim ndim"]
    entropy: Float64[Tensor, " k"]


def shape_about(
    similarity: Float[Tensor, "k *shape"],
    scored: Bool[Tensor, "*shape"],
    at: Float64[Tensor, "k ndim"],
    *,
    reach: int,
) -> Shape:
    """How far the mass of a peak lies from `at`, and how evenly it is spread.

    The mass of a cell is what its similarity has above half height, midway between the mean of the map and the
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
    middle, _ = level_and_deviation(similarity, scored)
    half = (values.masked_fill(~usable, -torch.inf).amax(dim=1) + middle) / 2
    mass = torch.where(usable, (values - half[:, None]).clamp(min=0), 0.0)
    flat = ~mass.any(dim=1, keepdim=True)  # every cell is as good as any other
    mass = torch.where(flat, usable.double(), mass)
    mass = mass / mass.sum(dim=1, keepdim=True)
    away = window.flip(2) + 0.5 - at[:, None]
    cell = torch.eye(len(shape), dtype=torch.float64, device=similarity.device) / 12
    second_moments = torch.einsum("kw,kwi,kwj->kij", mass, away, away) + cell
    most = usable.sum(dim=1).clamp(min=2).log()  # one cell alone has no entropy, out of as much as two may have
    return Shape(second_moments, torch.special.entr(mass).sum(dim=1) / most)


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
