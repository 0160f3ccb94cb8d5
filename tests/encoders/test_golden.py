"""Our ViT gives Meta's numbers: every model, size and output of tests/golden/dino."""

import pytest
import torch
from safetensors.torch import load_file

from patchatlas.encoders.positions import resample_table
from patchatlas.encoders.rope import Rope, geometric_periods, rotate
from tests.encoders.dino_reference import FOLDER, MODELS, TOLERANCE, build, distances, ours, reference


@pytest.mark.parametrize("name", MODELS)
def test_every_output_of_every_size_is_metas(name):
    ref = reference(name)
    found = distances(build(*ours(name)), ref)
    expected = {key for key in ref.outputs if not key.endswith("/input")}
    assert found.keys() == expected
    assert {key: value for key, value in found.items() if not value <= TOLERANCE} == {}


ROPE = load_file(FOLDER / "dinov3_rope_only.safetensors")


@pytest.mark.parametrize("key", sorted(key.removesuffix("/sin") for key in ROPE if key.endswith("/sin")))
def test_rotary_tables_are_metas(key):
    kind, size = key.split("/")
    periods = ROPE[f"{kind}/periods"]
    rope = Rope(4 * len(periods), 2, prefix=5, base=100.0)
    rope.load_state_dict({"periods": periods})
    cos, sin = rope(tuple(int(side) for side in size.split("x")))
    # Meta stores every angle twice, once for each half of the head.
    torch.testing.assert_close(cos[5:].repeat(1, 2), ROPE[f"{key}/cos"], atol=1.5e-5, rtol=0)
    torch.testing.assert_close(sin[5:].repeat(1, 2), ROPE[f"{key}/sin"], atol=1.5e-5, rtol=0)


@pytest.mark.parametrize("head_dim", sorted({int(k.split("_")[0][2:]) for k in ROPE if "fp32" in k}))
def test_periods_are_computed_as_meta_does(head_dim):
    torch.testing.assert_close(geometric_periods(head_dim, 2), ROPE[f"dh{head_dim}_fp32/periods"], atol=1e-5, rtol=1e-6)


POSITIONS = load_file(FOLDER / "dinov2_posembed_only.safetensors")


@pytest.mark.parametrize("key", sorted(key for key in POSITIONS if "/" in key))
def test_resampled_position_tables_are_metas(key):
    rule, size = key.split("/")
    table = POSITIONS["pos_embed"][0, 1:].reshape(37, 37, 4)
    grid = tuple(int(side) for side in size.split("x"))
    given = resample_table(table, grid, offset=0.1 if rule == "noreg" else 0.0, antialias=rule == "reg")
    torch.testing.assert_close(given, POSITIONS[key][0, 1:], atol=1.5e-5, rtol=0)


def test_bf16_keeps_the_direction_of_every_token():
    """On random weights at depth 12, all tokens, class and registers too, with linears in bf16 against float32."""
    from patchatlas.encoders.vit import ViT, ViTConfig, dtype_of

    generator = torch.Generator().manual_seed(0)
    config = ViTConfig(family="dinov3", patch=(16, 16), dim=384, depth=12, heads=6, registers=4, ffn_hidden=1536)
    network = ViT(config)
    network.init_weights(generator, layer_scale=1.0)
    network.eval()
    pixels = torch.randn(1, 3, 96, 64, generator=generator)
    with torch.no_grad():
        exact = network(pixels)
        rounded = {key: value.to(dtype_of(key, torch.bfloat16)) for key, value in network.state_dict().items()}
        coarse = build(rounded, config)(pixels)
    assert coarse.dtype == torch.float32
    assert torch.cosine_similarity(exact, coarse, dim=-1).min() >= 0.9999
    assert not torch.equal(exact, coarse)


def test_rotation_leaves_lengths_and_the_rest_alone():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 7, 10, generator=generator)
    angles = torch.randn(7, 4, generator=generator)
    turned = rotate(x, angles.cos(), angles.sin())
    torch.testing.assert_close(turned[..., 8:], x[..., 8:])
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    first = x[1, 2, 3, 1] * angles[3, 1].cos() - x[1, 2, 3, 5] * angles[3, 1].sin()
    torch.testing.assert_close(turned[1, 2, 3, 1], first)
