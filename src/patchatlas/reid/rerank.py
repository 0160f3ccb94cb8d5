"""Compare by shared neighbours: k-reciprocal re-ranking (Zhong et al., arXiv 1701.08398).

Two of the same identity tend to have each other among their nearest, and the same others too. Worth it from about fifty
tracklets on; below, neighbours are too few to say anything. What comes out depends on the whole set, so it means
something else than the cosines that went in, and thresholds for those do not hold for it.

Axes: n tracklets.
"""

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from patchatlas.errors import InputError, ShapeError, UsageError


def rerank(
    similarity: Float64[Tensor, "n n"], *, k1: int = 20, k2: int = 6, share: float = 0.3
) -> Float64[Tensor, "n n"]:
    """Similarity by shared neighbours, mixed with the given one.

    Args:
        similarity: cosines, symmetric.
        k1: how many nearest count as neighbours; at most n - 1 are taken.
        k2: over how many nearest neighbourhoods are averaged; at most n - 1.
        share: of the given similarity in the result (lambda in the paper).

    Returns:
        1 - (1 - share) * Jaccard distance - share * (1 - cosine), symmetric, 1 on the diagonal.

    Raises:
        ShapeError: not a square table.
        InputError: not symmetric, or not numbers.
        UsageError: k1 or k2 below 1, or `share` outside 0..1.
    """
    if similarity.shape[0] != similarity.shape[1]:
        raise ShapeError(f"similarities of n tracklets are a square table, given {tuple(similarity.shape)}")
    if not bool(similarity.isfinite().all()) or not torch.allclose(similarity, similarity.T, atol=1e-9):
        raise InputError("similarities must be numbers and the same both ways")
    if k1 < 1 or k2 < 1 or not 0 <= share <= 1:
        raise UsageError(f"k1 and k2 are 1 or more and share lies in 0..1, given {k1}, {k2} and {share}")
    n = len(similarity)
    if n < 2:
        return torch.ones_like(similarity)
    k1, k2 = min(k1, n - 1), min(k2, n - 1)
    distance = (1 - similarity).fill_diagonal_(0)
    # Everybody comes first in the own list, whatever ties there are.
    order = torch.argsort(distance.clone().fill_diagonal_(-1), dim=1, stable=True)
    near = _reciprocal(order, k1)
    wide, half = near.clone(), _reciprocal(order, max(1, round(k1 / 2)))
    for row in range(n):
        for other in torch.nonzero(near[row]).flatten().tolist():
            if 3 * int((near[row] & half[other]).sum()) >= 2 * int(half[other].sum()):
                wide[row] |= half[other]
    weights = torch.where(wide, torch.exp(-distance), 0.0)
    averaged = torch.stack([weights[order[row, : k2 + 1]].mean(dim=0) for row in range(n)])
    jaccard = torch.stack(
        [
            1 - torch.minimum(averaged[row], averaged).sum(dim=1) / torch.maximum(averaged[row], averaged).sum(dim=1)
            for row in range(n)
        ]
    )
    return (1 - (1 - share) * jaccard - share * distance).fill_diagonal_(1)


def _reciprocal(order: Int64[Tensor, "n n"], k: int) -> Bool[Tensor, "n n"]:
    """Who has whom among the k nearest, both ways; everybody has themselves."""
    forward = torch.zeros(order.shape, dtype=torch.bool)
    forward.scatter_(1, order[:, : k + 1], True)
    return forward & forward.T
