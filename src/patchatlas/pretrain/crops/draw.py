"""Where the crops of one sample lie: all decisions, from tables of cells and a generator alone, before a voxel is read.

Sizes and positions are in cells, in array order. Fallbacks, in this order, each with a flag: give up the overlap of a
pair, give up demands, take the positions with most foreground, pad a volume that is smaller than the crop.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Bool

from patchatlas.errors import InputError
from patchatlas.geometry.frame import Size
from patchatlas.geometry.rounding import round_half_up
from patchatlas.pretrain.crops.config import Demand, Foreground, GlobalCrops, LocalCrops
from patchatlas.pretrain.crops.records import ANYWHERE, BELOW_MIN, DEMAND_RELAXED
from patchatlas.pretrain.crops.table import SummedTable
from patchatlas.pretrain.crops.valid import Valid, meets, stepped

_KEPT_CHOICES = 64
"""Lists of positions that a volume keeps; zooms and demands make several."""


@dataclass(frozen=True)
class Rule:
    """What is asked of a crop.

    Attributes:
        foreground: what counts.
        min_ratio: least share of it.
        demands: further thresholds in HU, each with its least ratio.
    """

    foreground: Foreground
    min_ratio: float
    demands: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, eq=False)
class Choice:
    """Positions that a crop may be drawn from.

    Attributes:
        mask: whether each may be.
        valid: those that may.
        flags: what of the rule they do not meet.
    """

    mask: Bool[np.ndarray, "*positions"]
    valid: Valid
    flags: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Ground:
    """A volume as the drawing of crops sees it.

    Attributes:
        name: of the volume, for messages.
        tables: its foreground, by what counts as such; all of one cell and size.
        strict: refuse what cannot be had.
    """

    name: str
    tables: Mapping[Foreground, SummedTable]
    strict: bool = False
    _choices: dict[tuple[Size, Rule | None], Choice] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def cell(self) -> Size:
        """Voxels in a cell along each axis."""
        return next(iter(self.tables.values())).cell

    def choice(self, cells: Size, rule: Rule | None) -> Choice:
        """As `allowed`; made once for each crop size and rule. Without a rule all positions are allowed.

        Raises:
            InputError: as `allowed`.
        """
        known = self._choices.get((cells, rule))
        if known is None:
            if len(self._choices) >= _KEPT_CHOICES:
                self._choices.pop(next(iter(self._choices)))
            if rule is None:
                everywhere = np.ones(next(iter(self.tables.values())).positions(cells), dtype=bool)
                known = Choice(everywhere, Valid.of(everywhere), (ANYWHERE,))
            else:
                known = allowed(self, cells, rule)
            self._choices[cells, rule] = known
        return known

    def part(self, start: Sequence[int], cells: Sequence[int]) -> "Ground":
        """One box of the volume, whose positions count from its own first cell."""
        return Ground(self.name, {key: table.part(start, cells) for key, table in self.tables.items()}, self.strict)


@dataclass(frozen=True)
class Placed:
    """A crop that has its place.

    Attributes:
        start: its first cell along each axis.
        cells: its size.
        rule: what it was asked to be; `None` if it was drawn from anywhere.
        n_valid: positions that it was drawn from.
        flags: what it does not meet.
        parent: number of the global crop that it is a part of; -1 for none.
    """

    start: Size
    cells: Size
    rule: Rule | None
    n_valid: int
    flags: tuple[str, ...]
    parent: int = -1


def allowed(ground: Ground, cells: Size, rule: Rule, *, origin: Sequence[int] = (), step: Sequence[int] = ()) -> Choice:
    """The positions at which a crop meets a rule, else those that come nearest, with flags.

    Args:
        ground: the volume or a part of it.
        cells: size of the crop.
        rule: what is asked.
        origin: what positions count from; the first cell if not given.
        step: look at every so many cells along each axis; at all if not given.

    Raises:
        InputError: the volume is strict and has no such position.
    """
    table = ground.tables[rule.foreground]
    enough = meets(table, cells, rule.min_ratio, step=step)
    mask, flags = enough, tuple[str, ...]()
    for threshold, ratio in rule.demands:
        mask = mask & meets(ground.tables[threshold], cells, ratio, step=step)
    if not mask.any() and rule.demands:
        mask, flags = enough, (DEMAND_RELAXED,)
    if not mask.any():
        boxes = stepped(table.boxes(cells), step)
        mask, flags = boxes == boxes.max(), (*flags, BELOW_MIN)
    if flags and ground.strict:
        voxels = tuple(n * c for n, c in zip(cells, ground.cell, strict=True))
        best = int(table.boxes(cells).max()) / table.voxels(cells)
        raise InputError(
            f"{ground.name} has no crop of {voxels} voxels that meets {rule}; its best has {best:.3f} of foreground "
            f"{rule.foreground!r}. Ask for less, leave the volume out, or set strict to false to take the best"
        )
    return Choice(mask, Valid.of(mask, origin=origin, step=step), flags)


def extent(scale: GlobalCrops | LocalCrops, zoom: float, cell: Sequence[int], spacing: Sequence[float]) -> Size:
    """The cells that a crop shows along each axis, at least one.

    Args:
        scale: gives the size in voxels or millimetres.
        zoom: how many times that size.
        cell: voxels in a cell.
        spacing: millimetres a voxel.
    """
    return _extent(scale.size, scale.mm, zoom, tuple(cell), tuple(spacing))


@lru_cache(maxsize=1024)
def _extent(size: Size, mm: tuple[float, ...] | None, zoom: float, cell: Size, spacing: tuple[float, ...]) -> Size:
    times, parts = zoom.as_integer_ratio()
    exact = _unzoomed(size, mm, cell, spacing)
    return tuple(max(1, round_half_up(Fraction(n.numerator * times, n.denominator * parts))) for n in exact)


@lru_cache(maxsize=256)
def _unzoomed(size: Size, mm: tuple[float, ...] | None, cell: Size, spacing: tuple[float, ...]) -> tuple[Fraction, ...]:
    """The cells, and parts of cells, of a crop that is not zoomed."""
    if mm is None:
        voxels = [Fraction(side) for side in size]
    else:
        voxels = [Fraction(str(one)) / Fraction(str(apart)) for one, apart in zip(mm, spacing, strict=True)]
    return tuple(n / c for n, c in zip(voxels, cell, strict=True))


def draw_zoom(scale: GlobalCrops | LocalCrops, rng: np.random.Generator) -> float:
    """A zoom of the scale's range, spread evenly over its logarithm."""
    low, high = scale.zoom
    return low if low == high else math.exp(rng.uniform(math.log(low), math.log(high)))


def draw_rule(scale: GlobalCrops | LocalCrops, rng: np.random.Generator) -> Rule:
    """The scale's ratio and those of its demands that this crop is asked to meet."""
    return Rule(scale.foreground, scale.min_foreground_ratio, asked(scale.demands, rng))


def asked(demands: Sequence[Demand], rng: np.random.Generator) -> tuple[tuple[float, float], ...]:
    """The demands whose chance comes up; those that are certain take no random number."""
    return tuple(
        (demand.threshold, demand.min_ratio) for demand in demands if demand.prob == 1 or rng.random() < demand.prob
    )


def place(choice: Choice, cells: Size, rule: Rule | None, rng: np.random.Generator) -> Placed:
    """A crop at one of the positions, each with the same chance."""
    return Placed(choice.valid.draw(rng), cells, rule, len(choice.valid), choice.flags)
