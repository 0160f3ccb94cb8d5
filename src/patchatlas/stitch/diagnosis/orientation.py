"""D6: of all axis orders and signs of the positions, which makes the tiles agree; shuffled rows as a control.

Tiles that are placed with a wrong sign or with swapped axes disagree where they overlap, so the data alone tell. Axes:
n tiles, c channels, *tile, ndim of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from patchatlas.canvas.canvas import Tiles
from patchatlas.stitch.diagnosis.fault import Fault
from patchatlas.stitch.diagnosis.limits import Limits
from patchatlas.stitch.diagnosis.overlap import Overlap, overlap, overlap_residual, residual

NAMES = "xyz"


@dataclass(frozen=True)
class Orientation:
    """A way to read positions.

    Attributes:
        axes: coordinate i of what it gives is coordinate `axes[i]` of what it gets.
        signs: and is multiplied by this.
    """

    axes: tuple[int, ...]
    signs: tuple[int, ...]

    def __call__(self, positions: Float64[Tensor, "n ndim"]) -> Float64[Tensor, "n ndim"]:
        """Positions read this way."""
        return positions[:, list(self.axes)] * torch.tensor(self.signs, dtype=torch.float64)

    @property
    def name(self) -> str:
        """Such as `+x +y`, as given, or `+y -x`."""
        return " ".join(
            f"{'+' if sign > 0 else '-'}{NAMES[axis]}" for axis, sign in zip(self.axes, self.signs, strict=True)
        )

    @property
    def as_given(self) -> bool:
        """Whether it changes nothing."""
        return self.axes == tuple(range(len(self.axes))) and min(self.signs) > 0

    @property
    def swapped(self) -> bool:
        """Whether axes change places."""
        return self.axes != tuple(range(len(self.axes)))

    @property
    def words(self) -> str:
        """What is done to positions, in words."""
        flips = [NAMES[axis] for axis, sign in zip(self.axes, self.signs, strict=True) if sign < 0]
        parts = (["axes swapped"] if self.swapped else []) + (
            [f"sign of {' and '.join(flips)} flipped"] if flips else []
        )
        return " and ".join(parts) if parts else "as given"


def orientations(ndim: int) -> Iterator[Orientation]:
    """All of them, as given first: 2 on a line, 8 in a plane, 48 in a volume."""
    for axes in permutations(range(ndim)):
        for signs in product((1, -1), repeat=ndim):
            yield Orientation(axes, signs)


@dataclass(frozen=True, kw_only=True)
class OrientationCheck:
    """Residuals of a sample of the tiles; see `diagnosis.overlap` for their unit.

    Attributes:
        compared: tiles looked at.
        shared_pixels: object pixels on which at least two of them lie.
        given: residual of the positions as given.
        shuffled: the same with rows shuffled within each cluster: what unrelated tiles give here.
        by_orientation: residual by name of the orientation; only the given one where that is good enough.
        best: the orientation that fits, in words: `as given` unless another one is clearly better.
        best_name: its name.
        swapped: whether it swaps axes.
        strays: tiles that do not fit their neighbours while most do.
        worst: the most deviating tiles, at most ten, as (row, disagreement in units of the mean power).
        indistinct: whether nothing can be told: the tiles are constant, or hardly overlap.
        limits: thresholds.
    """

    compared: int
    shared_pixels: int
    given: float
    shuffled: float
    by_orientation: tuple[tuple[str, float], ...]
    best: str
    best_name: str
    best_residual: float
    swapped: bool
    strays: tuple[int, ...]
    worst: tuple[tuple[int, float], ...]
    indistinct: bool
    limits: Limits

    @property
    def fault(self) -> Fault | None:
        """What is wrong with the positions of these tiles."""
        if self.indistinct:
            return None
        numbers = f"residual {self.given:.3g} as given, {self.shuffled:.2g} with rows shuffled"
        if self.best != "as given":
            return Fault(
                "transposed" if self.swapped else "mirrored",
                f"tiles agree where they overlap only with {self.best} (residual {self.best_residual:.3g} for "
                f"{self.best_name}; {numbers})",
            )
        if self.strays:
            rows = ", ".join(str(row) for row in self.strays[:10]) + (", ..." if len(self.strays) > 10 else "")
            return Fault(
                "strays",
                f"{len(self.strays)} of {self.compared} tiles do not fit their neighbours: rows {rows} ({numbers})",
            )
        if self.given > self.limits.shuffled:
            return Fault("shuffled", f"tiles have nothing in common where they overlap, whatever the axes: {numbers}")
        if self.given > self.limits.loose:
            return Fault("loose", f"tiles agree only in part where they overlap: {numbers}")
        return None


def check_orientation(
    tiles: Tiles,
    positions: Float64[Tensor, "n ndim"],
    groups: Sequence[Int[Tensor, " _m"]],
    *,
    generator: torch.Generator,
    limits: Limits,
) -> OrientationCheck | None:
    """Compare tiles of each group where they overlap, in all orientations.

    Args:
        tiles: of the whole scan.
        positions: of the whole scan.
        groups: rows that lie together, see `clusters`.
        generator: of the shuffled control.
        limits: thresholds.

    Returns:
        The check, or `None` where no two tiles of a group overlap.
    """
    groups = [rows for rows in groups if len(rows) > 1]
    parts = [overlap(tiles[rows], positions[rows]) for rows in groups]
    shared = sum(part.shared for part in parts)
    if not shared:
        return None
    given = residual(parts)
    mixed = [(rows, rows[torch.randperm(len(rows), generator=generator)]) for rows in groups]
    shuffled = residual([overlap(tiles[other], positions[rows]) for rows, other in mixed])
    ways = list(orientations(positions.shape[1]))
    by_orientation = [(ways[0], given)]
    indistinct = not (given == given and shuffled > limits.turned_least)
    if not indistinct and given > limits.turned_least:
        by_orientation += [(way, overlap_residual(tiles, way(positions), groups)) for way in ways[1:]]
    best, least = min(by_orientation, key=lambda one: one[1])
    if not least < limits.turned * given:
        best, least = by_orientation[0]
    apart = limits.turned_least < given < limits.shuffled and best.as_given and not indistinct
    worst, strays = (
        _strays(tiles, positions, groups, parts, limits) if apart else (_by_deviation(groups, parts)[:10], ())
    )
    return OrientationCheck(
        compared=len(torch.cat(list(groups)).unique()),
        shared_pixels=shared,
        given=given,
        shuffled=shuffled,
        by_orientation=tuple((way.name, value) for way, value in by_orientation),
        best=best.words,
        best_name=best.name,
        best_residual=least,
        swapped=best.swapped,
        strays=strays,
        worst=worst,
        indistinct=indistinct,
        limits=limits,
    )


def _strays(
    tiles: Tensor, positions: Tensor, groups: Sequence[Tensor], parts: Sequence[Overlap], limits: Limits
) -> tuple[tuple[tuple[int, float], ...], tuple[int, ...]]:
    """The worst tiles, and those that must go so that the others agree.

    A stray lifts its neighbours too, so the worst is taken out alone and the others are compared anew. Where more than
    a quarter would go, or the others agree hardly better without them, there are none.
    """
    worst = _by_deviation(groups, parts)[:10]
    strays: list[int] = []
    remaining = []
    for rows, part in zip(groups, parts, strict=True):
        kept = part
        out: list[int] = []
        while len(out) <= len(rows) // 4:
            ordered = _by_deviation([rows], [kept])
            if not ordered or ordered[0][1] <= limits.stray:
                break
            out.append(ordered[0][0])
            rows = rows[rows != ordered[0][0]]
            kept = overlap(tiles[rows], positions[rows])
        else:
            return worst, ()
        remaining.append(kept)
        strays += [row for row in out if row not in strays]
    return worst, tuple(strays) if residual(remaining) < limits.turned * residual(parts) else ()


def _by_deviation(groups: Sequence[Tensor], parts: Sequence[Overlap]) -> tuple[tuple[int, float], ...]:
    """(row, disagreement) of all tiles that share pixels, worst first."""
    rows = torch.cat(list(groups))
    values = torch.cat([part.by_tile for part in parts])
    known = ~values.isnan()
    by_row = {int(row): float(value) for row, value in zip(rows[known], values[known], strict=True)}
    return tuple(sorted(by_row.items(), key=lambda one: -one[1]))
