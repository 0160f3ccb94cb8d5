"""Names what is wrong with the places of the answers: rules that fit exactly first, then straight lines.

Axes: m probed cells, g axes of the grid.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations, product

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from patchatlas.geometry.rowmajor import unravel
from patchatlas.probe.fit import Fit, best_fit, fit_lines
from patchatlas.probe.report import Verdict
from patchatlas.probe.responses import Answers

ALIGNED = 0.99
"""Least hit rate of an aligned encoder: one cell in a hundred may be lost to an artefact token of a trained network."""

EXPLAINED = 0.9
"""Least part of the cells that a rule must account for to be named."""

DRIFT = 0.05
"""Cells that an aligned encoder's lines may lie off at the middle of the grid, by the sensitive places. Half a pixel
of a 16-pixel patch gives 0.11 and more, healthy encoders 0.02 and less (docs/probe.md has the measurements)."""

GROWTH = 0.25
"""Cells by which an aligned encoder's displacement may grow from edge to edge, by the fair places. Zero padding does
that: 0.09 in a ConvNeXt with random weights and LayerScale 1. The usual crop of 224 from 256 gives 1.8 on 14 cells."""

BEYOND = 0.1
"""Cells by which what is seen may miss the edge of the input on the wrong side, in a crop or a pad."""

MOST = 0.5
"""Hit rate above which misses are called unclear rather than all of it scrambled."""

WHOLE = 0.25
"""Cells that the sub-token place may lie from a whole number in a shift by whole tokens."""


@dataclass(frozen=True)
class Finding:
    """A verdict and the numbers behind it.

    Attributes:
        verdict: see `ProbeReport`.
        agreement: part of the cells that it accounts for.
        axes: the axis of the input that each axis of the tokens follows.
        flips: axes of the tokens that run backwards.
        shift: tokens of the flat list, for `shifted`.
        cyclic: for `shifted`, whether tokens pushed out at one end come back at the other.
        fit: the lines, fairly estimated, where the verdict says that tokens follow lines.
    """

    verdict: Verdict
    agreement: float
    axes: tuple[int, ...]
    flips: tuple[int, ...] = ()
    shift: int | None = None
    cyclic: bool | None = None
    fit: Fit | None = None

    @property
    def certain(self) -> bool:
        """Whether another picture could not change it: an exact rule that holds for every cell."""
        return self.verdict in ("aligned", "shifted", "transposed", "mirrored") and self.agreement == 1


def judge(answers: Answers, shape: tuple[int, ...]) -> Finding:
    """The verdict on a grid of this shape."""
    in_order = tuple(range(len(shape)))
    hit_rate = _part((answers.peak == flat(answers.cells, shape)) & ~answers.silent)
    sensed, fit = (fit_lines(answers, places, shape, in_order) for places in (answers.place, answers.centre))
    if hit_rate >= ALIGNED and drift(sensed, shape) <= DRIFT and growth(fit, shape) <= GROWTH:
        return Finding("aligned", hit_rate, in_order, fit=fit)
    if hit_rate < ALIGNED:
        exact = [found for found in (_shift(answers, shape), _reordered(answers, shape)) if found is not None]
        if exact:
            return max(exact, key=lambda found: found.agreement)
    if fit.explained < EXPLAINED:
        fit = best_fit(answers, shape)
    if fit.explained >= EXPLAINED:
        displaced = max(drift(sensed, shape), drift(fit, shape)) > DRIFT
        verdict = _of_lines(fit, shape, displaced=displaced)
        if verdict is not None:
            flips = tuple(axis for axis, slope in enumerate(fit.slope) if slope < 0)
            return Finding(verdict, fit.explained, fit.axes, flips, fit=fit)
    return Finding("unclear" if hit_rate > MOST else "scrambled", hit_rate, in_order)


def flat(index: Int64[Tensor, "m g"], shape: tuple[int, ...]) -> Int64[Tensor, " m"]:
    """Row-major numbers of indices along each axis."""
    steps = torch.tensor([math.prod(shape[axis + 1 :]) for axis in range(len(shape))])
    return (index * steps).sum(dim=1)


def drift(fit: Fit, shape: tuple[int, ...]) -> float:
    """The largest displacement along any axis at the middle of the grid, in cells, for a fit with axes in order."""
    return max(abs(fit.shift(axis, (sides - 1) / 2)) for axis, sides in enumerate(shape))


def growth(fit: Fit, shape: tuple[int, ...]) -> float:
    """The largest change of the displacement from edge to edge, in cells."""
    return max(abs(slope - 1) * (sides - 1) for slope, sides in zip(fit.slope, shape, strict=True))


def reordering(
    cells: Int64[Tensor, "m g"], shape: tuple[int, ...], axes: tuple[int, ...], flips: tuple[int, ...]
) -> Tensor:
    """Where cells land in the flat list of a grid mirrored along `flips` and then read along `axes` in that order."""
    moved = cells.clone()
    for axis in flips:
        moved[:, axis] = shape[axis] - 1 - moved[:, axis]
    return flat(moved[:, list(axes)], tuple(shape[axis] for axis in axes))


def _shift(answers: Answers, shape: tuple[int, ...]) -> Finding | None:
    """A shift along the flat token list, which runs over the row ends, as registers read as patches give."""
    count, own = math.prod(shape), flat(answers.cells, shape)
    steps = ((answers.peak - own) % count)[~answers.silent]
    steps = steps[steps != 0]
    if len(steps) == 0:
        return None
    values, frequency = steps.unique(return_counts=True)
    step = int(values[frequency.argmax()])
    step = step if step <= count // 2 else step - count
    target = own + step
    inside = (target >= 0) & (target < count)
    right = (answers.peak == target % count) & ~answers.silent
    cyclic = bool((~inside).any()) and _part(right[~inside]) >= EXPLAINED
    agreement = _part(right) if cyclic else _part(right[inside])
    landed = unravel(target % count, shape) - answers.cells
    over_the_end = inside & (landed != landed[inside].mode(dim=0).values).any(dim=1)
    if over_the_end.any():
        runs_on = _part(right[over_the_end]) >= EXPLAINED
    else:  # whole rows: pixels moved by rows look the same, but then nothing sees the cells that are pushed out
        apart = (answers.place - answers.cells)[inside & ~answers.silent].quantile(0.5, dim=0)
        runs_on = bool(((apart - apart.round()).abs() < WHOLE).all()) and not bool(answers.silent[~inside].any())
    if agreement < EXPLAINED or not runs_on:
        return None
    return Finding("shifted", agreement, tuple(range(len(shape))), shift=step, cyclic=cyclic)


def _reordered(answers: Answers, shape: tuple[int, ...]) -> Finding | None:
    """The grid mirrored along some axes, or read along other axes first, or both."""
    found = []
    for axes, flips in _orders(len(shape)):
        agreement = _part((answers.peak == reordering(answers.cells, shape, axes, flips)) & ~answers.silent)
        verdict: Verdict = "mirrored" if axes == tuple(range(len(shape))) else "transposed"
        found.append(Finding(verdict, agreement, axes, flips))
    best = max(found, key=lambda one: one.agreement)
    return best if best.agreement >= EXPLAINED else None


def _orders(ndim: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """All orders of the axes with all sets of mirrored axes, the plain ones first and the given order left out."""
    for axes in permutations(range(ndim)):
        for mirrored in product((False, True), repeat=ndim):
            flips = tuple(axis for axis in range(ndim) if mirrored[axis])
            if flips or axes != tuple(range(ndim)):
                yield axes, flips


def _of_lines(fit: Fit, shape: tuple[int, ...], *, displaced: bool) -> Verdict | None:
    """What straight lines mean; `None` where nothing is displaced."""
    if fit.axes != tuple(range(len(shape))):
        return "transposed"
    if min(fit.slope) < 0:
        return "mirrored"
    scaled: list[Verdict] = []
    for axis, sides in enumerate(shape):
        grown = (fit.slope[axis] - 1) * (sides - 1)
        low, high = fit.seen(axis, sides)
        # A crop lies inside the input and a pad around it; what leaves it at one end and enters at the other is moved.
        if grown > GROWTH and low > -BEYOND and high < sides + BEYOND:
            scaled.append("cropped")
        elif grown < -GROWTH and low < BEYOND and high > sides - BEYOND:
            scaled.append("padded")
    if scaled:
        return "cropped" if "cropped" in scaled else "padded"
    return "offset" if displaced else None


def _part(held: Bool[Tensor, " m"]) -> float:
    return int(held.sum()) / max(1, len(held))
