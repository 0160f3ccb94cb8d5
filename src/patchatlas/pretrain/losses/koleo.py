"""The KoLeo term: embeddings spread out, each away from its nearest neighbour.

Axes: b samples, d features. Sablayrolles et al. 2019 (arXiv 1806.03198), equation 3: the Kozachenko-Leonenko estimate
of the entropy, -mean log of the distance to the nearest neighbour, on unit vectors as in DINOv2.

Neighbours are looked for among the samples that are given: those of one micro-batch, as DINOv3 looks among those of one
device (facebookresearch/dinov3 at 0f84b8b, ssl_default_config.yaml). docs/pretrain-losses.md says what that changes.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from patchatlas.pretrain.losses.ranks import ALONE, Ranks
from patchatlas.pretrain.losses.weights import mean_total

FLOOR = 1e-8
"""Distances count as at least this, so that equal embeddings give 18.4 and not infinity."""


def koleo_loss(
    embeddings: Float[Tensor, "b d"],
    *,
    weights: Float[Tensor, " b"] | None = None,
    ranks: Ranks = ALONE,
    across_ranks: bool = False,
) -> Float[Tensor, ""]:
    """Weighted mean of -log distance to the nearest neighbour of weight above 0; 0 where there is none to be had.

    Args:
        embeddings: class tokens of one global view, before the head; any length.
        weights: of the samples; 1 if not given. One of weight 0 neither moves nor pushes.
        ranks: processes over which it is a mean. All must call it.
        across_ranks: whether neighbours may be on other ranks; all then have as many samples.
    """
    unit = F.normalize(embeddings if embeddings.dtype == torch.float64 else embeddings.float(), dim=-1)
    weights = torch.ones_like(unit[:, 0]) if weights is None else weights.detach().to(unit)
    first = 0
    others, counted = unit, weights > 0
    if across_ranks:
        others, counted = ranks.gather(unit).flatten(0, 1), ranks.gather(weights).flatten() > 0
        first = ranks.rank * len(unit)
    with torch.no_grad():
        likeness = unit @ others.T
        likeness[:, ~counted] = -torch.inf
        likeness[torch.arange(len(unit)), first + torch.arange(len(unit))] = -torch.inf
        nearest = likeness.argmax(1)
        alone = likeness.amax(1) == -torch.inf
    squared = (unit - others[nearest]).square().sum(-1)
    lone = torch.log(torch.sqrt(squared + FLOOR**2))
    weights = torch.where(alone, 0, weights)
    return -(weights * lone).sum() / mean_total(weights.sum(), ranks=ranks)
