"""Local crops: parts of a global crop, on its patches and with foreground of their own, or crops from anywhere.

If local crops tile a global crop, the mean ratio of the tiles is that of the global crop, so one of them has at least
as much; tiles begin on patches. Hence a global crop that meets its ratio always holds a local crop that meets a lower
one, and the fallback below never fires for it. Two cells in three do not tile; then it may fire, with a flag.

After a resize, by mm or zoom, a patch of the global crop need not be a whole number of cells; then local crops begin on
any cell.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from patchatlas.errors import InputError
from patchatlas.geometry.frame import Size
from patchatlas.pretrain.crops.config import CropConfig
from patchatlas.pretrain.crops.draw import Choice, Ground, Placed, Rule, allowed, draw_rule, draw_zoom, extent, place
from patchatlas.pretrain.crops.records import SHRUNK


def draw_locals(
    ground: Ground,
    config: CropConfig,
    spacing: Sequence[float],
    parents: Sequence[Placed],
    rng: np.random.Generator,
) -> tuple[Placed, ...]:
    """The local crops of a sample, each from the next of its global crops or from the whole volume.

    Raises:
        InputError: the volume is strict and cannot give what is asked.
    """
    scale = config.locals
    known: dict[tuple[int, Size, Rule], Choice] = {}
    placed = []
    for number in range(scale.count):
        cells, rule = extent(scale, draw_zoom(scale, rng), ground.cell, spacing), draw_rule(scale, rng)
        if scale.inside == "volume":
            placed.append(place(ground.choice(cells, rule), cells, rule, rng))
            continue
        parent = number % len(parents)
        wanted, cells = cells, tuple(min(n, whole) for n, whole in zip(cells, parents[parent].cells, strict=True))
        if cells != wanted and ground.strict:
            raise InputError(
                f"{ground.name} is to give a local crop of {wanted} cells inside a global crop of "
                f"{parents[parent].cells}. Make locals.mm or locals.zoom smaller, or set strict to false to shrink it"
            )
        if (parent, cells, rule) not in known:
            known[parent, cells, rule] = inside(ground, parents[parent], cells, rule, config)
        one = replace(place(known[parent, cells, rule], cells, rule, rng), parent=parent)
        placed.append(one if cells == wanted else replace(one, flags=(*one.flags, SHRUNK)))
    return tuple(placed)


def inside(ground: Ground, parent: Placed, cells: Size, rule: Rule, config: CropConfig) -> Choice:
    """The positions inside a global crop, on its patches, at which a local crop meets a rule; else the best of them.

    A global crop that was drawn from anywhere may hold none, in a strict volume too.

    Raises:
        InputError: the volume is strict and the global crop holds none.
    """
    part = ground.part(parent.start, parent.cells)
    if parent.rule is None:
        part = replace(part, strict=False)
    return allowed(part, cells, rule, origin=parent.start, step=patch_step(parent.cells, config))


def patch_step(cells: Size, config: CropConfig) -> Size:
    """Cells from one patch of a global crop to the next; 1 along an axis where patches are no whole number of cells."""
    return tuple(
        n * p // side if (n * p) % side == 0 else 1
        for n, p, side in zip(cells, config.patch, config.globals.size, strict=True)
    )
