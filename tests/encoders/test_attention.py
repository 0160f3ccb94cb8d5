"""Attention in blocks, picture by picture, against torch's kernel in float64; which of the two is chosen, and when."""

import pytest
import torch
import torch.nn.functional as F

from patchatlas.encoders import attention
from patchatlas.encoders.attention import attend, attend_blockwise, blocks_win, products_win
from patchatlas.encoders.rope import rotate

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}
"""Values are about 1. bfloat16 rounds to 1 part in 256, weights and result."""


def drawn(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def exact(q, k, v):
    return F.scaled_dot_product_attention(q.double(), k.double(), v.double())


@pytest.fixture
def every_block_path(monkeypatch):
    """Blocks wherever they are allowed, whatever this CPU has."""
    monkeypatch.setattr(attention, "_has_slow_bf16_kernel", lambda: True)
    monkeypatch.setattr(attention, "onednn_is_float32", lambda: True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("scores", "rows"), [(2**20, 128), (500, 4), (90, 128), (37, 1), (1, 1)])
def test_blocks_of_any_size_give_what_torch_gives(monkeypatch, dtype, scores, rows):
    monkeypatch.setattr(attention, "BLOCK_SCORES", scores)
    monkeypatch.setattr(attention, "BLOCK_ROWS", rows)
    q, k, v = drawn(3, 5, 13, 20, dtype=dtype)
    with torch.no_grad():
        given = attend_blockwise(q, k, v)
    assert given.dtype == dtype
    torch.testing.assert_close(given.double(), exact(q, k, v), atol=TOLERANCE[dtype], rtol=0)


def test_large_scores_do_not_overflow():
    q, k, v = drawn(3, 2, 70, 16)
    with torch.no_grad():
        given = attend_blockwise(q * 100, k * 100, v)
    torch.testing.assert_close(given.double(), exact(q * 100, k * 100, v), atol=1e-3, rtol=0)


@pytest.mark.usefixtures("every_block_path")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("tokens", [20, 70])
@pytest.mark.parametrize("batch", [1, 3])
def test_gradients_on_or_off_give_the_same(dtype, turned, tokens, batch):
    qkv = drawn(batch, tokens, 3, 4, 16, dtype=dtype)
    angles = drawn(tokens, 7, seed=1)
    table = (angles.cos(), angles.sin()) if turned else None
    slow = attend(qkv, table)
    with torch.no_grad():
        fast = attend(qkv, table)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    if table is not None:
        q, k = rotate(q, *table), rotate(k, *table)
    expected = exact(q, k, v).transpose(1, 2).flatten(2)
    for given in (slow, fast):
        assert given.dtype == dtype
        torch.testing.assert_close(given.double(), expected, atol=TOLERANCE[dtype], rtol=0)


@pytest.mark.usefixtures("every_block_path")
def test_blocks_are_for_single_pictures_of_some_size_without_gradients():
    def asked(batch, tokens, dtype):
        return blocks_win(torch.empty(batch, 2, tokens, 4, dtype=dtype))

    with torch.no_grad():
        assert asked(1, 64, torch.bfloat16)
        assert asked(1, 4000, torch.bfloat16)
        assert asked(1, 64, torch.float32)
        assert asked(1, 767, torch.float32)
        assert not asked(1, 768, torch.float32)
        assert not asked(1, 63, torch.bfloat16)
        assert not asked(2, 64, torch.bfloat16)
        assert not asked(1, 64, torch.float16)
        assert not blocks_win(torch.empty(1, 2, 64, 4, device="meta"))
    assert not asked(1, 64, torch.bfloat16)


@pytest.mark.usefixtures("every_block_path")
@pytest.mark.parametrize("tokens", [20, 256, 257])
def test_gradients_are_those_of_the_exact_formula(tokens):
    qkv = drawn(2, tokens, 3, 2, 8, dtype=torch.bfloat16).requires_grad_()
    wanted = drawn(2, tokens, 16, seed=2)
    assert products_win(qkv.permute(2, 0, 3, 1, 4)[0]) is (tokens <= 256)
    (given,) = torch.autograd.grad((attend(qkv, None) * wanted).sum(), qkv)
    whole = qkv.detach().double().requires_grad_()
    mixed = exact(*whole.permute(2, 0, 3, 1, 4)).transpose(1, 2).flatten(2)
    (expected,) = torch.autograd.grad((mixed * wanted.double()).sum(), whole)
    torch.testing.assert_close(given.double(), expected, atol=0.03, rtol=0.03)


@pytest.mark.usefixtures("every_block_path")
def test_products_are_for_few_tokens_with_gradients():
    few = torch.empty(2, 2, 64, 4, dtype=torch.bfloat16)
    assert products_win(few)
    assert not products_win(few.float())
    assert not products_win(few.to("meta"))
    with torch.no_grad():
        assert not products_win(few)


@pytest.mark.parametrize(
    ("capabilities", "slow"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, True),
        ({"avx512_bf16": True, "amx_bf16": True}, False),
        ({"avx512_bf16": False}, False),
        ({"architecture": "aarch64"}, False),
    ],
)
def test_torchs_bf16_kernel_is_slow_without_matrix_units(monkeypatch, capabilities, slow):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert attention._has_slow_bf16_kernel.__wrapped__() is slow
