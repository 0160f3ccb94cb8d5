"""The network in training: what is hidden, what is skipped, and that a plain pass is inference."""

import pytest
import torch

from patchatlas.encoders.vit import ViTConfig
from patchatlas.pretrain.settings import HeadConfig
from patchatlas.pretrain.student import Chance, Network, Pass, begin

HEAD = HeadConfig(prototypes=8, hidden=12, bottleneck=6)


def tiny(**changes) -> Network:
    settings = {"family": "vit3d", "patch": (4, 4, 4), "channels": 1, "dim": 32, "depth": 2, "heads": 2}
    network = begin(ViTConfig(**settings | {"ffn_hidden": 48, "registers": 2}), dino=HEAD, ibot=HEAD, seed=0, **changes)
    with torch.no_grad():
        network.mask_token.normal_(generator=torch.Generator().manual_seed(1))
    return network


def drawn(*shape: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def chance(drop_path: float = 0.0, rope_rescale: float = 1.0, seed: int = 0) -> Chance:
    return Chance(drop_path=drop_path, rope_rescale=rope_rescale, generator=torch.Generator().manual_seed(seed))


def test_a_plain_pass_is_the_encoder():
    network = tiny()
    x = drawn(3, 1, 8, 12, 8)
    with torch.no_grad():
        tokens = network.vit(x)
        (seen,) = network(Pass(x=x))
    torch.testing.assert_close(seen.cls, tokens[:, 0])
    torch.testing.assert_close(seen.patches, tokens[:, 3:])  # the class token and two registers before
    (learning,) = network(Pass(x=x, chance=chance()))
    torch.testing.assert_close(learning.patches, tokens[:, 3:], atol=1e-5, rtol=1e-4)


def test_what_is_hidden_cannot_be_seen():
    network = tiny()
    x = drawn(2, 1, 8, 8, 8)
    hidden = torch.zeros(2, 8, dtype=torch.bool)
    hidden[0, 0] = True  # the first patch of the first crop
    other = x.clone()
    other[0, :, :4, :4, :4] = 9
    (one,), (two,) = (network(Pass(x=given, hidden=hidden, asked=hidden)) for given in (x, other))
    assert torch.equal(one.patches, two.patches)
    assert torch.equal(one.patch_logits, network.ibot_head(one.patches[0, :1]))
    (bare,) = network(Pass(x=x))
    assert not torch.equal(bare.patches[0], one.patches[0])
    assert torch.equal(bare.patches[1], one.patches[1])


def test_crops_of_several_sizes_go_together():
    network = tiny()
    large, small = network(Pass(x=drawn(2, 1, 8, 8, 8)), Pass(x=drawn(3, 1, 4, 4, 4)))
    assert (large.patches.shape, small.patches.shape) == ((2, 8, 32), (3, 1, 32))
    assert large.cls_logits.shape == (2, 8)
    assert small.patch_logits is None


def test_half_of_a_batch_skips_a_branch_and_the_mean_stays():
    network = tiny()
    block = network.vit.blocks[0]
    x = drawn(4, 5, 32)
    kept = torch.tensor([1, 3])
    everyone = torch.arange(4)
    whole = block(x, None)
    part = block(x, None, (kept, kept))
    assert torch.equal(part[[0, 2]], x[[0, 2]])
    first = torch.zeros(4, 1, 1).index_fill_(0, kept, 2.0)
    attended = x + first * block.attention(block.norm1(x), None)
    torch.testing.assert_close(part, attended + first * block.ffn(block.norm2(attended)))
    torch.testing.assert_close(block(x, None, (everyone, everyone)), whole)


def test_chance_comes_from_the_generator():
    network = tiny()
    x = drawn(4, 1, 8, 8, 8)
    one, again, other = (network(Pass(x=x, chance=chance(0.5, 2.0, seed)))[0].cls for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_computing_blocks_again_changes_nothing(drop_path):
    gradients = []
    for checkpointing in (False, True):
        network = tiny(checkpointing=checkpointing)
        (seen,) = network(Pass(x=drawn(4, 1, 8, 8, 8), chance=chance(drop_path, 2.0)))
        seen.cls_logits.square().sum().backward()
        gradients.append({name: p.grad for name, p in network.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


def test_without_layer_scale_its_factors_are_one_and_do_not_learn():
    network = tiny()
    scales = [p for name, p in network.named_parameters() if name.endswith(("scale1", "scale2"))]
    assert all((p == 1).all() and not p.requires_grad for p in scales)
    learning = tiny(layer_scale=1e-2)
    scales = [p for name, p in learning.named_parameters() if name.endswith(("scale1", "scale2"))]
    assert all((p == 1e-2).all() and p.requires_grad for p in scales)


def test_heads_of_64_channels_turn_over_three_axes():
    """Defect 14 of the earlier project: its rotary positions needed heads that are a multiple of 6."""
    vit = ViTConfig(family="vit3d", patch=(4, 4, 4), channels=1, dim=128, depth=1, heads=2, ffn_hidden=64)
    network = begin(vit, dino=HEAD, ibot=None, seed=0)
    assert network.vit.rope.periods.shape == (10,)
    assert network(Pass(x=drawn(1, 1, 8, 8, 8)))[0].patches.isfinite().all()
