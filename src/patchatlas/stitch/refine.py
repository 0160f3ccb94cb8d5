"""Refine positions by overlap: each tile is moved to where it fits best into what all tiles make together.

For a small shift d, tile = canvas + d . gradient of the canvas (Lucas and Kanade, IJCAI 1981; for complex values the
real part of the inner products). All tiles take one least-squares step, the canvas is made anew, and so on. What a
tile adds to the canvas itself only makes its steps shorter. What cannot be seen is not moved: a common shift of all
tiles, and single tiles along lines or where they are empty.

Axes: n tiles, c channels, h w pixels of a tile. Positions are (x, y) of tile corners, object pixels.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from patchatlas.canvas.canvas import Canvas, Tiles
from patchatlas.canvas.place import extract, place
from patchatlas.canvas.plan import plan_canvas
from patchatlas.canvas.taps import Interpolation
from patchatlas.errors import InputError, UsageError
from patchatlas.stitch.diagnosis.overlap import overlap_residual

STEP_PX = 1.0
"""Longest step of a tile in one round along an axis: beyond about a pixel the linear model says nothing."""

SETTLED_PX = 2e-3
"""Rounds end when the root mean square step is shorter than this."""

# A tile is moved along a direction in which its squared slopes are at least this part of those in its steepest one, and
# this part of the median tile's. White noise of 0.3 of the contrast, eight tiles deep, gives 0.03 and 0.03.
_OWN_SLOPE = 0.03
_COMMON_SLOPE = 0.01


@dataclass(frozen=True, eq=False)
class Refinement:
    """Refined positions: those of the last round, or the given ones where that did not lower the residual.

    The round with the least residual is not taken: where tiles are noisy, reading them between pixels smooths the
    noise, and tiles half a pixel off then agree best.

    Attributes:
        positions: refined corners, (x, y).
        shifts: how far each tile was moved from where it was given.
        residuals: before the first round and after each, see `patchatlas.stitch.diagnosis.overlap`.
        chosen: the round that the positions are from, 0 for the given ones.
        held: tiles that wanted to go farther than the limit, and were left where they had been given.
    """

    positions: Float64[Tensor, "n 2"]
    shifts: Float64[Tensor, "n 2"]
    residuals: tuple[float, ...]
    chosen: int
    held: tuple[int, ...]

    @property
    def before(self) -> float:
        """Residual at the given positions."""
        return self.residuals[0]

    @property
    def after(self) -> float:
        """Residual at the refined positions."""
        return self.residuals[self.chosen]


def refine(
    tiles: Tiles,
    positions: Float64[Tensor, "n 2"],
    *,
    rounds: int = 30,
    limit: float = 4.0,
    interpolation: Interpolation = "cubic",
    window: Float[Tensor, "h w"] | None = None,
    on_round: Callable[[int, float], None] | None = None,
) -> Refinement:
    """Move tiles so that they agree where they overlap.

    Args:
        tiles: real or complex.
        positions: of their corners, off by a few pixels at most.
        rounds: at most so many.
        limit: pixels; a tile that would have to go farther along an axis is left where it was given.
        interpolation: how tiles are placed and read.
        window: weight of each pixel of a tile.
        on_round: called after each round with its number, from 1, and the residual.

    Raises:
        UsageError: rounds or limit that are not positive.
        InputError: no two tiles overlap, or all are even.
    """
    if rounds < 1 or not limit > 0:
        raise UsageError(f"rounds {rounds} and limit {limit} must be positive")
    given = at = positions
    size = (tiles.shape[2], tiles.shape[3])
    held = torch.zeros(len(positions), dtype=torch.bool)
    residuals: list[float] = []
    settled = False
    for number in itertools.count():
        plan = plan_canvas(at, size, interpolation=interpolation, margin=1)
        canvas = place(tiles, at, interpolation=interpolation, window=window, plan=plan)
        residuals.append(overlap_residual(tiles, at))
        if math.isnan(residuals[-1]):
            raise InputError("no two tiles overlap, or all are even, so nothing tells where they belong")
        if number and on_round is not None:
            on_round(number, residuals[-1])
        if settled or number >= rounds:
            break
        moved = at + _step(tiles, at, canvas, window).clamp(-STEP_PX, STEP_PX) - given
        held |= (moved.abs() > limit).any(dim=1)
        moved[held] = 0
        if not bool(held.all()):
            moved[~held] -= moved[~held].mean(dim=0)
        taken, at = given + moved - at, given + moved
        settled = float(taken.square().mean().sqrt()) < SETTLED_PX
    chosen = number if residuals[-1] < residuals[0] else 0
    at = at if chosen else given
    rows = tuple(int(row) for row in held.nonzero()[:, 0])
    return Refinement(positions=at, shifts=at - given, residuals=tuple(residuals), chosen=chosen, held=rows)


def _step(tiles: Tensor, at: Tensor, canvas: Canvas, window: Tensor | None) -> Float64[Tensor, "n 2"]:
    """The least-squares shift (x, y) of each tile against the canvas of all, nothing along directions without slope."""
    size = (tiles.shape[2], tiles.shape[3])
    values, covered = canvas.value(), canvas.covered[None]
    slopes = []
    for axis in (2, 1):  # x, then y
        inside = covered & covered.roll(-1, axis) & covered.roll(1, axis)
        slopes.append(torch.where(inside, (values.roll(-1, axis) - values.roll(1, axis)) / 2, 0))
    back, dx, dy = (
        extract(what, at, size, plan=canvas.plan, interpolation=canvas.interpolation) for what in (values, *slopes)
    )
    weight = torch.ones(size) if window is None else window
    rest = tiles - back

    def product(a: Tensor, b: Tensor) -> Tensor:
        both = (a.conj() * b).real if a.is_complex() else a * b
        return (weight * both).sum(dim=(1, 2, 3), dtype=torch.float64)

    mixed = product(dx, dy)
    tensors = torch.stack([product(dx, dx), mixed, mixed, product(dy, dy)], dim=1).reshape(-1, 2, 2)
    sides = torch.stack([product(dx, rest), product(dy, rest)], dim=1)
    slopes_squared, directions = torch.linalg.eigh(tensors)  # (n, 2) ascending; (n, 2, 2), a direction a column
    steepest = slopes_squared[:, 1:]
    firm = (slopes_squared > _OWN_SLOPE * steepest) & (slopes_squared > _COMMON_SLOPE * steepest.median())
    inverse = torch.where(firm, 1 / torch.where(firm, slopes_squared, 1), 0)
    step: Tensor = (directions @ (inverse[..., None] * (directions.mT @ sides[..., None])))[..., 0]
    return step
