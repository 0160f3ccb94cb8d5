"""The ViT itself: shapes in 2-D and 3-D, axes in order, gradients, refusals; and its adapter with folded mean and
std."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from patchatlas.encoders import vit, vit_encoder
from patchatlas.encoders.inputs import patch_grid
from patchatlas.encoders.rope import geometric_periods, patch_angles, patch_centres, rotate
from patchatlas.encoders.vit import PatchEmbed, ViT, ViTConfig, split_tokens
from patchatlas.encoders.vit_encoder import VitEncoder, build_network, fold_normalisation
from patchatlas.errors import ShapeError
from patchatlas.spec import EncoderSpec
from tests.encoders.dino_reference import build

FLAT = ViTConfig(family="dinov3", patch=(4, 4), dim=32, depth=3, heads=2, registers=4, ffn_hidden=48, ffn="swiglu")
SOLID = ViTConfig(family="vit3d", patch=(2, 4, 4), dim=48, depth=2, heads=2, registers=2, ffn_hidden=64, channels=1)
TABLED = replace(SOLID, table_grid=(2, 3, 4), registers=0)


def drawn(config: ViTConfig, seed: int = 0) -> ViT:
    """A network whose every parameter is random."""
    network = ViT(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.normal_(std=0.5 if parameter.ndim == 1 else 0.2, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1.0)
    return network


@pytest.mark.parametrize(
    ("config", "size", "cells"), [(FLAT, (12, 20), 15), (SOLID, (4, 8, 12), 12), (TABLED, (6, 8, 4), 6)]
)
def test_tokens_are_cls_registers_patches(config, size, cells):
    network = drawn(config)
    tokens = network(torch.rand(2, config.channels, *size, generator=torch.Generator().manual_seed(1)))
    split = split_tokens(tokens, config)
    assert split.patches.shape == (2, cells, config.dim)
    assert split.cls.shape == (2, config.dim)
    if config.registers:
        assert split.registers.shape == (2, config.registers, config.dim)
        assert torch.equal(torch.cat((split.cls[:, None], split.registers, split.patches), 1), tokens)
    else:
        assert split.registers is None


def test_patches_are_row_major_and_equal_a_strided_convolution():
    for config, size in [(FLAT, (12, 20)), (SOLID, (4, 8, 12))]:
        embed = drawn(config).patch_embed
        assert isinstance(embed, PatchEmbed)
        x = torch.rand(2, config.channels, *size, generator=torch.Generator().manual_seed(1))
        convolve = torch.nn.functional.conv3d if config.ndim == 3 else torch.nn.functional.conv2d
        expected = convolve(x, embed.weight, embed.bias, stride=config.patch).flatten(2).transpose(1, 2)
        torch.testing.assert_close(embed(x, patch_grid(size, config.patch)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 1, 0), (1, 2, 0)])
def test_the_three_axes_are_treated_alike_and_in_order(order):
    """Transpose the volume, the patch kernel, and the rotary channels together: tokens move with their patches."""
    config = replace(SOLID, patch=(2, 2, 2))
    network = drawn(config)
    periods = len(network.rope.periods)
    half = 3 * periods
    by_axis = torch.arange(half).view(3, periods)[list(order)].flatten()
    head = torch.cat((by_axis, by_axis + half, torch.arange(2 * half, config.head_dim)))
    rows = torch.cat([head + config.head_dim * i for i in range(config.heads)])
    state = dict(network.state_dict())
    kernel = [0, 1, *(2 + axis for axis in order)]
    state["patch_embed.weight"] = state["patch_embed.weight"].permute(kernel).contiguous()
    for i in range(config.depth):
        for kind in ("weight", "bias"):
            key = f"blocks.{i}.attention.qkv.{kind}"
            q, k, v = state[key].chunk(3)
            state[key] = torch.cat((q[rows], k[rows], v))
    x = torch.rand(1, 1, 4, 6, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        here = network(x)[0, config.prefix :].view(2, 3, 4, config.dim)
        there = build(state, config)(x.permute(kernel).contiguous())[0, config.prefix :]
    grid = [(2, 3, 4)[axis] for axis in order]
    torch.testing.assert_close(there.view(*grid, config.dim), here.permute(*order, 3), atol=1e-4, rtol=1e-4)
    # and the channels matter: without moving them the tokens are others
    state["blocks.0.attention.qkv.weight"] = network.state_dict()["blocks.0.attention.qkv.weight"]
    with torch.no_grad():
        other = build(state, config)(x.permute(kernel).contiguous())[0, config.prefix :]
    assert (other - there).abs().max() > 1e-2


def test_one_slice_of_a_volume_turns_like_a_picture():
    """With one plane of patches its z angle is 0, and scores are those of a picture with the same periods."""
    generator = torch.Generator().manual_seed(0)
    flat, solid = geometric_periods(8, 2), geometric_periods(12, 3)
    assert torch.equal(flat, solid)
    q, k = torch.randn(2, 1, 1, 12, 8, generator=generator)
    angles_2d = patch_angles(patch_centres((3, 4)), flat)
    angles_3d = patch_angles(patch_centres((1, 3, 4)), solid)
    # channels of a 3-D head: (z, y, x) x 2 periods, twice; the picture's own are all but z
    keep = torch.tensor([2, 3, 4, 5, 8, 9, 10, 11])
    wide_q, wide_k = torch.zeros(2, 1, 1, 12, 12)
    wide_q[..., keep], wide_k[..., keep] = q, k
    here = rotate(q, angles_2d.cos(), angles_2d.sin()) @ rotate(k, angles_2d.cos(), angles_2d.sin()).mT
    there = rotate(wide_q, angles_3d.cos(), angles_3d.sin()) @ rotate(wide_k, angles_3d.cos(), angles_3d.sin()).mT
    torch.testing.assert_close(here, there)


def test_forward_blocks_gives_the_named_blocks_and_stops_there():
    network = drawn(FLAT)
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    first, last = network.forward_blocks(x, [0, 2])
    assert torch.equal(network.forward_blocks(x, [0])[0], first)
    assert torch.equal(network.norm(last), network(x))
    network.blocks[1] = None  # never reached when only block 0 is asked for
    assert torch.equal(network.forward_blocks(x, [0])[0], first)


@pytest.mark.parametrize("hidden_bytes", [1, 500, 2**20])
@pytest.mark.parametrize(
    ("config", "size"), [(FLAT, (12, 20)), (SOLID, (4, 8, 12)), (replace(FLAT, ffn="mlp"), (8, 8))]
)
def test_with_gradients_off_every_block_gives_the_same(monkeypatch, config, size, hidden_bytes):
    """In pieces of any size, and in place without touching the tokens of the block before."""
    network = drawn(config)
    x = torch.rand(2, config.channels, *size, generator=torch.Generator().manual_seed(1))
    slow = network.forward_blocks(x, range(config.depth))
    monkeypatch.setattr(vit, "FFN_BYTES", hidden_bytes)
    with torch.no_grad():
        fast = network.forward_blocks(x, range(config.depth))
    for here, there in zip(fast, slow, strict=True):
        torch.testing.assert_close(here, there.detach(), atol=2e-5, rtol=1e-5)


def test_every_parameter_learns():
    for config, size in [(FLAT, (8, 12)), (SOLID, (4, 8, 8)), (TABLED, (4, 8, 8))]:
        network = drawn(config).train()
        network(torch.rand(2, config.channels, *size)).square().sum().backward()
        assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_initial_weights_repeat_with_their_generator():
    first, second = ViT(FLAT), ViT(FLAT)
    first.init_weights(torch.Generator().manual_seed(3))
    second.init_weights(torch.Generator().manual_seed(3))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert first.blocks[0].scale1.eq(1e-5).all()
    assert first.norm.weight.eq(1).all()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 8, 10), r"sides \(8, 10\) are not multiples of the patch \(4, 4\)"),
        ((1, 3, 8, 2), r"for example to \(8, 4\)"),
        ((1, 3, 8, 8, 8), "an input with 3 axes was given to an encoder of 2 axes"),
        ((1, 1, 8, 8), "takes 3 channels, the input has 1"),
    ],
)
def test_wrong_inputs_are_refused(shape, message):
    with pytest.raises(ShapeError, match=message):
        ViT(FLAT)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 5}, "5 heads do not divide a token of 32"),
        ({"patch": (4,)}, "a patch has 2 or 3 axes"),
        ({"heads": 16}, "rotary positions over 2 axes need heads of at least 4 channels, these have 2"),
        ({"table_grid": (2, 2, 2)}, "differ in their number of axes"),
    ],
)
def test_impossible_configs_are_refused(change, message):
    with pytest.raises(ShapeError, match=message):
        replace(FLAT, **change)


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def encoder(config: ViTConfig, *, layer: int, norm: str, dtype: torch.dtype = torch.float32) -> VitEncoder:
    network = build_network(
        drawn(config).state_dict(), config, mean=MEAN, std=STD, device=torch.device("cpu"), dtype=dtype
    )
    spec = EncoderSpec(
        name="test", family=config.family, patch=config.patch, dim=config.dim, registers=config.registers, has_cls=True,
        channels=config.channels, mean=MEAN, std=STD, layer=layer, depth=config.depth, norm=norm,
        dtype="fp32" if dtype == torch.float32 else "bf16", licence="unknown", weights_sha256="0", source="test",
    )  # fmt: skip
    return VitEncoder(network, spec)


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(STD).view(-1, 1, 1)


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("norm", ["final", "none"])
def test_the_encoder_takes_pixels_and_gives_the_layer_and_norm_of_its_spec(layer, norm):
    network = drawn(FLAT)
    pixels = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    (tokens,) = network.forward_blocks(normalised(pixels), [layer])
    expected = split_tokens(network.norm(tokens) if norm == "final" else tokens, FLAT)
    given = encoder(FLAT, layer=layer, norm=norm)(pixels)
    for kind in ("patches", "cls", "registers"):
        torch.testing.assert_close(getattr(given, kind), getattr(expected, kind), atol=2e-5, rtol=1e-5)
        assert not getattr(given, kind).requires_grad


def test_folding_is_exact_where_it_can_be():
    """Powers of two: no rounding anywhere, so both ways agree to the last bit."""
    weight = torch.tensor([[[[1.0, 2.0], [4.0, -8.0]]]])
    folded, bias = fold_normalisation(weight, torch.tensor([0.5]), mean=(0.5,), std=(0.25,))
    assert torch.equal(folded, weight * 4)
    assert bias.item() == 0.5 - 0.5 * 4 * (1 + 2 + 4 - 8)


def test_folding_equals_normalising_first():
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(16, 3, 4, 4, generator=generator), torch.randn(16, generator=generator)
    pixels = torch.rand(2, 3, 4, 4, generator=generator)
    folded, shifted = fold_normalisation(weight, bias, mean=MEAN, std=STD)
    here = torch.einsum("bchw,dchw->bd", pixels, folded) + shifted
    there = torch.einsum("bchw,dchw->bd", normalised(pixels), weight) + bias
    torch.testing.assert_close(here, there, atol=2e-5, rtol=1e-5)


def test_bf16_keeps_all_but_the_linears_of_blocks_in_float32_and_tokens_too():
    coarse = encoder(FLAT, layer=2, norm="final", dtype=torch.bfloat16)
    dtypes = {name: p.dtype for name, p in coarse.network.named_parameters()}
    coarse_ones = {name for name, dtype in dtypes.items() if dtype == torch.bfloat16}
    assert coarse_ones == {name for name in dtypes if "attention" in name or "ffn" in name}
    tokens = coarse(torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1)))
    assert tokens.patches.dtype == tokens.cls.dtype == tokens.registers.dtype == torch.float32


def test_the_encoder_multiplies_by_the_fast_setting_of_its_device(monkeypatch):
    inside = []

    @contextmanager
    def seen(device):
        inside.append(str(device))
        yield
        inside.append("over")

    monkeypatch.setattr(vit_encoder, "fast_float32", seen)
    one = encoder(FLAT, layer=2, norm="final")
    one.network.blocks[2].register_forward_hook(lambda *_: inside.append("block"))
    one(torch.zeros(1, 3, 8, 8))
    assert inside == ["cpu", "block", "over"]


def test_the_encoder_owns_its_weights():
    state = drawn(FLAT).state_dict()
    network = build_network(state, FLAT, mean=MEAN, std=STD, device=torch.device("cpu"), dtype=torch.float32)
    before = network.norm.weight.clone()
    state["norm.weight"].zero_()
    assert torch.equal(network.norm.weight, before)
    assert not any(p.requires_grad for p in network.parameters())
