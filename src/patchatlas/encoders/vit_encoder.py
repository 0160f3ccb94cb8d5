"""A `ViT` as an `Encoder`: pixels in 0..1 in, split tokens out, in the precision and on the device it was built for.

Axes: b batch, c channels, size = (h, w) or (z, h, w), d features.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.encoders.inputs import grid_shape
from patchatlas.encoders.matmul import fast_float32
from patchatlas.encoders.protocol import Tokens
from patchatlas.encoders.vit import ViT, ViTConfig, dtype_of, split_tokens
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
        spec: its facts; `layer` and `norm` say which tokens are given. The final norm on an earlier layer is allowed,
            as the reference's `get_intermediate_layers(norm=True)` does.
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
            (tokens,) = self.network.forward_blocks(pixels.to(self.device, torch.float32), [self._spec.layer])
        if self._spec.norm == "final":
            tokens = self.network.norm(tokens)
        return split_tokens(tokens, self.network.config)
