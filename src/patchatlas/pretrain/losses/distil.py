"""Tokens are like those that another encoder gives at the same place.

Axes: v crops, n tokens, e features of that encoder.
"""

import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor


def distil_loss(
    student: Float[Tensor, "v n e"],
    target: Float[Tensor, "v n e"],
    *,
    weights: Shaped[Tensor, "v n"],
    total: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """One minus the cosine of student and target, summed by weight over tokens and divided by `total`.

    The least that it can be is 0, random tokens give 1, and so does a target of zeros, which asks nothing. Half the
    squared distance of the two at unit length, as in feature distillation with normalised targets (Wei et al. 2022,
    arXiv 2205.14141).

    Args:
        student: tokens as the student gives them, any length.
        target: those of the other encoder; no gradient flows to them.
        weights: of the tokens, 0 or more, or whether they count.
        total: what the sum is divided by.
    """
    cosine = F.cosine_similarity(student.float(), target.detach().float(), dim=-1)
    return (weights.float() * (1 - cosine)).sum() / total
