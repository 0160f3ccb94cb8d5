"""The DINO term: class tokens of a student view predict the teacher's assignment of another view.

Axes: s student views, t teacher views, b samples, k prototypes.

Caron et al. 2021 (arXiv 2104.14294), with weights inside the sum. With all weights 1 it is the loss of DINOv3 (Simeoni
et al. 2025, arXiv 2508.10104), where the terms of globals and of locals count by their number of pairs: for 2 globals
and 8 locals 2/18 and 16/18 of their means.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.errors import UsageError
from patchatlas.pretrain.losses.weights import PairWeights, mean_total


def dino_loss(
    student_logits: Float[Tensor, "s b k"],
    targets: Float[Tensor, "t b k"],
    weights: PairWeights,
    *,
    student_temp: float = 0.1,
    total: Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    """Weighted mean over pairs of the cross-entropy of student views with targets, nats.

    Args:
        student_logits: of all views, globals first.
        targets: rows that sum to 1, of the teacher's views in the same order; no gradient flows to them.
        weights: of every pair.
        student_temp: temperature of the student's softmax.
        total: what the sum is divided by, from `mean_total` over micro-batches and ranks; that of these samples alone
            if not given. The loss of the whole step is then the sum over micro-batches and the mean over ranks.

    Raises:
        UsageError: a temperature that is not positive.
    """
    summed = (weights.values * pair_entropies(student_logits, targets, student_temp=student_temp)).sum()
    return summed / (mean_total(weights.total) if total is None else total)


def pair_entropies(
    student_logits: Float[Tensor, "s b k"], targets: Float[Tensor, "t b k"], *, student_temp: float
) -> Float[Tensor, "s t b"]:
    """Cross-entropy of every student view with every target, nats, float32 at least."""
    if student_temp <= 0:
        raise UsageError(f"a temperature is positive, given {student_temp}")
    wide = student_logits if student_logits.dtype == torch.float64 else student_logits.float()
    log_probs = torch.log_softmax(wide / student_temp, dim=-1)
    return -torch.einsum("sbk,tbk->stb", log_probs, targets.detach().to(log_probs))
