"""The iBOT term: the student tells what a masked patch is, as the teacher sees it unmasked.

Axes: v global views, b samples, n patch tokens, q masked tokens of all of them (rows of v, b, n in order), k
prototypes. Zhou et al. 2022 (arXiv 2111.07832), as DINOv2 weighs it: tokens alike within a crop, crops alike.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from patchatlas.errors import ShapeError, UsageError
from patchatlas.pretrain.losses.ranks import ALONE, Ranks
from patchatlas.pretrain.losses.sinkhorn import sinkhorn


@torch.no_grad()
def patch_targets(
    teacher_logits: Float[Tensor, "q k"],
    *,
    temperature: float,
    iterations: int = 3,
    counted: Bool[Tensor, " q"] | None = None,
    background: Bool[Tensor, " q"] | None = None,
    queue: Float[Tensor, "m k"] | None = None,
    ranks: Ranks = ALONE,
) -> Float[Tensor, "q k"]:
    """Sinkhorn's targets of masked tokens, among those that count.

    Equal shares hand identical air tokens their part of the prototypes. With `counted` they take none. With
    `background` they are all assigned prototype 0, and the others share out the rest.

    Args:
        teacher_logits: of the masked tokens of the step.
        temperature: of the teacher.
        iterations: of Sinkhorn.
        counted: tokens that take part; all if not given. The others get targets that must weigh 0.
        background: tokens that are assigned prototype 0.
        queue: rows of earlier steps. With `background` it must hold no background tokens.
        ranks: processes that share out together.

    Raises:
        ShapeError: a background prototype beside fewer than one other.
    """
    weights = torch.ones_like(teacher_logits[:, 0], dtype=torch.float32)
    if counted is not None:
        weights = weights * counted
    if background is None:
        return sinkhorn(
            teacher_logits,
            temperature=temperature,
            iterations=iterations,
            row_weights=weights,
            queue=queue,
            ranks=ranks,
        )
    if teacher_logits.shape[1] < 2:
        raise ShapeError("a background prototype needs another beside it; raise the number of prototypes")
    shared = sinkhorn(
        teacher_logits[:, 1:],
        temperature=temperature,
        iterations=iterations,
        row_weights=weights * ~background,
        queue=None if queue is None else queue[:, 1:],
        ranks=ranks,
    )
    targets = F.pad(shared, (1, 0)) * ~background[:, None]
    targets[:, 0] = background.to(targets)
    return targets


def ibot_loss(
    student_logits: Float[Tensor, "q k"],
    targets: Float[Tensor, "q k"],
    weights: Float[Tensor, " q"],
    *,
    total: Float[Tensor, ""],
    student_temp: float = 0.1,
) -> Float[Tensor, ""]:
    """Weighted sum over masked tokens of the cross-entropy with their targets, over `total`; nats.

    Args:
        student_logits: of the masked tokens.
        targets: rows that sum to 1.
        weights: `TokenWeights.values[masked]`.
        total: `mean_total(TokenWeights.total, ...)` over micro-batches and ranks.
        student_temp: temperature of the student's softmax.

    Raises:
        UsageError: a temperature that is not positive.
    """
    if student_temp <= 0:
        raise UsageError(f"a temperature is positive, given {student_temp}")
    wide = student_logits if student_logits.dtype == torch.float64 else student_logits.float()
    log_probs = torch.log_softmax(wide / student_temp, dim=-1)
    entropies = -(targets.detach().to(log_probs) * log_probs).sum(-1)
    return (weights.detach() * entropies).sum() / total
