"""From the tokens of one object to its vector: what is kept of them, and what is not a vector.

Axes: n objects, p patches, d features.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from patchatlas.encoders.protocol import Tokens
from patchatlas.errors import UsageError
from patchatlas.spec import EncoderSpec

TokenPooling = Literal["cls", "mean", "cls+mean", "gem"]

GEM_POWER = 3.0
"""Where generalised means begin to be learnt in Radenovic et al., arXiv 1711.02512, section 5.1."""

LEAST_LENGTH = 1e-6
"""A shorter vector has no direction."""


def pooled_dim(spec: EncoderSpec, pooling: TokenPooling) -> int:
    """Length of the vectors.

    Raises:
        UsageError: the encoder has no class token and the pooling needs one.
    """
    if pooling in ("cls", "cls+mean") and not spec.has_cls:
        raise UsageError(f"pooling {pooling} needs a class token, {spec.name} has none; allowed are mean and gem")
    return 2 * spec.dim if pooling == "cls+mean" else spec.dim


def pool(tokens: Tokens, shares: Float[Tensor, "n p"], *, pooling: TokenPooling) -> Float32[Tensor, "n d"]:
    """One vector an object, not yet of unit length.

    Args:
        tokens: of a batch with one input an object.
        shares: how much of each patch is the object, 0 or more; all 0 gives NaN for what is read from patches.
        pooling: `cls+mean` sets both side by side, each at unit length.
    """
    cls = None if tokens.cls is None else tokens.cls.float()
    if pooling == "cls":
        assert cls is not None, "pooled_dim has refused this"
        return cls
    if pooling == "gem":
        return patch_mean(tokens.patches, shares, power=GEM_POWER)
    mean = patch_mean(tokens.patches, shares)
    if pooling == "mean":
        return mean
    assert cls is not None, "pooled_dim has refused this"
    return torch.cat([F.normalize(cls, dim=1), F.normalize(mean, dim=1)], dim=1)


def patch_mean(
    patches: Float[Tensor, "*batch p d"], shares: Float[Tensor, "n p"], *, power: float = 1.0
) -> Float32[Tensor, "n d"]:
    """Weighted (generalised) mean over patches: (sum s x^power / sum s)^(1/power), the sign of x kept.

    arXiv 1711.02512, equation 3, is this for x >= 0, which is what their networks give; tokens have both signs.

    Args:
        patches: of one input an object, (n, p, d), or of one that all share, (p, d).
    """
    values = patches.float()
    raised = values if power == 1 else values.sign() * values.abs() ** power
    weights = (shares / shares.sum(dim=1, keepdim=True)).to(values)
    mean = (weights[:, None] @ raised)[:, 0]  # n 1 p, (n) p d -> n d
    return mean if power == 1 else mean.sign() * mean.abs() ** (1 / power)


def unit_rows(vectors: Float[Tensor, "n d"]) -> tuple[Float32[Tensor, "n d"], Bool[Tensor, " n"]]:
    """Rows at unit length, and which of them are any good; a row without a direction, or with a number that is not
    finite, is NaN and marked false: it never passes for a vector."""
    values = vectors.float()
    lengths = torch.linalg.vector_norm(values, dim=1)
    valid = lengths.isfinite() & (lengths > LEAST_LENGTH * math.sqrt(max(1, values.shape[1])))
    return torch.where(valid[:, None], values / lengths[:, None], torch.nan), valid


def in_rows(
    found: Float[Tensor, "n d"], rows: Sequence[int], count: int
) -> tuple[Float32[Tensor, "m d"], Bool[Tensor, " m"]]:
    """Vectors of some of `count` objects, each in its own row, at unit length; the other rows are NaN and marked
    false."""
    vectors, valid = torch.full((count, found.shape[1]), torch.nan), torch.zeros(count, dtype=torch.bool)
    index = torch.tensor(list(rows), dtype=torch.long)
    vectors[index], valid[index] = unit_rows(found.cpu())
    return vectors, valid
