"""The weighted mean: a sum divided by its weight where there is any, and a fill elsewhere.

Axes: *size axes of the canvas, m numbers a pixel, last.
"""

import math

import torch
from torch import Tensor

from patchatlas.canvas.compiled import divide
from patchatlas.canvas.numbers import FEW

# Numbers handled at a time, so that what lies between two steps stays in the cache and small beside the canvas.
_AT_A_TIME = 1 << 17


def write_mean(out: Tensor, total: Tensor, weight: Tensor, fill: Tensor, *, compiled: bool) -> None:
    """Write the mean into `out`, a band of rows at a time.

    Args:
        out: (*size, m), contiguous; may be `total` itself.
        total: (*size, m), contiguous.
        weight: (*size); there is a value where it is positive.
        fill: (m), elsewhere.
        compiled: do it in one pass by compiled code.
    """
    if compiled:
        divide(out, total, weight, fill)
        return
    rows = max(1, _AT_A_TIME // math.prod(total.shape[1:]))
    for top in range(0, len(out), rows):
        some = slice(top, top + rows)
        if total.shape[-1] > FEW:
            torch.where(weight[some, ..., None] > 0, total[some] / weight[some, ..., None], fill, out=out[some])
            continue
        empty = ~(weight[some] > 0)
        divisor = weight[some].masked_fill(empty, 1)
        for number, filling in enumerate(fill.tolist()):
            part = out[some][..., number]
            torch.div(total[some][..., number], divisor, out=part).masked_fill_(empty, filling)


def mean(total: Tensor, weight: Tensor, fill: Tensor) -> Tensor:
    """The same as a new tensor, differentiable in sum and weight."""
    covered = weight > 0
    return torch.where(covered[..., None], total / torch.where(covered, weight, 1)[..., None], fill)
