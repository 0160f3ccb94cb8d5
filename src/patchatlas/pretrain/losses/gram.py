"""The Gram term: which patches are alike stays as an earlier teacher saw it, on the same crop.

Axes: v crops, n patch tokens, d features of the student, e of the teacher. Simeoni et al. 2025 (arXiv 2508.10104),
section 4.2: the squared Frobenius distance of the two matrices of cosine similarities.

The matrices have n x n entries, and 192^3 voxels are 13,824 tokens of patch 8. With U = X - Y and V = X + Y,
XX' - YY' = (UV' + VU') / 2, whose squared norm is (<U'U, V'V> + <V'U, (V'U)'>) / 2: d x d matrices, and no cancellation
where X is close to Y. Only for d = e; otherwise |X'X|^2 + |Y'Y|^2 - 2 |X'Y|^2 in float64.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from patchatlas.errors import ShapeError
from patchatlas.pretrain.losses.ranks import ALONE, Ranks
from patchatlas.pretrain.losses.weights import mean_total


def gram_loss(
    student: Float[Tensor, "v n d"],
    teacher: Float[Tensor, "v p e"],
    *,
    weights: Shaped[Tensor, "v n"] | None = None,
    total: Float[Tensor, ""] | None = None,
    ranks: Ranks = ALONE,
) -> Float[Tensor, ""]:
    """Mean over crops of the mean over pairs of tokens of the squared difference of their cosines.

    The teacher must have seen the same crop, token for token: crops drawn anew hold other anatomy, and tokens of a
    larger input are first resampled to the student's grid (`geometry.sampling.resample`).

    Args:
        student: patch tokens; any length.
        teacher: those of the Gram teacher; no gradient flows to them.
        weights: of the tokens, 0 or more, or whether they count; 1 if not given. A pair counts by the product of both.
        total: number of crops of any weight, from `mean_total`; that of these crops alone if not given.
        ranks: processes over which it is a mean.

    Raises:
        ShapeError: other numbers of tokens.
    """
    if student.shape[1] != teacher.shape[1]:
        raise ShapeError(
            f"student and Gram teacher give {student.shape[1]} and {teacher.shape[1]} tokens a crop; both must see the "
            "same crop, and tokens of another grid be resampled to the student's"
        )
    x = F.normalize(student if student.dtype == torch.float64 else student.float(), dim=-1)
    y = F.normalize(teacher.detach().to(x), dim=-1)
    share = torch.ones_like(x[..., 0]) if weights is None else weights.detach().to(x)
    mass = share.sum(1, keepdim=True)
    root = (share / torch.where(mass > 0, mass, 1)).sqrt()[..., None]
    each = _squared_distance(root * x, root * y)
    return each.sum() / (mean_total((mass > 0).sum(), ranks=ranks) if total is None else total)


def _squared_distance(x: Float[Tensor, "v n d"], y: Float[Tensor, "v n e"]) -> Float[Tensor, " v"]:
    """|XX' - YY'|^2 of every crop."""
    if x.shape[-1] == y.shape[-1]:
        u, v = x - y, x + y
        uu, vv, vu = u.mT @ u, v.mT @ v, v.mT @ u
        return ((uu * vv).sum((1, 2)) + (vu * vu.mT).sum((1, 2))) / 2
    x, y = x.double(), y.double()
    xx, yy, xy = x.mT @ x, y.mT @ y, x.mT @ y
    return xx.square().sum((1, 2)) + yy.square().sum((1, 2)) - 2 * xy.square().sum((1, 2))
