"""What placing means, twice and slowly, in NumPy float64: as the four taps of a formula, and as one explicit matrix.

Neither shares code or layout with the package: kernels are functions of distance here, and lists of weights there.
"""

import itertools

import numpy as np
import torch

from patchatlas.canvas.plan import CanvasPlan


def four_taps(tiles: np.ndarray, positions: np.ndarray, plan: CanvasPlan) -> tuple[np.ndarray, np.ndarray]:
    """Sum and weight of plane tiles (n, h, w) at (x, y), linear: the formula of reassembling by bilinear shifts.

    With q = position - origin, i = floor(q), f = q - i, add (1 - fy)(1 - fx), (1 - fy) fx, fy (1 - fx) and fy fx of the
    tile at i, i + (0, 1), i + (1, 0) and i + (1, 1).
    """
    total = np.zeros([n + 2 for n in plan.size], dtype=np.result_type(tiles.dtype, np.float64))
    weight = np.zeros(total.shape)
    for tile, (x, y) in zip(tiles, positions, strict=True):
        qy, qx = y - plan.origin[0], x - plan.origin[1]
        iy, ix = int(np.floor(qy)), int(np.floor(qx))
        fy, fx = qy - iy, qx - ix
        for dy, dx in itertools.product((0, 1), (0, 1)):
            share = (fy if dy else 1 - fy) * (fx if dx else 1 - fx)
            there = np.s_[iy + dy : iy + dy + tile.shape[0], ix + dx : ix + dx + tile.shape[1]]
            total[there] += share * tile
            weight[there] += share
    assert not total[plan.size[0] + 1 :].any()
    return total[: plan.size[0], : plan.size[1]], weight[: plan.size[0], : plan.size[1]]


def kernel(distance: np.ndarray, interpolation: str) -> np.ndarray:
    """How much a pixel gets of a tile pixel that lies `distance` before it."""
    d = np.abs(distance)
    if interpolation == "nearest":
        return ((distance > -0.5) & (distance <= 0.5)).astype(np.float64)
    if interpolation == "linear":
        return np.clip(1 - d, 0, None)
    if interpolation == "cubic":  # Keys 1981, eq. 4 with a = -1/2
        a = -0.5
        inner = (a + 2) * d**3 - (a + 3) * d**2 + 1
        outer = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
        return np.where(d <= 1, inner, np.where(d < 2, outer, 0))
    taper = np.i0(15 * np.sqrt(np.clip(1 - (d / 16) ** 2, 0, None))) / np.i0(15)
    return np.where(d < 16, np.sinc(d) * taper, 0)


def axis_matrix(position: float, n: int, origin: int, size: int, interpolation: str) -> np.ndarray:
    """(size, n): what each canvas pixel gets of each tile pixel, along one axis."""
    pixels = origin + np.arange(size)
    matrix = kernel(pixels[:, None] - position - np.arange(n), interpolation)
    if interpolation == "fourier":
        matrix /= kernel(np.arange(-20, 21) - (position - np.floor(position)), interpolation).sum()
    return matrix


def matrix(positions: np.ndarray, tile_size: tuple[int, ...], plan: CanvasPlan, interpolation: str) -> torch.Tensor:
    """The placing of all tiles as a sparse float64 matrix (canvas pixels, tiles x tile pixels)."""
    columns = []
    for position in positions:
        block = np.ones((1, 1))
        for p, n, origin, size in zip(position[::-1], tile_size, plan.origin, plan.size, strict=True):
            block = np.kron(block, axis_matrix(p, n, origin, size, interpolation))
        columns.append(torch.from_numpy(block).to_sparse())
    return torch.cat(columns, dim=1)


def place_by_matrix(tiles: torch.Tensor, positions: torch.Tensor, plan: CanvasPlan, interpolation: str) -> torch.Tensor:
    """Sum (c, *size) of tiles (n, c, *tile)."""
    placing = matrix(positions.double().numpy(), tuple(tiles.shape[2:]), plan, interpolation)
    flat = tiles.movedim(1, 0).flatten(1).T
    double = flat.to(torch.complex128 if flat.is_complex() else torch.float64)
    return _times(placing, double).T.reshape(-1, *plan.size)


def extract_by_matrix(
    values: torch.Tensor, positions: torch.Tensor, tile_size: tuple[int, ...], plan: CanvasPlan, interpolation: str
) -> torch.Tensor:
    """Tiles (n, c, *tile) of values (c, *size)."""
    placing = matrix(positions.double().numpy(), tile_size, plan, interpolation)
    flat = _times(placing.t(), values.flatten(1).T)
    return flat.reshape(len(positions), *tile_size, -1).movedim(-1, 1)


def _times(placing: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    if columns.is_complex():
        return torch.complex(placing @ columns.real, placing @ columns.imag)
    return placing @ columns
