"""Several votes for one place: which of them agree, and where they say it is.

Axes: v votes, ndim coordinates (x, y[, z]). Votes that agree lie within one radius of a common place; the others are
left out altogether, so that one bad vote moves nothing, however far off or however sure of itself it is.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from patchatlas.errors import ShapeError


@dataclass(frozen=True)
class Consensus:
    """Where votes meet.

    Attributes:
        place: mean of the votes that agree, each weighted by the inverse of its covariance.
        covariance: of the agreeing votes about `place`: what each is wide, and how far apart they are.
        agrees: which votes are within the radius of the place.
        support: part of all weight that agrees, 0..1.
    """

    place: Float64[Tensor, " ndim"]
    covariance: Float64[Tensor, "ndim ndim"]
    agrees: Bool[Tensor, " v"]
    support: float


def meet(
    places: Float64[Tensor, "v ndim"],
    covariances: Float64[Tensor, "v ndim ndim"],
    weights: Float64[Tensor, " v"],
    *,
    radius: float,
) -> Consensus:
    """The place that most weight agrees on.

    Every vote is tried as the middle; the one with the most weight within `radius` wins (of equals the one whose
    supporters lie closest together). Its supporters then give the weighted mean, once more with those within `radius`
    of that mean.

    Args:
        places: one a vote.
        covariances: how wide each vote is; positive definite.
        weights: how much each counts, positive.
        radius: votes within this distance of the place agree with it.

    Raises:
        ShapeError: there are no votes.
    """
    if not len(places):
        raise ShapeError("no votes, so no place; give at least one")
    apart = torch.cdist(places, places)
    near = apart <= radius
    support = (near.double() @ weights).tolist()
    looseness = ((apart * near).double() @ weights).tolist()
    # Rounded, and at last by place, so that the order of the votes never decides.
    middle = min(range(len(places)), key=lambda v: (-round(support[v], 9), round(looseness[v], 6), places[v].tolist()))
    agrees = near[middle]
    place = _weighted(places, covariances, weights, agrees)
    closer = torch.linalg.vector_norm(places - place, dim=1) <= radius
    if closer.any():
        agrees = closer
        place = _weighted(places, covariances, weights, agrees)
    share = weights * agrees
    share = share / share.sum()
    away = places - place
    spread = torch.einsum("v,vij->ij", share, covariances + away[:, :, None] * away[:, None, :])
    return Consensus(place, spread, agrees, float((weights * agrees).sum() / weights.sum()))


def _weighted(places: Tensor, covariances: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the chosen places under the precision (inverse covariance) of each."""
    precision = torch.linalg.inv(covariances) * (weights * chosen)[:, None, None]
    total = precision.sum(dim=0)
    mean: Tensor = torch.linalg.solve(total, torch.einsum("vij,vj->i", precision, places))
    return mean
