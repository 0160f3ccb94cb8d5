"""Tiny networks of transformers with weights that make every block matter, saved as users have them."""

from pathlib import Path
from typing import Any

import torch
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel, VJEPA2Config, VJEPA2Model

VJEPA2_SIDE = 64
"""Native input side of the tiny V-JEPA 2: a grid of 4 x 4."""


def vjepa2(**changes: Any) -> VJEPA2Model:
    settings = {
        "crop_size": VJEPA2_SIDE,
        "frames_per_clip": 4,
        "hidden_size": 36,
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
        "mlp_ratio": 2.0,
        "pred_hidden_size": 12,
        "pred_num_attention_heads": 2,
        "pred_num_hidden_layers": 1,
        "pred_num_mask_tokens": 1,
        **changes,
    }
    return redrawn(VJEPA2Model(VJEPA2Config(**settings)))


def convnext(**changes: Any) -> DINOv3ConvNextModel:
    settings = {"hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 2, 1], **changes}
    return redrawn(DINOv3ConvNextModel(DINOv3ConvNextConfig(**settings)))


def redrawn(model: Any) -> Any:
    """All parameters drawn anew: initial values leave biases, norms and layer scales with nothing to show.

    The 7 x 7 kernels of ConvNeXt are heaviest in the middle, as trained ones are: a token is then most about its patch.
    """
    generator = torch.Generator().manual_seed(0)
    distance = torch.hypot(*torch.meshgrid(torch.arange(-3.0, 4), torch.arange(-3.0, 4), indexing="ij"))
    with torch.no_grad():
        for key, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if "depthwise" in key and value.ndim == 4:
                value.copy_(noise * torch.exp(-(distance**2)))
            elif value.ndim > 1:
                value.copy_(1.5 * noise / value[0].numel() ** 0.5)
            elif "norm" in key and key.endswith("weight"):
                value.copy_(1 + 0.2 * noise)
            elif key.endswith("gamma"):
                value.copy_(0.2 + 0.05 * noise)
            else:
                value.copy_(0.1 * noise)
    return model.eval()


def saved(model: Any, folder: Path) -> Path:
    """The folder that `save_pretrained` makes of it."""
    model.save_pretrained(folder)
    return folder
