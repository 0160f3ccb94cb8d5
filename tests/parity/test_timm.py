"""Our ViT against timm's networks on random weights: run by `make parity`, which has timm."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from patchatlas.encoders import keymaps
from patchatlas.encoders.catalogue import CATALOGUE, IMAGENET
from patchatlas.encoders.keymaps.layout import Facts
from patchatlas.encoders.loading import load_encoder
from patchatlas.encoders.vit import ViT

SMALL = {"embed_dim": 128, "depth": 2, "num_heads": 2, "num_classes": 0}

CASES = {
    # name: (changes, sizes in pixels). timm resamples tables of models without registers otherwise than Meta did (exact
    # size, antialias), so these are compared at the native size.
    "vit_small_patch14_dinov2": ({**SMALL, "img_size": 56}, [(56, 56)]),
    "vit_giant_patch14_dinov2": ({**SMALL, "img_size": 56}, [(56, 56)]),
    "vit_small_patch14_reg4_dinov2": (
        {**SMALL, "img_size": 56, "dynamic_img_size": True},
        [(56, 56), (42, 84), (98, 28)],
    ),
    "vit_giant_patch14_reg4_dinov2": ({**SMALL, "img_size": 56, "dynamic_img_size": True}, [(56, 56), (42, 84)]),
    "vit_small_patch16_dinov3": (SMALL, [(64, 64), (48, 80), (112, 32)]),
    "vit_small_patch16_dinov3_qkvb": (SMALL, [(64, 64), (48, 80)]),
    "vit_small_plus_patch16_dinov3": (SMALL, [(64, 64), (48, 80)]),
    "vit_huge_plus_patch16_dinov3_qkvb": (SMALL, [(64, 64), (80, 48)]),
    "vit_7b_patch16_dinov3": (SMALL, [(64, 64), (80, 48)]),
}


def drawn(name):
    """The network with every parameter drawn anew."""
    changes, sizes = CASES[name]
    model = timm.create_model(name, pretrained=False, **changes).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(mean=0.3 * (parameter.ndim == 1), std=0.1, generator=generator)
    return model, sizes


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_tokens_equal_those_of_timm(name):
    model, sizes = drawn(name)
    state, config = keymaps.translate(model.state_dict(), Facts(heads=SMALL["num_heads"]))
    network = ViT(config).eval()
    network.load_state_dict(state)
    generator = torch.Generator().manual_seed(1)
    for size in sizes:
        x = torch.randn(2, 3, *size, generator=generator)
        torch.testing.assert_close(network(x), model.forward_features(x), atol=5e-5, rtol=0)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_files_that_timm_writes_are_read(tmp_path, name):
    model, sizes = drawn(name)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    encoder = load_encoder(tmp_path, device="cpu", dtype="fp32", heads=SMALL["num_heads"])
    pixels = torch.rand(1, 3, *sizes[-1], generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in IMAGENET)
    theirs = model.forward_features((pixels - mean) / std)
    patches = encoder(pixels).patches
    torch.testing.assert_close(patches, theirs[:, theirs.shape[1] - patches.shape[1] :], atol=1e-4, rtol=0)


ON_TIMM = [entry for entry in CATALOGUE.values() if entry.timm_id and entry.family in ("dinov2", "dinov3")]


@pytest.mark.parametrize("entry", ON_TIMM, ids=lambda entry: entry.name)
def test_full_sizes_map_without_rest(entry):
    """On the meta device: names and shapes only."""
    with torch.device("meta"):
        model = timm.create_model(entry.timm_id.removeprefix("timm/"), pretrained=False, num_classes=0)
    config = keymaps.translate(model.state_dict(), Facts())[1]
    for field in ("family", "dim", "depth", "heads", "patch", "registers"):
        assert getattr(config, field) == getattr(entry, field)
    if entry.family == "dinov2":
        assert config.table_grid == (37, 37)
    assert model.num_features == entry.dim
