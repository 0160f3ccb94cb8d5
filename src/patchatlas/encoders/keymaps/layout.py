"""What all key maps share: renaming by rule, joining split linears, reading the shape of the network, strict checking.

A key map turns the state dict of another project into ours in three steps: `rename` (every key by an explicit rule,
ignored by an explicit rule, or left over), `join` (query, key, value into one linear; gate and value into one
linear), and `describe` (a `ViTConfig` from the shapes). `require_complete` then compares with what a network of that
config has.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from patchatlas.encoders.vit import ViT, ViTConfig
from patchatlas.errors import WeightsError

State = dict[str, Tensor]

RELEASED_HEADS = {384: 6, 768: 12, 1024: 16, 1280: 20, 1536: 24, 4096: 32}
"""Heads by token length in all released DINOv2 and DINOv3 ViTs: 64 channels a head, 128 in the 7B (hub entry points of
facebookresearch/dinov2 at b8931f7 and dinov3 at 6876159)."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a file beside the weights, or the user, says of a network and shapes cannot.

    Attributes:
        heads: attention heads.
        norm_eps: epsilon of the LayerNorms.
        rope_base: ratio that the rotary periods span.
    """

    heads: int | None = None
    norm_eps: float | None = None
    rope_base: float | None = None


def rename(state: Mapping[str, Tensor], *, rules: Mapping[str, str], ignored: Sequence[str]) -> tuple[State, list[str]]:
    r"""Rename every key by the first rule that matches it whole.

    Args:
        rules: regular expression -> replacement (with `\1` for groups).
        ignored: regular expressions of keys that inference never reads.

    Returns:
        The renamed tensors, and the keys that no rule knows.
    """
    renamed: State = {}
    left_over = []
    for key, value in state.items():
        if any(re.fullmatch(pattern, key) for pattern in ignored):
            continue
        for pattern, replacement in rules.items():
            match = re.fullmatch(pattern, key)
            if match:
                renamed[match.expand(replacement)] = value
                break
        else:
            left_over.append(key)
    return renamed, left_over


def join(state: State) -> State:
    """Put `attention.{q,k,v}` into `attention.qkv` and `ffn.{gate,value}` into `ffn.up`, block by block.

    A key bias that is absent beside query and value biases is zero. Sets that are not whole stay as they are, for
    `require_complete` to name.
    """
    joined = dict(state)
    for first in [
        key for key in state if key.endswith((".attention.q.weight", ".attention.q.bias", ".ffn.gate.weight"))
    ]:
        if ".attention.q." in first:
            names = [first.replace(".attention.q.", f".attention.{part}.") for part in "qkv"]
            whole = first.replace(".attention.q.", ".attention.qkv.")
            if first.endswith("bias") and names[1] not in state:
                joined[names[1]] = torch.zeros_like(state[first])
            _join_into(joined, names, whole)
        else:
            for kind in ("weight", "bias"):
                stem = first.removesuffix("gate.weight")
                _join_into(joined, [f"{stem}gate.{kind}", f"{stem}value.{kind}"], f"{stem}up.{kind}")
    return joined


def _join_into(state: State, names: list[str], whole: str) -> None:
    if all(name in state for name in names):
        state[whole] = torch.cat([state.pop(name) for name in names])


def square_table(table: Tensor) -> Tensor:
    """A position table (1, n, d) or (n, d) as (rows, columns, d); only square ones were ever released.

    Raises:
        WeightsError: n is not a square number.
    """
    cells, dim = table.shape[-2:]
    side = math.isqrt(cells)
    if side * side != cells:
        raise WeightsError(
            f"the position table has {cells} cells, which make no square grid; these weights are not known"
        )
    return table.reshape(side, side, dim)


def describe(state: State, facts: Facts, *, family: str) -> ViTConfig:
    """The config that the shapes of a renamed and joined state dict tell, with `facts` where they cannot.

    Raises:
        WeightsError: a tensor that the config is read from is absent or has no sensible shape.
    """
    needed = ["cls_token", "patch_embed.weight", "blocks.0.ffn.up.weight", "blocks.0.ffn.down.weight"]
    absent = [key for key in needed if key not in state]
    if absent:
        raise WeightsError(f"the weights lack {', '.join(absent)} (our names), without which no ViT can be built")
    weight = state["patch_embed.weight"]
    if weight.ndim not in (4, 5):
        raise WeightsError(
            f"the patch embedding has shape {tuple(weight.shape)}; 4 axes (pictures) or 5 (volumes) expected"
        )
    dim = weight.shape[0]
    patch = tuple(weight.shape[2:])
    hidden = state["blocks.0.ffn.down.weight"].shape[1]
    registers = state["registers"].shape[0] if "registers" in state else 0
    periods = state.get("rope.periods")
    positions = state.get("positions")
    return ViTConfig(
        family=family,
        patch=patch,
        channels=weight.shape[1],
        dim=dim,
        depth=1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks.")),
        heads=_heads(dim, facts.heads, periods, ndim=len(patch)),
        registers=registers,
        ffn="swiglu" if state["blocks.0.ffn.up.weight"].shape[0] == 2 * hidden else "mlp",
        ffn_hidden=hidden,
        qkv_bias="blocks.0.attention.qkv.bias" in state,
        norm_eps=facts.norm_eps or {"dinov2": 1e-6, "dinov3": 1e-5}[family],
        table_grid=None if positions is None else tuple(positions.shape[:-1]),
        table_offset=0.1 if family == "dinov2" and not registers else 0.0,
        table_antialias=family == "dinov2" and registers > 0,
        rope_base=facts.rope_base or 100.0,
    )


def _heads(dim: int, heads: int | None, periods: Tensor | None, *, ndim: int) -> int:
    if periods is not None:
        told = dim // (2 * ndim * periods.shape[0])
        if heads is not None and heads != told:
            raise WeightsError(f"heads={heads} was asked, but the rotary periods in the file are those of {told} heads")
        return told
    if heads is not None:
        return heads
    if dim in RELEASED_HEADS:
        return RELEASED_HEADS[dim]
    raise WeightsError(
        f"nothing tells how many attention heads these weights have, and no released model has tokens of {dim}; keep "
        "config.json beside the file, or pass heads= (weights check and convert: --heads)"
    )


def require_complete(state: State, config: ViTConfig, *, left_over: Sequence[str], layout: str) -> None:
    """Refuse a state dict unless it has every tensor of a network of `config`, of its shape, and nothing else.

    Raises:
        WeightsError: naming what is missing, left over or of another shape.
    """
    with torch.device("meta"):
        wanted = {key: tuple(value.shape) for key, value in ViT(config).state_dict().items()}
    complaints = [
        _complaint("missing", [key for key in wanted if key not in state]),
        _complaint("left over", [*left_over, *(key for key in state if key not in wanted)]),
        _complaint(
            "of another shape",
            [
                f"{key} {tuple(state[key].shape)}, not {shape}"
                for key, shape in wanted.items()
                if key in state and tuple(state[key].shape) != shape
            ],
        ),
    ]
    if any(complaints):
        raise WeightsError(
            f"the weights look like the {layout} layout but do not fit it: {'; '.join(filter(None, complaints))}. "
            "Is this a backbone, whole, and unaltered?"
        )


def _complaint(what: str, names: Sequence[str], *, shown: int = 8) -> str:
    if not names:
        return ""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"{what}: {', '.join(names[:shown])}{more}"
