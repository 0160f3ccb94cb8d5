"""Our ViT against the networks of transformers, an independent implementation, on random weights at many sizes.

`Dinov2Model` without registers leaves out the 0.1 of Meta's resampling, so it is compared at its native size only;
Meta's own outputs in tests/golden cover the others.
"""

import pytest
import torch
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
)
from transformers.utils import logging

from patchatlas.encoders import keymaps
from patchatlas.encoders.catalogue import IMAGENET
from patchatlas.encoders.keymaps import huggingface
from patchatlas.encoders.loading import load_encoder
from tests.encoders.dino_reference import build

logging.disable_progress_bar()

SMALL = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
V2 = {**SMALL, "patch_size": 14, "image_size": 56}
V3 = {**SMALL, "patch_size": 16, "num_register_tokens": 4, "intermediate_size": 160}

CASES = {
    "v2": (Dinov2Model, Dinov2Config(**V2), [(56, 56)]),
    "v2-swiglu": (Dinov2Model, Dinov2Config(**V2, use_swiglu_ffn=True), [(56, 56)]),
    "v2-reg": (Dinov2WithRegistersModel, Dinov2WithRegistersConfig(**V2), [(56, 56), (28, 112), (84, 42), (98, 126)]),
    "v2-reg-swiglu": (
        Dinov2WithRegistersModel,
        Dinov2WithRegistersConfig(**V2, use_swiglu_ffn=True),
        [(56, 56), (42, 70)],
    ),
    "v3": (DINOv3ViTModel, DINOv3ViTConfig(**V3), [(64, 64), (48, 80), (16, 112), (160, 32)]),
    "v3-swiglu": (DINOv3ViTModel, DINOv3ViTConfig(**V3, use_gated_mlp=True, hidden_act="silu"), [(64, 64), (80, 48)]),
    "v3-7b": (
        DINOv3ViTModel,
        DINOv3ViTConfig(**V3, use_gated_mlp=True, hidden_act="silu", query_bias=False, value_bias=False),
        [(32, 96)],
    ),
    "v3-key-bias": (DINOv3ViTModel, DINOv3ViTConfig(**V3, key_bias=True), [(32, 96)]),
}


def drawn(kind):
    """The network with every parameter drawn anew, layer scale and norms too."""
    model_class, config, sizes = CASES[kind]
    model = model_class(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(mean=0.3 * (parameter.ndim == 1), std=0.15, generator=generator)
    return model, config, sizes


@pytest.mark.parametrize("kind", CASES)
@torch.no_grad()
def test_tokens_equal_those_of_transformers(kind):
    model, config, sizes = drawn(kind)
    state, ours = keymaps.translate(model.state_dict(), huggingface.facts_of(config.to_dict(), heads=None))
    network = build(state, ours)
    generator = torch.Generator().manual_seed(1)
    for size in sizes:
        x = torch.randn(2, 3, *size, generator=generator)
        theirs = model(x, output_hidden_states=True)
        torch.testing.assert_close(network(x), theirs.last_hidden_state, atol=2e-5, rtol=0)
        (first,) = network.forward_blocks(x, [0])
        torch.testing.assert_close(first, theirs.hidden_states[1], atol=2e-5, rtol=0)


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("shard", ["10GB", "100KB"])
@torch.no_grad()
def test_folders_that_transformers_writes_are_read(tmp_path, kind, shard):
    model, config, sizes = drawn(kind)
    model.save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard != "10GB")
    encoder = load_encoder(tmp_path, device="cpu", dtype="fp32")
    assert encoder.spec.depth == config.num_hidden_layers
    pixels = torch.rand(1, 3, *sizes[-1], generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in IMAGENET)
    theirs = model((pixels - mean) / std).last_hidden_state
    tokens = encoder(pixels)
    first = theirs.shape[1] - tokens.patches.shape[1]
    torch.testing.assert_close(tokens.patches, theirs[:, first:], atol=4e-5, rtol=0)
    torch.testing.assert_close(tokens.cls, theirs[:, 0], atol=4e-5, rtol=0)
