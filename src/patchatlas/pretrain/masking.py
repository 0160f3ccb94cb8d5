"""Which patches are hidden from the student: blocks of neighbours, in 2-D and 3-D, as many as each crop's share asks.

Blocks as in BEiT (arXiv 2106.08254, algorithm 1), with the share spread over the crops of a step as DINOv2 does
(arXiv 2304.07193): of `rows` crops, a part `prob` has patches hidden, with shares that go evenly from the least to the
largest; where blocks stop fitting, single patches fill up, so that every count is exact. Everything follows from the
seed, the step and the number of the crop among those of all processes: it does not matter which process holds a crop.

Axes: rows of crops, n patches (row-major over the grid).
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from patchatlas.pretrain.settings import MaskConfig

TRIES = 10
"""Places that are tried for a block before single patches fill up."""

LEAST = 4
"""Patches of a block at least, where so many may be hidden."""


def masks(
    grid: tuple[int, ...], config: MaskConfig, *, rows: int, mine: Sequence[int], seed: Sequence[int]
) -> Bool[np.ndarray, "m n"]:
    """What is hidden in some of the crops of a step.

    Args:
        grid: patches along each axis of a crop.
        config: how much.
        rows: crops of the step, over all processes.
        mine: numbers of the crops that are asked for.
        seed: of the run and the step.
    """
    shares = _shares(rows, config, np.random.default_rng([*seed, 0]))
    drawn = np.zeros((len(mine), math.prod(grid)), dtype=bool)
    for into, row in zip(drawn, mine, strict=True):
        count = int(shares[row] * math.prod(grid))
        into[:] = block_mask(grid, count, np.random.default_rng([*seed, 1, row]), min_aspect=config.min_aspect).ravel()
    return drawn


def _shares(rows: int, config: MaskConfig, rng: np.random.Generator) -> np.ndarray:
    """Share of patches to hide in each crop; 0 in those that are shown whole."""
    hidden = round(rows * config.prob)
    edges = np.linspace(*config.ratio, hidden + 1)
    shares = np.zeros(rows)
    shares[:hidden] = rng.uniform(edges[:-1], edges[1:])
    rng.shuffle(shares)
    return shares


def block_mask(
    grid: tuple[int, ...], count: int, rng: np.random.Generator, *, min_aspect: float
) -> Bool[np.ndarray, "*grid"]:
    """Exactly `count` hidden patches, as blocks where they fit."""
    mask = np.zeros(grid, dtype=bool)
    left = count
    while left > 0:
        added = _add_block(mask, left, rng, min_aspect)
        if not added:
            break
        left -= added
    free = np.flatnonzero(~mask)
    mask.ravel()[rng.choice(free, size=left, replace=False)] = True
    return mask


def _add_block(mask: np.ndarray, most: int, rng: np.random.Generator, min_aspect: float) -> int:
    """Hide one more block that adds at least one patch and `most` at most; how many it added, 0 if none was found."""
    reach = -math.log(min_aspect)
    for _ in range(TRIES):
        volume = rng.uniform(min(LEAST, most), most)
        stretch = rng.uniform(-reach, reach, size=mask.ndim) / 2  # the ratio of any two sides stays within the limits
        sides = np.rint(volume ** (1 / mask.ndim) * np.exp(stretch - stretch.mean())).astype(int)
        if (sides < 1).any() or (sides > mask.shape).any():
            continue
        starts = [int(rng.integers(whole - side + 1)) for whole, side in zip(mask.shape, sides, strict=True)]
        block = mask[tuple(slice(a, a + int(n)) for a, n in zip(starts, sides, strict=True))]
        new = block.size - int(np.count_nonzero(block))
        if 0 < new <= most:
            block[...] = True
            return new
    return 0
