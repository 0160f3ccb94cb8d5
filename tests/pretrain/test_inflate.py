"""A network for volumes from one for pictures: what stays exactly, and what the rotary pairs do."""

import itertools

import pytest
import torch

from patchatlas.encoders.rope import Rope, geometric_periods, rotate
from patchatlas.encoders.vit import ViT, ViTConfig
from patchatlas.errors import UsageError
from patchatlas.pretrain.inflate import channel_order, inflate, inflate_patches


def flat(**changes) -> ViT:
    settings = {"family": "dinov2", "patch": (4, 4), "dim": 48, "depth": 2, "heads": 2, "ffn_hidden": 64}
    network = ViT(ViTConfig(**settings | {"table_grid": (3, 3), "registers": 1} | changes))
    network.init_weights(torch.Generator().manual_seed(0), layer_scale=0.5)
    return network.eval()


def deep(network: ViT, **options) -> ViT:
    state, config = inflate(network.state_dict(), network.config, **options)
    made = ViT(config)
    made.load_state_dict(state)
    return made.eval()


@torch.no_grad()
def test_a_volume_of_equal_slices_one_patch_deep_gets_what_its_slice_gets():
    network = flat()
    slice_ = torch.randn(2, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    wanted = network(slice_.expand(-1, 3, -1, -1))
    volume = slice_[:, :, None].expand(-1, -1, 5, -1, -1)
    found = deep(network, patch=(5, 4, 4), grey="sum")(volume)
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)


def test_mean_is_a_third_of_sum_in_three_colours():
    weight = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    mean, total = (inflate_patches(weight, patch=(2, 4, 4), grey=grey) for grey in ("mean", "sum"))
    torch.testing.assert_close(3 * mean, total)
    torch.testing.assert_close(total[:, 0].sum(1), weight.sum(1))


@pytest.mark.parametrize("size", [(2, 2), (8, 8), (3, 6)])
def test_another_patch_keeps_the_answer_to_an_even_picture(size):
    weight = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    made = inflate_patches(weight, patch=(3, *size), grey="sum")
    assert made.shape == (5, 1, 3, *size)
    torch.testing.assert_close(made.sum((1, 2, 3, 4)), weight.sum((1, 2, 3)), atol=1e-5, rtol=1e-5)


def test_heads_of_64_channels_keep_ten_periods_of_each_axis():
    periods = geometric_periods(64, 2)
    order = channel_order(periods, geometric_periods(64, 3), 64)
    assert sorted(order) == list(range(64))
    rows = order[10:20]
    assert rows == [0, 2, 3, 5, 6, 8, 10, 11, 13, 14]
    assert order[20:30] == [16 + i for i in rows]  # columns: the second axis of pictures
    for i, j in itertools.product(range(30), [30]):
        assert order[i + j] == order[i] + 32  # pairs stay pairs
    assert set(order[60:]) == {15, 31, 15 + 32, 31 + 32}  # the longest periods turn with nothing


@torch.no_grad()
def test_order_changes_no_product_of_queries_and_keys():
    network = flat(family="dinov3", table_grid=None, dim=128, heads=2)
    made = deep(network, patch=(4, 4, 4))
    x = torch.randn(1, 7, 128, generator=torch.Generator().manual_seed(4))
    for old, new in zip(network.blocks, made.blocks, strict=True):
        torch.testing.assert_close(new.attention(x, None), old.attention(x, None), atol=1e-6, rtol=1e-5)


def test_pairs_turn_with_rows_and_columns_nearly_as_they_did():
    """Products of queries and keys in the channels that keep their axis, over one slice; a random order is far off."""
    old, new = Rope(64, 2, prefix=0, base=100.0), Rope(64, 3, prefix=0, base=100.0)
    order = channel_order(old.periods, new.periods, 64)
    kept = torch.zeros(64)
    kept[[c for i in order[10:30] for c in (i, i + 32)]] = 1
    generator = torch.Generator().manual_seed(6)
    q, k = (torch.randn(1, 1, 36, 64, generator=generator) * kept for _ in range(2))
    wanted = rotate(q, *old((6, 6))) @ rotate(k, *old((6, 6))).mT

    def off(channels):
        turned = [rotate(x[..., channels], *new((1, 6, 6))) for x in (q, k)]
        return float((turned[0] @ turned[1].mT - wanted).norm() / wanted.norm())

    assert off(order) < 0.3
    assert off(torch.randperm(64, generator=generator)) > 1


def test_what_is_for_volumes_already_is_refused():
    network = flat()
    state, config = inflate(network.state_dict(), network.config, patch=(4, 4, 4))
    with pytest.raises(UsageError, match="for volumes already"):
        inflate(state, config, patch=(4, 4, 4))


@pytest.mark.parametrize("head_dim", [6, 10, 12, 18, 20, 32, 64, 72, 128])
def test_every_channel_of_any_head_has_its_place(head_dim):
    flat_periods, deep_periods = geometric_periods(head_dim, 2), geometric_periods(head_dim, 3)
    assert sorted(channel_order(flat_periods, deep_periods, head_dim)) == list(range(head_dim))
