"""Self-attention of a ViT: softmax(q k^T / sqrt(e)) v for every head, q and k turned, in the way that is fastest here.

`attend` is one call of torch's scaled_dot_product_attention, except where it was measured to lose (docs/benchmarks.md):

* On CPUs, without gradients, pictures are taken one at a time, so that turned queries and keys stay in the cache.
* There, two matrix products and a softmax over blocks of queries can beat torch's kernel: 1.3 to 1.6 times in float32
  at 201 to 521 tokens (below 768 torch takes 64 queries at a time), if oneDNN multiplies (`matmul.py`); 1.6 to 1.8
  times in bfloat16 at 201 to 3141 tokens on a CPU with AVX512-BF16 and no AMX, where torch's kernel runs at float32
  speed. In bfloat16 the scores are rounded before the softmax, which itself is float32 inside.
* On such a CPU, with gradients, two products over the whole batch beat torch's bfloat16 kernel for crops of training.

Axes: b batch, t tokens, m heads, e channels of a head, a angles.
"""

import math
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from patchatlas.encoders.matmul import onednn_is_float32
from patchatlas.encoders.rope import Table, rotate

BLOCKWISE_TOKENS = 64
"""From here on blocks can beat torch's kernel (with 6 and 12 heads in bfloat16: equal at 54 tokens, 1.4x at 69)."""

FLOAT32_TOKENS = 768
"""From here on torch takes 256 queries at a time (ATen's FlashAttentionKernel.cpp) and is not beaten in float32."""

TRAINED_TOKENS = 256
"""Up to here two products are taken with gradients (0.26 of the kernel's time forward and backward at 69 tokens, 0.5 at
201); they hold all scores, so not for many more."""

BLOCK_ROWS = 128
"""Queries of a block at least, where there are as many: fewer make thin matrix products."""

BLOCK_SCORES = 2**20
"""Scores of a block at most, 2 or 4 MiB: four times as many were up to 1.5x slower."""


def attend(qkv: Float[Tensor, "b t 3 m e"], table: Table | None) -> Float[Tensor, "b t m*e"]:
    """Values mixed by attention, heads side by side; queries and keys are turned by `table` where there is one."""
    if qkv.device.type == "cpu" and not torch.is_grad_enabled():
        mixed = qkv.new_empty(*qkv.shape[:2], *qkv.shape[3:])
        for picture, into in zip(qkv.split(1), mixed.split(1), strict=True):
            into.copy_(_attend_at_once(picture, table))
        return mixed.flatten(2)
    return _attend_at_once(qkv, table).flatten(2)


def _attend_at_once(qkv: Tensor, table: Table | None) -> Tensor:  # (b, t, 3, m, e) -> (b, t, m, e)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (b, m, t, e)
    if table is not None:
        q, k = rotate(q, *table), rotate(k, *table)
    if blocks_win(q):
        return attend_blockwise(q[0], k[0], v[0])[None].transpose(1, 2)
    if products_win(q):
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        mixed: Tensor = scores.softmax(-1, dtype=torch.float32).to(v.dtype) @ v
        return mixed.transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def products_win(q: Float[Tensor, "b m t e"]) -> bool:
    """Whether, with gradients, plain matrix products were measured to be faster for such queries on such a machine."""
    few = q.shape[2] <= TRAINED_TOKENS and torch.is_grad_enabled()
    return few and q.device.type == "cpu" and q.dtype == torch.bfloat16 and _has_slow_bf16_kernel()


def blocks_win(q: Float[Tensor, "b m t e"]) -> bool:
    """Whether `attend_blockwise` was measured to be faster for such queries on such a machine."""
    if q.device.type != "cpu" or torch.is_grad_enabled() or q.shape[0] != 1 or q.shape[2] < BLOCKWISE_TOKENS:
        return False
    if q.dtype == torch.float32:
        return q.shape[2] < FLOAT32_TOKENS and onednn_is_float32()
    return q.dtype == torch.bfloat16 and _has_slow_bf16_kernel()


@cache
def _has_slow_bf16_kernel() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16")) and not capabilities.get("amx_bf16")


def attend_blockwise(
    q: Float[Tensor, "m t e"], k: Float[Tensor, "m t e"], v: Float[Tensor, "m t e"]
) -> Float[Tensor, "m t e"]:
    """Attention of one picture in blocks of heads and queries, so that the scores of a block stay in the cache.

    Needs gradients to be off: the buffer of scores is used again and again.
    """
    heads, tokens, channels = v.shape
    v, k = v.contiguous(), k.transpose(1, 2)
    mixed = torch.empty_like(v)
    groups = math.ceil(heads / max(1, BLOCK_SCORES // (min(tokens, BLOCK_ROWS) * tokens)))
    for qs, ks, vs, into in zip(*(whole.chunk(groups) for whole in (q, k, v, mixed)), strict=True):
        blocks = math.ceil(len(qs) * tokens * tokens / BLOCK_SCORES)
        for rows, out in zip(qs.chunk(blocks, 1), into.chunk(blocks, 1), strict=True):
            scores = q.new_empty(len(qs), rows.shape[1], tokens)
            torch.baddbmm(scores, rows, ks, beta=0, alpha=channels**-0.5, out=scores)
            torch.softmax(scores, -1, out=scores)
            out.copy_(scores @ vs)
    return mixed
