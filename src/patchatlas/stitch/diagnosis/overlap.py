"""D5: how much tiles disagree where they overlap, in units in which tiles that have nothing in common give 1.

At an object pixel that m >= 2 tiles cover, with values p, the disagreement is the unbiased variance
m / (m - 1) * (E|p|^2 - |E p|^2); the residual is its sum over all such pixels, divided by the sum of E|p|^2. One mean,
the same for all tiles, is taken off before, so that a bright object does not hide disagreement and perfect agreement
stays 0. (Without m / (m - 1) unrelated tiles would give 0.5 under two-fold and 0.98 under fifty-fold overlap.)

Tiles are read at whole object pixels before they are compared, by cubic convolution, and pixels for which a tap lies
outside the tile are left out: a rough object at fractional positions then disagrees only as much as cubic reading errs.

Axes: n tiles, c channels, *tile, ndim of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from patchatlas.canvas.blocks import add_blocks, read_blocks
from patchatlas.canvas.canvas import Tiles
from patchatlas.canvas.spread import spread
from patchatlas.canvas.taps import Interpolation, find_taps

LEAST_SIDE = 8
"""Tiles thinner than this are read linearly: cubic reading costs three pixels along each axis."""


@dataclass(frozen=True, eq=False)
class Overlap:
    """Disagreement of some tiles.

    Attributes:
        disagreement: sum over shared pixels of the unbiased variance.
        power: sum over shared pixels of E|p|^2, the common mean taken off.
        shared: object pixels that two tiles or more cover.
        by_tile: the disagreement of each tile with all that cover the same pixels, as a mean over its shared pixels
            divided by the mean power of the cluster; NaN for a tile without shared pixels.
    """

    disagreement: float
    power: float
    shared: int
    by_tile: Float64[Tensor, " n"]


def overlap_residual(
    tiles: Tiles, positions: Float64[Tensor, "n ndim"], groups: Sequence[Int[Tensor, " _m"]] | None = None
) -> float:
    """The residual of all tiles, or of groups of them that are compared within each group only.

    0: tiles agree; about 1: they have nothing in common. NaN where no pixel is shared, or all tiles are one constant.
    """
    groups = (torch.arange(len(tiles)),) if groups is None else groups
    return residual([overlap(tiles[rows], positions[rows]) for rows in groups])


def residual(parts: Sequence[Overlap]) -> float:
    """The residual of several groups of tiles together."""
    power = sum(part.power for part in parts)
    return sum(part.disagreement for part in parts) / power if power > 0 else math.nan


def overlap(tiles: Tiles, positions: Float64[Tensor, "n ndim"]) -> Overlap:
    """Compare tiles where they overlap."""
    values, start = _at_whole_pixels(tiles, positions)
    values = values - values.mean(dim=tuple(range(values.ndim - 1)))
    power = values.square().sum(dim=-1, keepdim=True)
    count = torch.ones_like(power)
    size = torch.tensor(values.shape[1:-1])
    start = start - start.amin(dim=0)
    canvas = values.new_zeros(*(start.amax(dim=0) + size).tolist(), values.shape[-1] + 2)
    add_blocks(canvas, torch.cat([values, power, count], dim=-1), start)

    total, powers, covers = canvas[..., :-2], canvas[..., -2], canvas[..., -1]
    shared = covers > 1.5
    some = covers.clamp(min=1)
    mean_power = powers / some
    variance = ((mean_power - (total / some[..., None]).square().sum(dim=-1)) * some / (some - 1).clamp(min=1)).clamp(
        min=0
    )
    shared_power = float(mean_power[shared].sum(dtype=torch.float64))
    level = shared_power / max(1, int(shared.sum()))
    # Rounding leaves a constant object with some power; that is nothing to compare.
    if level <= 1e-10 * _mean_square(tiles):
        shared_power, level = 0.0, 0.0
    return Overlap(
        disagreement=float(variance[shared].sum(dtype=torch.float64)),
        power=shared_power,
        shared=int(shared.sum()),
        by_tile=_by_tile(values, total, covers, start, level),
    )


def _by_tile(values: Tensor, total: Tensor, covers: Tensor, start: Tensor, level: float) -> Tensor:
    held = read_blocks(torch.cat([total, covers[..., None]], dim=-1), tuple(values.shape[1:-1]), start)
    many = held[..., -1]
    shared = many > 1.5
    some = many.clamp(min=2)
    off = (values - held[..., :-1] / some[..., None]).square().sum(dim=-1) * some / (some - 1)
    axes = tuple(range(1, off.ndim))
    mean = torch.where(shared, off, 0).double().sum(dim=axes) / shared.sum(dim=axes)
    return mean / level if level > 0 else mean * math.nan


def _at_whole_pixels(tiles: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Values (n, *inner, numbers) at whole object pixels that all taps reach; where they lie, up to a common shift."""
    last = tiles.movedim(1, -1)
    numbers = torch.view_as_real(last.resolve_conj()).flatten(-2) if tiles.is_complex() else last
    numbers = numbers.double() if numbers.dtype == torch.float64 else numbers.float()
    kind: Interpolation = "cubic" if min(tiles.shape[2:]) >= LEAST_SIDE else "linear"
    taps = find_taps(positions.double().flip(1), kind, numbers.dtype)
    blocks = spread(numbers, taps)
    for axis, count in enumerate(taps.counts):
        blocks = blocks.narrow(axis + 1, count - 1, tiles.shape[axis + 2] - count + 1)
    return blocks, taps.start


def _mean_square(tiles: Tensor) -> float:
    return float(tiles.abs().square().mean(dtype=torch.float64))
