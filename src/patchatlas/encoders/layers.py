"""Which blocks' tokens an encoder gives, and how those of several come to stand side by side.

Axes: b batch, t tokens (class and registers first), d features.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from patchatlas.errors import UsageError

_EVEN = 1e-6  # deviation below which a channel says nothing


def choose_layer(layer: int | None, depth: int) -> int:
    """The block asked for, counted from 0; the last one for `None`.

    Raises:
        UsageError: there is no such block.
    """
    if layer is None:
        return depth - 1
    if not -depth <= layer < depth:
        raise UsageError(
            f"layer {layer} does not exist: this encoder has {depth} blocks, 0 to {depth - 1} or -{depth} to -1"
        )
    return layer % depth


def require_layers(layers: Sequence[int], depth: int) -> None:
    """Refuse blocks that cannot stand side by side.

    Raises:
        UsageError: none, not ascending, or a block that the encoder has not.
    """
    if not layers or list(layers) != sorted(set(layers)) or layers[0] < 0 or layers[-1] >= depth:
        raise UsageError(
            f"layers {', '.join(map(str, layers))} cannot be used: this encoder has blocks 0 to {depth - 1}; name "
            "some of them, ascending"
        )


def standardise(tokens: Float[Tensor, "b t d"], *, prefix: int) -> Float[Tensor, "b t d"]:
    """Each channel less its mean, over its standard deviation, both taken over the patches of each input.

    Earlier blocks carry a few channels that are far larger than all others; the final LayerNorm is not made for them
    (DINOv3, arXiv:2508.10104, appendix on layers). A channel that is the same everywhere becomes 0.

    Args:
        tokens: of one block.
        prefix: tokens before the patches; they are scaled like the patches.
    """
    patches = tokens[:, prefix:]
    mean = patches.mean(dim=1, keepdim=True)
    deviation = patches.std(dim=1, correction=0, keepdim=True)
    return torch.where(deviation > _EVEN, (tokens - mean) / deviation.clamp(min=_EVEN), 0.0)


def side_by_side(blocks: Sequence[Float[Tensor, "b t d"]]) -> Float[Tensor, "b t features"]:
    """Tokens of several blocks as one, each of unit length: a cosine of two such tokens is the mean of the blocks'."""
    return torch.cat([F.normalize(block, dim=-1) for block in blocks], dim=-1)
