"""A `ViT` as an `Encoder`: pixels in 0..1 in, split tokens out, in the precision and on the device it was built for.

Axes: b batch, c channels, size = (h, w) or (z, h, w), d features.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.encoders.inputs import grid_shape
from patchatlas.encoders.layers import require_layers, side_by_side, standardise
from patchatlas.encoders.matmul import fast_float32
from patchatlas.encoders.protocol import Encoder, Tokens
from patchatlas.encoders.vit import ViT, ViTConfig, dtype_of, split_tokens
from patchatlas.errors import UsageError
from patchatlas.spec import EncoderSpec


def fold_normalisation(
    weight: Float[Tensor, "d c *patch"], bias: Float[Tensor, " d"], *, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[Float[Tensor, "d c *patch"], Float[Tensor, " d"]]:
    """Weight and bias of a patch embedding that takes pixels x in 0..1 instead of (x - mean) / std.

    w / std and b - sum(w mean / std), summed over channels and patch; computed in float64, given in float32.
    """
    shape = (1, -1, *[1] * (weight.ndim - 2))
    wide = weight.double()
    scaled = wide / torch.tensor(std, dtype=torch.float64, device=weight.device).view(shape)
    shift = (scaled * torch.tensor(mean, dtype=torch.float64, device=weight.device).view(shape)).flatten(1).sum(1)
    return scaled.float(), (bias.double() - shift).float()


def build_network(
    state: dict[str, Tensor],
    config: ViTConfig,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    device: torch.device,
    dtype: torch.dtype,
) -> ViT:
    """A frozen network in eval mode that takes pixels in 0..1, with its own copy of the weights.

    Args:
        state: complete and of the right shapes (see `keymaps.layout.require_complete`), in any float dtype.
        mean: per channel, as the weights were trained with.
        std: per channel, as the weights were trained with.
        dtype: float32 or bfloat16, for the linears of the blocks; the rest is float32.
    """
    weight, bias = fold_normalisation(state["patch_embed.weight"], state["patch_embed.bias"], mean=mean, std=std)
    folded = {**state, "patch_embed.weight": weight, "patch_embed.bias": bias}
    placed = {
        key: value.detach().to(device, dtype_of(key, dtype), copy=True).contiguous() for key, value in folded.items()
    }
    with torch.device("meta"):
        network = ViT(config)
    network.load_state_dict(placed, assign=True)
    return network.eval().requires_grad_(False)


class VitEncoder:
    """The `Encoder` of a ViT. Tokens come out in float32 whatever the precision: the residual stream is float32.

    Args:
        network: takes pixels in 0..1 (see `build_network`).
        spec: its facts; `layer` (or `layers`, see `with_layers`) and `norm` say which tokens are given. The final norm
            on an earlier layer is allowed, as the reference's `get_intermediate_layers(norm=True)` does.
    """

    def __init__(self, network: ViT, spec: EncoderSpec) -> None:
        self.network = network
        self._spec = spec

    @property
    def spec(self) -> EncoderSpec:
        """The facts."""
        return self._spec

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.cls_token.device

    @torch.no_grad()
    def __call__(self, pixels: Float[Tensor, "b c *size"], /) -> Tokens:
        """Encode a batch.

        Raises:
            ShapeError: a side is not a multiple of the patch, or the channels are not the network's.
        """
        grid_shape(pixels, self._spec)
        with fast_float32(self.device):
            found = self.network.forward_blocks(
                pixels.to(self.device, torch.float32), self._spec.layers or [self._spec.layer]
            )
        if self._spec.layers:
            tokens = side_by_side([self._of_several(*pair) for pair in zip(self._spec.layers, found, strict=True)])
        else:
            tokens = self._normed(found[0])
        return split_tokens(tokens, self.network.config)

    def _normed(self, tokens: Tensor) -> Tensor:
        return self.network.norm(tokens) if self._spec.norm == "final" else tokens

    def _of_several(self, layer: int, tokens: Tensor) -> Tensor:
        """The last block has a norm of its own; the others are standardised."""
        if layer == self._spec.depth - 1 and self._spec.norm == "final":
            return self._normed(tokens)
        return standardise(tokens, prefix=self.network.config.prefix)


def with_layers(encoder: Encoder, layers: tuple[int, ...]) -> Encoder:
    """The same network, giving the tokens of several blocks side by side; weights are shared.

    Each block is standardised per channel over the patches of its input, but the last one, which has the final norm
    (where the encoder has it on); each block's tokens have unit length. The spec says which blocks.

    Args:
        encoder: a ViT of ours.
        layers: blocks, counted from 0, ascending.

    Raises:
        UsageError: another kind of encoder, or blocks that it has not.
    """
    if not isinstance(encoder, VitEncoder):
        raise UsageError(
            f"layers are blocks of a Vision Transformer (DINOv2, DINOv3, vit3d); {encoder.spec.name} is none: leave "
            "layers out"
        )
    spec, config = encoder.spec, encoder.network.config
    require_layers(layers, spec.depth)
    return VitEncoder(encoder.network, replace(spec, layers=layers, layer=layers[-1], dim=len(layers) * config.dim))
