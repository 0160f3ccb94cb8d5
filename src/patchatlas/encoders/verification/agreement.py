"""Whether what is said of a network agrees with its tensors: config.json beside them, and the catalogue."""

from collections.abc import Mapping
from typing import Any

from patchatlas.encoders.vit import ViTConfig


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
