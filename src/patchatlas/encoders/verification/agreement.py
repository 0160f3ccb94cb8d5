"""Whether what is said of a network agrees with its tensors: config.json beside them, and the catalogue."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from patchatlas.encoders.catalogue import CATALOGUE, Entry
from patchatlas.encoders.vit import ViT, ViTConfig


def config_differences(fields: Mapping[str, Any], config: ViTConfig) -> list[str]:
    """Numbers in a `config.json` that are not those of the tensors, each as `name says A, the tensors B`.

    Args:
        fields: of transformers or of timm; names that are absent are not compared.
        config: read from the tensors.
    """
    expected: dict[str, object] = {
        "hidden_size": config.dim,
        "num_features": config.dim,  # timm
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "num_register_tokens": config.registers,
        "num_channels": config.channels,
        "patch_size": config.patch[-1],
        "intermediate_size": config.ffn_hidden,
        "use_gated_mlp": config.ffn == "swiglu",
        "use_swiglu_ffn": config.ffn == "swiglu",
        "qkv_bias": config.qkv_bias,
    }
    if config.table_grid is not None and isinstance(fields.get("patch_size"), int):
        expected["image_size"] = config.table_grid[-1] * config.patch[-1]
    if config.ffn == "mlp":
        expected["mlp_ratio"] = config.ffn_hidden / config.dim
    return [
        f"{name} says {fields[name]}, the tensors {value}"
        for name, value in expected.items()
        if fields.get(name) is not None and fields[name] != value
    ]


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
