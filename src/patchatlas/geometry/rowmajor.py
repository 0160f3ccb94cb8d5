"""Row-major numbers of cells and their indices (row, column) or (z, row, column)."""

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor


def unravel(flat: Int64[Tensor, "*n"], shape: Sequence[int]) -> Int64[Tensor, "*n ndim"]:
    """Indices of the cells that have these numbers in an array of `shape`, as `torch.unravel_index` gives them.

    That one imports sympy when it is first called, which takes longer than a search.
    """
    indices = []
    for side in reversed(shape):
        indices.append(flat % side)
        flat = flat // side
    return torch.stack(indices[::-1], dim=-1)
