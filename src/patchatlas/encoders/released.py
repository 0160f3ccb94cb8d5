"""Which released model a network has the shapes of."""

import torch
from torch import Tensor

from patchatlas.encoders.catalogue import CATALOGUE, Entry
from patchatlas.encoders.vit import ViT, ViTConfig


def models_of_shape(config: ViTConfig) -> list[Entry]:
    """The released models that have tensors of these shapes; some were trained on different data and share them."""
    ours = _reference_parameters(config)
    counts = {ours, ours + 2 * config.dim}  # satellite weights and the 7B have a second norm that inference never reads
    if not config.qkv_bias:  # timm leaves out biases that are all zero (facebookresearch/dinov3 issue 195)
        counts |= {count + 3 * config.dim * config.depth for count in counts}
    return [
        entry
        for entry in CATALOGUE.values()
        if (entry.family, entry.dim, entry.depth, entry.patch, entry.registers)
        == (config.family, config.dim, config.depth, config.patch, config.registers)
        and entry.heads == config.heads
        and entry.parameters in counts
    ]


def _reference_parameters(config: ViTConfig) -> int:
    """Parameters of the reference class: ours, its mask token, and the position of its class token."""
    with torch.device("meta"):
        state: dict[str, Tensor] = ViT(config).state_dict()
    ours = sum(value.numel() for key, value in state.items() if key != "rope.periods")
    return ours + config.dim * (1 if config.table_grid is None else 2)
