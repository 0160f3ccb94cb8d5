"""Sums of windows on a canvas, and how many tiles lie on each pixel.

A tile that counts evenly leaves a box with softened edges, and the first differences of such a box are its taps twice:
plus where it begins, minus where it ends. So the sum over all tiles takes a few points a tile (16 in a plane with
linear interpolation) and one running sum along each axis, whatever the size of the tiles.

Axes: n tiles, ndim axes in array order, k points a tile along one axis.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from patchatlas.canvas.blocks import add_blocks, sum_blocks
from patchatlas.canvas.compiled import Edges, add_tiles, sum_even
from patchatlas.canvas.plan import CanvasPlan, covered
from patchatlas.canvas.spread import spread
from patchatlas.canvas.taps import Interpolation, Taps, find_taps, reach

# Points and pixels handled at a time, to keep the running sums in float64 small beside the canvas.
_AT_A_TIME = 1 << 17

# Running sums leave rounding noise where the sum should be 0. So they are taken only of tiles that give every pixel
# that they touch at least this part of the greatest tile weight, and what is below half of it is 0; others, which are
# few, are added one by one.
_LEAST_SHARE = 1e-6


class Even(NamedTuple):
    """Tiles whose pixels all count alike: corners (n, ndim) float64, weights (n) or None, size of a tile."""

    corners: Tensor
    weights: Tensor | None
    size: tuple[int, ...]


class WindowSum:
    """The sum of the windows of all tiles, each shifted as its tile was.

    Even windows are only remembered, and summed when asked for. Others are added to a plane at once.
    """

    def __init__(
        self, plan: CanvasPlan, interpolation: Interpolation, like: Tensor, *, compiled: bool, absolute: bool = False
    ) -> None:
        """An empty sum.

        Args:
            plan: where the canvas lies.
            interpolation: how windows are shifted.
            like: a tensor of the type and on the device that the sum shall have.
            compiled: sum even windows by compiled code.
            absolute: shift with the kernel without its signs.
        """
        self._plan = plan
        self._interpolation = interpolation
        self._compiled, self._absolute = compiled, absolute
        self._dtype, self._device = like.dtype, like.device
        self._plane: Tensor | None = None
        self._even: list[Even] = []
        self._total: Tensor | None = None

    def add_even(self, tiles: Even) -> None:
        """Tiles without a window."""
        self._even.append(tiles)
        self._total = None

    def add_windows(self, windows: Tensor, corners: Tensor) -> None:
        """Windows (n, *tile) of tiles, differentiable in both."""
        taps = find_taps(corners, self._interpolation, self._dtype)
        taps = taps.absolute() if self._absolute else taps
        start = taps.start - torch.tensor(self._plan.origin, device=corners.device)
        blocks = spread(windows[..., None], taps)
        plane = self._started()
        if blocks.requires_grad or plane.requires_grad:
            plane = plane + sum_blocks(blocks, start, self._plan.size)
        else:
            add_blocks(plane, blocks, start)
        self._plane = plane
        self._total = None

    def add_one_window(self, window: Tensor, taps: Taps, weights: Tensor | None) -> None:
        """The same window (*tile) for all tiles, times the weight (n) of each, by compiled code."""
        self._plane = self._started()
        one = window.to(self._plane)[None, ..., None]
        add_tiles(self._plane, one, taps, origin=self._plan.origin, weights=weights)
        self._total = None

    def _started(self) -> Tensor:
        if self._plane is None:
            return torch.zeros(*self._plan.size, 1, dtype=self._dtype, device=self._device)
        return self._plane

    def total(self) -> Tensor:
        """The sum (*size)."""
        if self._total is None:
            total = None if self._plane is None else self._plane[..., 0]
            for tiles in _merged(self._even):
                part = even_sum(
                    self._plan,
                    tiles,
                    self._interpolation,
                    self._dtype,
                    compiled=self._compiled,
                    absolute=self._absolute,
                )
                total = part if total is None else total + part
            self._total = self._started()[..., 0] if total is None else total
        return self._total


def even_sum(
    plan: CanvasPlan,
    tiles: Even,
    interpolation: Interpolation,
    dtype: torch.dtype,
    *,
    compiled: bool = False,
    absolute: bool = False,
) -> Tensor:
    """The sum (*size) of even windows, exact to float64 rounding before it is cast to `dtype`.

    Tiles that lie within a hair of a whole pixel, or count next to nothing beside others, are summed in `dtype`.

    Args:
        plan: where the canvas lies; tiles may reach outside.
        tiles: where they lie and how much each counts.
        interpolation: how they are shifted.
        dtype: of the result.
        compiled: by compiled code, on a CPU.
        absolute: shift with the kernel without its signs.
    """
    faint, heaviest = _faint(tiles, interpolation)
    if not bool(faint.any()):
        return _even_sum(plan, tiles, interpolation, dtype, heaviest, compiled=compiled, absolute=absolute)
    total = _even_sum(plan, _some(tiles, ~faint), interpolation, dtype, heaviest, compiled=compiled, absolute=absolute)
    if interpolation in ("cubic", "fourier"):
        # Their sums may be negative, so that noise is told by where it lies.
        touched = count_tiles(plan, [_some(tiles, ~faint)], interpolation, margin=reach(interpolation))
        total.masked_fill_(touched.to(total.device) == 0, 0)
    for rows in faint.nonzero()[:, 0].split(max(1, _AT_A_TIME // math.prod(tiles.size))):
        few = _some(tiles, rows)
        taps = find_taps(few.corners, interpolation, dtype)
        taps = taps.absolute() if absolute else taps
        ones = total.new_ones(1, *few.size, 1)
        if compiled and interpolation in ("nearest", "linear"):
            add_tiles(total[..., None], ones, taps, origin=plan.origin, weights=few.weights)
            continue
        windows = ones.expand(len(few.corners), *ones.shape[1:])
        if few.weights is not None:
            windows = windows * few.weights.to(ones).reshape(-1, *[1] * (ones.ndim - 1))
        start = taps.start - torch.tensor(plan.origin, device=few.corners.device)
        add_blocks(total[..., None], spread(windows, taps), start)
    return total


def _faint(tiles: Even, interpolation: Interpolation) -> tuple[Tensor, float]:
    """Which tiles (n) give some pixel too little of the greatest weight for running sums, and that weight."""
    share = tiles.corners.new_ones(len(tiles.corners))
    if interpolation != "nearest":
        fraction = tiles.corners - tiles.corners.floor()
        least = fraction.minimum(1 - fraction)
        share = torch.where(least > 0, least, 1).prod(dim=1)
    if tiles.weights is None:
        return share < _LEAST_SHARE, 1.0
    heaviest = float(tiles.weights.max())
    return (share * tiles.weights < _LEAST_SHARE * heaviest) & (tiles.weights > 0), heaviest


def _some(tiles: Even, which: Tensor) -> Even:
    """Those with these numbers, or where the mask holds."""
    return Even(tiles.corners[which], None if tiles.weights is None else tiles.weights[which], tiles.size)


def _even_sum(
    plan: CanvasPlan,
    tiles: Even,
    interpolation: Interpolation,
    dtype: torch.dtype,
    heaviest: float,
    *,
    compiled: bool,
    absolute: bool,
) -> Tensor:
    """`even_sum` by running sums, of tiles that are not faint."""
    corners, weights, size = tiles
    taps = find_taps(corners, interpolation, torch.float64)
    taps = taps.absolute() if absolute else taps
    shares = [corners.new_ones(len(corners), 1) if share is None else share for share in taps.weights]
    if weights is not None:
        shares[0] = shares[0] * weights[:, None].to(shares[0])
    least = 0.5 * _LEAST_SHARE * heaviest if interpolation in ("nearest", "linear") else -math.inf
    start = taps.start - torch.tensor(plan.origin, device=corners.device)
    if compiled:
        total = torch.empty(plan.size, dtype=dtype)
        rows, steps = _edges(start[:, 0], shares[0], size[0])
        sum_even(total, Edges(rows, steps, start[:, 1:], tuple(shares[1:]), size[1:]), least=least)
        return total
    edges = [_edges(begin, share, n) for begin, share, n in zip(start.unbind(1), shares, size, strict=True)]
    return _running_sums(edges, plan.size, dtype, least=least)


def sum_of_shifted(plan: CanvasPlan, tiles: Sequence[Even], dtype: torch.dtype, *, compiled: bool) -> Tensor:
    """The sum (*size) of those tiles that lie between pixels along some axis, moved linearly."""
    total = torch.zeros((), dtype=dtype, device=tiles[0].corners.device if tiles else None)
    for merged in _merged(tiles):
        corners = merged.corners
        shifted = (corners != corners.floor()).any(dim=1)
        some = _some(merged, shifted)
        if len(some.corners):
            total = total + even_sum(plan, some, "linear", dtype, compiled=compiled)
    return total.expand(plan.size)


def count_tiles(plan: CanvasPlan, tiles: Sequence[Even], interpolation: Interpolation, *, margin: int = 0) -> Tensor:
    """Number of tiles that cover each pixel, or come within `margin` of it, int32 (*size)."""
    counts = torch.zeros(plan.size, dtype=torch.int32)
    for corners, _, size in _merged(tiles):
        first, last = covered(corners.cpu(), size, interpolation)
        ends = torch.stack([first - margin, last + margin], dim=-1).long() - torch.tensor(plan.origin)[:, None]
        step = torch.tensor([1.0, -1.0], dtype=torch.float64).expand(len(ends), 2)
        edges = [(ends[:, axis], step) for axis in range(plan.ndim)]
        counts += _running_sums(edges, plan.size, torch.int32, least=0.0)
    return counts


def _merged(tiles: Sequence[Even]) -> list[Even]:
    """Tiles of one size together, with weights or without, so that each kind takes one pass over the canvas."""
    kinds: dict[tuple[tuple[int, ...], bool], list[Even]] = {}
    for some in tiles:
        kinds.setdefault((some.size, some.weights is None), []).append(some)
    merged = []
    for (size, _), group in kinds.items():
        weights = [some.weights for some in group if some.weights is not None]
        merged.append(Even(torch.cat([some.corners for some in group]), torch.cat(weights) if weights else None, size))
    return merged


def _edges(begin: Tensor, share: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Where boxes (n) with softened edges (n, t) change along one axis, and by how much."""
    at = begin[:, None] + torch.arange(share.shape[1], device=share.device)
    return torch.cat([at, at + n], dim=1), torch.cat([share, -share], dim=1)


def _running_sums(
    edges: Sequence[tuple[Tensor, Tensor]], size: Sequence[int], dtype: torch.dtype, *, least: float
) -> Tensor:
    """Sum the outer products of (index, step) along each axis at every tile, then sum up along each axis.

    Indices before the canvas count from its first pixel, those behind it never. What is not greater than `least`
    becomes 0. The canvas is made in bands of rows, the last row of one carried into the next.
    """
    device = edges[0][0].device
    rows, row_steps = edges[0]
    k = rows.shape[1]
    order = rows.flatten().clamp(min=0).argsort(stable=True)
    sorted_rows = rows.flatten().clamp(min=0)[order].contiguous()
    rest = tuple(size[1:])
    height = max(1, _AT_A_TIME // math.prod(rest))
    total = torch.empty(tuple(size), dtype=dtype, device=device)
    carry = torch.zeros(rest, dtype=torch.float64, device=device)
    chunk = max(1, _AT_A_TIME // math.prod(index.shape[1] for index, _ in edges[1:]))
    for top in range(0, size[0], height):
        bottom = min(top + height, size[0])
        # One more along every axis takes what lies behind the canvas.
        steps = torch.zeros(bottom - top, *(n + 1 for n in rest), dtype=torch.float64, device=device)
        begin, end = torch.searchsorted(sorted_rows, torch.tensor([top, bottom], device=device)).tolist()
        for first in range(begin, end, chunk):
            some = order[first : min(first + chunk, end)]
            index = sorted_rows[first : min(first + chunk, end)] - top
            step = row_steps.flatten()[some]
            tile = some // k
            index, step = index[:, None], step[:, None]
            for (along, change), n in zip(edges[1:], rest, strict=True):
                at = along[tile].clamp(0, n)
                index = (index[:, :, None] * (n + 1) + at[:, None]).flatten(1)
                step = (step[:, :, None] * change[tile][:, None]).flatten(1)
            steps.view(-1).index_add_(0, index.flatten(), step.flatten())
        for axis in range(1, len(size)):
            steps.cumsum_(dim=axis)
        inner = steps[:, *(slice(0, n) for n in rest)]
        inner[0] += carry
        inner.cumsum_(dim=0)
        carry = inner[-1].clone()
        total[top:bottom] = inner.masked_fill_(inner <= least, 0)
    return total
