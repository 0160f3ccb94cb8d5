"""Take out of tokens what they say of their own position rather than of what they show.

The tokens of an empty picture differ by position alone. Their largest differences span the directions to take out,
after INSID3 (positional debiasing by the singular vectors of an empty picture's tokens; visinf/INSID3).

Axes: n tokens, d features, k directions.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from patchatlas.errors import UsageError

_ROUNDING = 1e-4
"""Singular values below this part of the tokens' own size are float32 arithmetic, not position."""


def position_basis(empty: Float[Tensor, "n d"], *, k: int) -> Float[Tensor, "k d"]:
    """The directions in which the tokens of an empty picture differ most.

    Args:
        empty: patch tokens of a picture that shows nothing.
        k: directions at most.

    Returns:
        Orthonormal rows, largest difference first; fewer than `k` where the tokens differ in fewer directions.

    Raises:
        UsageError: `k` is not in 1..d-1.
    """
    d = empty.shape[1]
    if not 1 <= k < d:
        raise UsageError(f"debias {k} of tokens with {d} features; take 1 to {d - 1} directions")
    tokens = empty.double()
    centred = tokens - tokens.mean(dim=0)
    # The right singular vectors, as eigenvectors: with more tokens than features that is far less work than an SVD.
    squares, vectors = torch.linalg.eigh(centred.T @ centred)
    sizes, rows = squares.flip(0).clamp(min=0).sqrt(), vectors.flip(1).T  # eigh sorts upwards
    directions: Tensor = rows[sizes > _ROUNDING * torch.linalg.matrix_norm(tokens)]
    return directions[:k].to(torch.float32)


def take_out(tokens: Float[Tensor, "*batch d"], basis: Float[Tensor, "k d"]) -> Float[Tensor, "*batch d"]:
    """Tokens without their part along the rows of `basis`, brought to unit length; zero stays zero."""
    return F.normalize(tokens - (tokens @ basis.T) @ basis, dim=-1)
