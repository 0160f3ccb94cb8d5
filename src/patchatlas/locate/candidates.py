"""The places that each landmark may be given, scored by likeness and by prediction, and shared out one to one.

Axes: k landmarks, v views or predictions of one, m candidate places of one, n patches of the target. Points are (x, y)
in target pixels. Scores are log-odds, see `matching.belief`.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from patchatlas.geometry.grid import PatchGrid
from patchatlas.locate.result import Finding
from patchatlas.locate.search import in_picture, patch_side
from patchatlas.matching.assignment import NOWHERE, assign, merge_places
from patchatlas.matching.belief import (
    PER_DEVIATION,
    in_deviations,
    local_maxima,
    prediction_density,
    prediction_density_on_grid,
    views_together,
)
from patchatlas.matching.peaks import find_peaks, refine

COUNT = 8
"""Places of each landmark that take part in sharing out."""

SAME_PLACE = 0.5
"""Patches between places that cannot both be taken. Two marks one patch apart are kept apart where each has a peak of
its own; peaks of one blob on two maps, which differ by less than half a patch, are one place."""

PRESENT = 3.0
"""Nats by which a place must be likelier to be the landmark than all patches of the target are on average times their
number, to be taken at all."""

_AT_ONCE = 1 << 20  # as in locate.search


@dataclass(frozen=True, eq=False)
class Looks:
    """How like each landmark each patch of the target is.

    Attributes:
        likeness: by all views together, in standard deviations of the map.
        tops: patches that are no less like it than any beside them.
        scored: patches that may be an answer.
        grid: of the target.
    """

    likeness: Float[Tensor, "k n"]
    tops: Bool[Tensor, "k n"]
    scored: Bool[Tensor, "rows cols"]
    grid: PatchGrid

    @property
    def nowhere(self) -> float:
        """Score of having no place in the target."""
        return PRESENT + math.log(int(self.scored.sum()))

    def density(
        self, predicted: Float64[Tensor, "k v 2"], deviation: Float64[Tensor, "k v"]
    ) -> Float[Tensor, "k rows cols"]:
        """What predictions say of every patch, see `prediction_density`.

        A patch stands for all places in it, so the deviation is put together with that of a place from its middle.
        """
        rows, columns = (torch.arange(n, dtype=torch.float64) + 0.5 for n in self.grid.shape)
        side = patch_side(self.grid)
        cells = self.grid.cells_of(predicted.flatten(0, 1)).reshape(predicted.shape)
        wide = ((deviation / side).square() + 1 / 12).sqrt()
        return prediction_density_on_grid(columns, rows, cells, wide, area=self.area / side**2)

    @property
    def area(self) -> float:
        """Of the target, in square pixels."""
        return float(math.prod(self.grid.frame.source_size))

    def chunks(self, count: int) -> Iterator[slice]:
        """So many rows, as many as are worked on at a time."""
        step = max(1, _AT_ONCE // self.grid.count)
        return (slice(first, first + step) for first in range(0, count, step))


@dataclass(frozen=True, eq=False)
class Candidates:
    """Places of each landmark, best first.

    Attributes:
        places: where, in target pixels, finer than a patch.
        scores: minus infinity where there is none.
    """

    places: Float64[Tensor, "k m 2"]
    scores: Float64[Tensor, "k m"]

    def shares(self, *, nowhere: float) -> Float64[Tensor, "k m"]:
        """Probability of each place among all of its landmark and none of them."""
        none = torch.full_like(self.scores[:, :1], nowhere)
        return torch.softmax(torch.cat([self.scores, none], dim=1), dim=1)[:, :-1]


def look(views_of_each: Sequence[Sequence[Finding]]) -> Looks:
    """What the findings of each landmark's views say of each patch, together."""
    first = views_of_each[0][0]
    scored = first.scored.flatten()
    likeness = torch.empty(len(views_of_each), first.grid.count)
    for k, views in enumerate(views_of_each):
        maps = torch.stack([finding.similarity_map.flatten() for finding in views])
        likeness[k] = views_together(in_deviations(maps, scored), scored)
    tops = local_maxima(likeness.reshape(-1, *first.grid.shape), first.scored).flatten(1)
    return Looks(likeness, tops, first.scored, first.grid)


def find_candidates(looks: Looks, predicted: Float64[Tensor, "k v 2"], deviation: Float64[Tensor, "k v"]) -> Candidates:
    """The best peaks of each landmark's map of scores: what its likeness is worth, and what is predicted.

    Args:
        looks: of the landmarks.
        predicted: where they should be, in target pixels; NaN for none.
        deviation: of the place about the prediction along each axis, in target pixels; NaN for none.
    """
    places, scores = [], []
    for rows in looks.chunks(len(looks.likeness)):
        likeness = looks.likeness[rows].reshape(-1, *looks.grid.shape)
        total = PER_DEVIATION * likeness + looks.density(predicted[rows], deviation[rows]).log()
        tops = total.masked_fill(~local_maxima(total, looks.scored), -torch.inf)
        peaks = find_peaks(tops, looks.scored, radius=math.sqrt(2), count=COUNT)
        at = in_picture(looks.grid, _within(likeness, looks.tops[rows], total, looks.scored, peaks.cells))
        flat = peaks.cells[..., 0] * looks.grid.shape[1] + peaks.cells[..., 1]
        score = PER_DEVIATION * looks.likeness[rows].gather(1, flat)
        score += prediction_density(at, predicted[rows], deviation[rows], area=looks.area).log()
        score, order = score.masked_fill(~peaks.present, -torch.inf).double().sort(dim=1, descending=True, stable=True)
        places.append(at.gather(1, order[..., None].expand_as(at)))
        scores.append(score)
    return Candidates(torch.cat(places), torch.cat(scores))


def share_out(candidates: Candidates, looks: Looks, *, taken: Float64[Tensor, "p 2"]) -> Int64[Tensor, " k"]:
    """Which of its candidates each landmark gets, so that no two get the same place; `NOWHERE` for none.

    Args:
        candidates: of all landmarks.
        looks: of the same.
        taken: places that are taken already.
    """
    k, m = candidates.scores.shape
    places, scores = candidates.places.flatten(0, 1), candidates.scores.flatten()
    radius = SAME_PLACE * patch_side(looks.grid)
    stands_for = merge_places(places, scores, radius=radius)
    if len(taken):
        scores = torch.where(torch.cdist(places, taken).amin(dim=1) <= radius, -torch.inf, scores)
    columns, column = stands_for.unique(return_inverse=True)
    cell = torch.arange(k).repeat_interleave(m) * len(columns) + column
    table = torch.full((k * len(columns),), -torch.inf, dtype=torch.float64)
    table = table.scatter_reduce(0, cell, scores, "amax").reshape(k, len(columns))
    chosen = assign(table, nowhere=looks.nowhere)
    mine = (column.reshape(k, m) == chosen[:, None]) & (scores.reshape(k, m) > -torch.inf)
    return torch.where(mine.any(dim=1), mine.int().argmax(dim=1), NOWHERE)


def _within(
    likeness: Float[Tensor, "k rows cols"],
    tops: Bool[Tensor, "k n"],
    scores: Float[Tensor, "k rows cols"],
    scored: Bool[Tensor, "rows cols"],
    cells: Int64[Tensor, "k m 2"],
) -> Float64[Tensor, "k m 2"]:
    """Peaks of scores to a part of a patch: the top of the likeness beside each, where there is one.

    A prediction says which peak is meant, and is too blunt to say where within it. On the flank of another peak there
    is no top, and the scores say where.
    """
    rows, columns = scored.shape
    step = torch.cartesian_prod(torch.arange(-1, 2), torch.arange(-1, 2))
    around = cells[:, :, None] + step  # k m 9 2
    inside = ((around >= 0) & (around < torch.tensor([rows, columns]))).all(dim=-1)
    flat = around[..., 0].clamp(0, rows - 1) * columns + around[..., 1].clamp(0, columns - 1)
    values = likeness.flatten(1).masked_fill(~tops, -torch.inf).gather(1, flat.flatten(1)).reshape(flat.shape)
    values = values.masked_fill(~inside, -torch.inf)
    best, at = values.max(dim=2)
    top = cells + step[at]
    has_top = (best > -torch.inf)[..., None]
    return torch.where(
        has_top, refine(likeness, scored, torch.where(has_top, top, cells)), refine(scores, scored, cells)
    )
