"""Which landmark gets which place, so that no two get the same one.

Axes: k landmarks, c candidate places of all of them together. A landmark may also be given no place.
"""

import numpy as np
import torch
from jaxtyping import Float64, Int64
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from torch import Tensor

from patchatlas.errors import ShapeError

NOWHERE = -1


def assign(scores: Float64[Tensor, "k c"], *, nowhere: float) -> Int64[Tensor, " k"]:
    """One place for each landmark, or none, with the largest sum of scores of all ways to share out the places.

    Args:
        scores: how much speaks for landmark k being at place c; minus infinity where it is out of the question.
        nowhere: the score of having no place. A landmark gets a place only where that scores more.

    Returns:
        The place of each landmark, `NOWHERE` for none.

    Raises:
        ShapeError: a score is NaN or plus infinity.
    """
    if bool((scores.isnan() | (scores == torch.inf)).any()):
        raise ShapeError("scores must be numbers or minus infinity")
    k, c = scores.shape
    # Each landmark has a place of its own that is nowhere, so nobody is pushed into a place that scores less.
    own = np.full((k, k), -np.inf)
    np.fill_diagonal(own, nowhere)
    table = np.concatenate([scores.numpy(), own], axis=1)
    finite = table[np.isfinite(table)]
    forbidden = finite.min() - (np.ptp(finite) + 1) * (k + 1)  # worse than any whole assignment without it
    rows, columns = linear_sum_assignment(np.where(np.isfinite(table), table, forbidden), maximize=True)
    chosen = torch.full((k,), NOWHERE)
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if column < c and table[row, column] > nowhere:
            chosen[row] = column
    return chosen


def merge_places(
    places: Float64[Tensor, "p ndim"], values: Float64[Tensor, " p"], *, radius: float
) -> Int64[Tensor, " p"]:
    """Places within `radius` of a better one become that one: the index of the place that each stands for.

    Best first, as in non-maximum suppression; of equals the first.
    """
    if not len(places):
        return torch.zeros(0, dtype=torch.long)
    near = cKDTree(places.numpy()).query_ball_point(places.numpy(), radius, return_sorted=True)
    stands_for = torch.full((len(places),), -1)
    kept = np.zeros(len(places), dtype=bool)
    for index in torch.argsort(values, descending=True, stable=True).tolist():
        better = [n for n in near[index] if kept[n]]
        if better:
            apart = torch.linalg.vector_norm(places[better] - places[index], dim=1)
            stands_for[index] = better[int(apart.argmin())]
        else:
            kept[index] = True
            stands_for[index] = index
    return stands_for
