"""Global crops that show part of the same place: without shared content there is nothing for their tokens to agree on.

The overlap of two crops is the share of the smaller one that the other shows too. Sizes and positions are in cells, of
which every one has the same volume, so the overlap in cells is that in voxels.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache, reduce

import numpy as np
from jaxtyping import Bool

from patchatlas.errors import InputError
from patchatlas.geometry.frame import Size
from patchatlas.pretrain.crops.config import GlobalCrops
from patchatlas.pretrain.crops.draw import Choice, Ground, Placed, draw_rule, draw_zoom, extent, place
from patchatlas.pretrain.crops.records import OVERLAP_RELAXED
from patchatlas.pretrain.crops.valid import Valid, least_voxels


def draw_globals(
    ground: Ground, scale: GlobalCrops, spacing: Sequence[float], rng: np.random.Generator
) -> tuple[Placed, ...]:
    """The global crops of a sample; each after the first overlaps the first as the scale says.

    Whether a sample is held to the foreground ratio is one draw for all its global crops: a pair of which one lies in
    air and the other does not could seldom overlap.

    Raises:
        InputError: the volume is strict and cannot give what is asked.
    """
    held = scale.foreground_crop_prob == 1 or rng.random() < scale.foreground_crop_prob
    rule = draw_rule(scale, rng) if held else None
    placed: list[Placed] = []
    for _ in range(scale.count):
        cells = extent(scale, draw_zoom(scale, rng), ground.cell, spacing)
        choice = ground.choice(cells, rule)
        if placed:
            choice = overlapping(ground, choice, placed[0], cells, least=scale.min_overlap, most=scale.max_overlap)
        placed.append(place(choice, cells, rule, rng))
    return tuple(placed)


def overlapping(ground: Ground, choice: Choice, first: Placed, cells: Size, *, least: float, most: float) -> Choice:
    """Those positions of a choice whose overlap with the first crop lies in the range; all, flagged, if there are none.

    Args:
        ground: the volume.
        choice: what the second crop may be drawn from.
        first: the first crop.
        cells: size of the second crop.
        least: least overlap.
        most: largest overlap.

    Raises:
        InputError: the volume is strict and there are none.
    """
    if least == 0 and most == 1:
        return choice
    origin, window = around(first, cells, choice.mask.shape, least=least, most=most)
    mask = choice.mask[tuple(slice(at, at + n) for at, n in zip(origin, window.shape, strict=True))] & window
    if mask.any():
        return Choice(mask, Valid.of(mask, origin=origin), choice.flags)
    if ground.strict:
        raise InputError(
            f"{ground.name} has no second crop of {cells} cells that meets {first.rule} and overlaps the first, at "
            f"{first.start}, by {least} to {most}. Ask for less, or set strict to false to let them lie apart"
        )
    return replace(choice, flags=(*choice.flags, OVERLAP_RELAXED))


def around(
    first: Placed, cells: Size, positions: Size, *, least: float, most: float
) -> tuple[Size, Bool[np.ndarray, "*window"]]:
    """The window of positions near a crop, its first cell, and which of its positions overlap the crop as asked."""
    before, window = _apart(tuple(first.cells), tuple(cells), least, most)
    origin, inside, held = [], [], []
    for at, n, whole, count in zip(first.start, before, window.shape, positions, strict=True):
        low, high = max(0, at - n), min(count, at - n + whole)
        origin.append(low)
        inside.append(slice(low - (at - n), max(low, high) - (at - n)))
        held.append(slice(low, max(low, high)))
    if least > 0:
        return tuple(origin), window[tuple(inside)]
    everywhere = np.ones(positions, dtype=bool)  # crops that share nothing are allowed, too
    everywhere[tuple(held)] = window[tuple(inside)]
    return (0,) * len(positions), everywhere


@lru_cache(maxsize=256)
def _apart(first: Size, second: Size, least: float, most: float) -> tuple[Size, Bool[np.ndarray, "*window"]]:
    """Which distances of a second crop from a first one give the overlap that is asked, wherever the first one lies.

    Args:
        first: cells of the first crop.
        second: of the second.
        least: least overlap.
        most: largest overlap.

    Returns:
        Cells by which the window begins before the first crop, and the window; it is not to be written to.
    """
    smaller = min(math.prod(first), math.prod(second))
    bottom, top = least_voxels(least, smaller), math.floor(Fraction(str(most)) * smaller)
    before, shared = [], []
    for n, m in zip(first, second, strict=True):
        away = np.arange(-m, n + 1)
        along = np.maximum(np.minimum(n, away + m) - np.maximum(0, away), 0)
        # The other axes can share no more than all, so each must share the least by itself.
        near = np.flatnonzero(along >= least_voxels(least, min(n, m)))
        before.append(-int(away[near[0]]))
        shared.append(along[near[0] : near[-1] + 1])
    volume = reduce(np.multiply.outer, shared)
    return tuple(before), (volume >= bottom) & (volume <= top)
