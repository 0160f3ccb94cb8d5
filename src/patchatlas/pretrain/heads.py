"""What stands between tokens and prototypes: a small MLP, a direction, and its products with the prototypes.

Source of the layout: the DINO heads of DINOv2 and DINOv3 (arXiv 2304.07193, 2508.10104): linear layers with GELU
between them, a bottleneck of unit length, and a plain linear without bias.

Axes: n tokens, d features, e bottleneck, k prototypes.
"""

import itertools

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from patchatlas.pretrain.settings import HeadConfig


class Projector(nn.Module):
    """Linear layers with GELU between them: what SIGReg looks at.

    Args:
        dim: length of a token.
        config: widths; its prototypes are not used.
    """

    def __init__(self, dim: int, config: HeadConfig) -> None:
        super().__init__()
        widths = [dim, *[config.hidden] * (config.layers - 1), config.bottleneck]
        pairs = itertools.pairwise(widths)
        self.layers = nn.ModuleList(nn.Linear(wide, narrow) for wide, narrow in pairs)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights: normal with deviation 0.02, biases 0."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            else:
                parameter.normal_(std=0.02, generator=generator)

    def forward(self, tokens: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        """Embeddings, of any length, float32."""
        for index, layer in enumerate(self.layers):
            tokens = layer(F.gelu(tokens) if index else tokens)
        return tokens.float()


class Head(Projector):
    """Logits of tokens over prototypes.

    Args:
        dim: length of a token.
        config: widths.
    """

    def __init__(self, dim: int, config: HeadConfig) -> None:
        super().__init__(dim, config)
        self.prototypes = nn.Parameter(torch.empty(config.prototypes, config.bottleneck))

    def forward(self, tokens: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Logits, before any temperature; float32, since one of 0.04 makes bfloat16's rounding 25 times larger."""
        embedded = super().forward(tokens)
        with torch.autocast(tokens.device.type, enabled=False):
            return F.linear(F.normalize(embedded, dim=-1, eps=1e-6), self.prototypes)
