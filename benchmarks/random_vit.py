"""A ViT with random weights as an encoder: for benchmarks of what does not need trained ones."""

import hashlib
import math

import torch

from patchatlas.encoders.catalogue import IMAGENET
from patchatlas.encoders.vit import ViT, ViTConfig
from patchatlas.encoders.vit_encoder import VitEncoder, build_network
from patchatlas.spec import EncoderSpec

VITS16 = ViTConfig(family="dinov3", patch=(16, 16), dim=384, depth=12, heads=6, registers=4, ffn_hidden=1536)


def random_vit(config: ViTConfig, *, name: str, seed: int = 0) -> VitEncoder:
    """A ViT whose weights keep the size of what goes through, so that every block and the registers take part."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, value in ViT(config).state_dict().items():
        if "periods" in key or "norm" in key:
            state[key] = value
        elif "scale" in key:
            state[key] = torch.full_like(value, 0.3)
        elif "bias" in key:
            state[key] = torch.zeros_like(value)
        else:
            fan_in = math.prod(value.shape[1:]) if value.ndim > 1 and "token" not in key else 1
            state[key] = torch.randn(value.shape, generator=generator) / math.sqrt(fan_in)
    if "positions" in state:
        state["positions"] = 0.1 * torch.randn(state["positions"].shape, generator=generator)
    mean, std = IMAGENET
    network = build_network(state, config, mean=mean, std=std, device=torch.device("cpu"), dtype=torch.float32)
    spec = EncoderSpec(
        name=name,
        family=config.family,
        patch=config.patch,
        dim=config.dim,
        registers=config.registers,
        has_cls=True,
        channels=3,
        mean=mean,
        std=std,
        layer=config.depth - 1,
        depth=config.depth,
        norm="final",
        dtype="fp32",
        licence="cc0-1.0",
        weights_sha256=hashlib.sha256(f"random {config} {seed}".encode()).hexdigest(),
        source="random",
    )
    return VitEncoder(network, spec)
