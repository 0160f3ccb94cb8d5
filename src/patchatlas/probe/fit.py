"""The place of an answer as a straight line of its cell, axis by axis: slopes tell crops and mirrors, starts shifts.

Axes: m probed cells, g axes of the grid. All numbers are in cells of the grid.
"""

from dataclasses import dataclass
from itertools import permutations

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from patchatlas.probe.responses import Answers

FLATTEST = 0.1
"""A line flatter than this says that answers do not follow the cell: one token answers everything."""

SLACK = 0.15
"""Cells that an answer may lie from its line beyond the half cell (times the slope) that a peak is uncertain by."""


INNER = 0.7
"""Middle part of the tokens of an axis whose cells are counted, on axes of five or more: at the border, padding may
repeat a cell in other tokens."""

COUNTED = 0.05
"""Least part of the answered cells that must be counted, and four at least, for lines to explain anything."""


@dataclass(frozen=True)
class Fit:
    """place[a] = slope[a] * cell[axes[a]] + start[a].

    Attributes:
        axes: the axis of the cell that each axis of the tokens follows; (0, 1) unless transposed.
        slope: tokens per cell, for each axis of the tokens.
        start: place of the answer to the first cell, for each axis of the tokens.
        explained: the part of the answered cells inside the grid that lie on the lines.
    """

    axes: tuple[int, ...]
    slope: tuple[float, ...]
    start: tuple[float, ...]
    explained: float

    def shift(self, axis: int, at: int | float) -> float:
        """How far the answer lies from the cell with index `at` along an axis, in cells, where axes are not swapped."""
        return (self.slope[axis] - 1) * at + self.start[axis]

    def seen(self, axis: int, sides: int) -> tuple[float, float]:
        """What `sides` tokens see along an axis: from where to where, in cells from the edge of the first.

        The line joins indices, and index i lies at i + 0.5 from the edge.
        """
        low, high = ((edge - 0.5 - self.start[axis]) / self.slope[axis] + 0.5 for edge in (0, sides))
        return low, high


def best_fit(answers: Answers, shape: tuple[int, ...]) -> Fit:
    """The fit to `centre` that explains most cells, over all orders of the axes; the plain order wins ties."""
    fits = [fit_lines(answers, answers.centre, shape, axes) for axes in permutations(range(len(shape)))]
    return max(fits, key=lambda fit: fit.explained)


def fit_lines(answers: Answers, places: Float64[Tensor, "m g"], shape: tuple[int, ...], axes: tuple[int, ...]) -> Fit:
    """A robust line for every axis of the tokens.

    For each index along an axis the midmean of the places is taken, over the cells that share it: half a patch splits
    them into two even heaps, between which a median would jump. The slope is the median over all pairs of these (Theil
    1950; Sen, JASA 63, 1968) and the start the median rest. Cells whose peak is at the border along the axis are left
    out where enough are left, since there the balance of neighbours cannot be read.

    Args:
        places: `answers.place` or `answers.centre`.
    """
    heard = ~answers.silent
    slopes, starts = [], []
    on_line, counted = heard.clone(), heard.clone()
    for axis, source in enumerate(axes):
        cell, last = answers.cells[:, source].double(), shape[axis] - 1
        inner = heard & (answers.peak_index[:, axis] > 0) & (answers.peak_index[:, axis] < last)
        slope, start = _line(cell, places[:, axis], inner if len(cell[inner].unique()) > 1 else heard)
        expected = slope * cell + start
        on_line &= (places[:, axis] - expected).abs() <= 0.5 * max(1.0, abs(slope)) + SLACK
        if last > 3:
            counted &= (expected - last / 2).abs() <= INNER * last / 2
        if last > 0 and abs(slope) < FLATTEST:
            on_line &= False
        slopes.append(slope)
        starts.append(start)
    enough = int(counted.sum()) >= max(4, COUNTED * int(heard.sum()))
    explained = int((on_line & counted).sum()) / max(1, int(counted.sum())) if enough else 0.0
    return Fit(axes, tuple(slopes), tuple(starts), explained)


def _line(cell: Float64[Tensor, " m"], place: Float64[Tensor, " m"], used: Bool[Tensor, " m"]) -> tuple[float, float]:
    """Slope and start of a robust line; slope 1 where the cells have one index, 0 where there is no cell at all."""
    x = cell[used].unique()
    if len(x) == 0:
        return 0.0, 0.0
    y = torch.stack([_midmean(place[used & (cell == value)]) for value in x])
    if len(x) == 1:
        return 1.0, float(y[0] - x[0])
    low, high = torch.triu_indices(len(x), len(x), offset=1)
    slope = ((y[high] - y[low]) / (x[high] - x[low])).quantile(0.5)
    return float(slope), float((y - slope * x).quantile(0.5))


def _midmean(values: Float64[Tensor, " k"]) -> Float64[Tensor, ""]:
    """The mean without the lowest and the highest quarter."""
    cut = len(values) // 4
    return values.sort().values[cut : len(values) - cut].mean()
