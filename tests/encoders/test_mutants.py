"""Eighteen typical mistakes, planted one at a time: the golden comparison must see each of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from patchatlas.encoders import attention, keymaps, rope, vit
from patchatlas.encoders.keymaps.layout import Facts
from patchatlas.encoders.vit import ViTConfig
from tests.encoders.dino_reference import DINOV2, DINOV3, TOLERANCE, build, distances, reference

GATED = tuple(name for name in DINOV2 + DINOV3 if "swiglu" in name or "7b" in name)
PLAIN = tuple(name for name in DINOV2 + DINOV3 if name not in GATED)
SMALL_STREAM = tuple(name for name in DINOV2 + DINOV3 if reference(name).facts["residual_stream_scale"] < 1)
NO_REGISTERS = tuple(name for name in DINOV2 if "noreg" in name)
WITH_REGISTERS = tuple(name for name in DINOV2 if "noreg" not in name)
WITH_LOCAL_NORM = tuple(name for name in DINOV3 if "local_cls_norm.weight" in reference(name).weights)
MASKED = tuple(name for name in DINOV3 if "blocks.0.attn.qkv.bias_mask" in reference(name).weights)

State = dict[str, Tensor]


@contextmanager
def patched(target: Any, name: str, replacement: Any) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, name, replacement)
        yield


def centres_scaled_by(pick: Callable[[tuple[int, ...]], int]) -> Callable[[tuple[int, ...]], Tensor]:
    """Patch centres divided by one side for both axes."""

    def centres(grid: tuple[int, ...]) -> Tensor:
        axes = [2 * (torch.arange(side) + 0.5) / pick(grid) - 1 for side in grid]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1)

    return centres


ORIGINAL_CENTRES = rope.patch_centres
ORIGINAL_FORWARD = rope.Rope.forward


def rotate_interleaved(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x[..., 0::2], x[..., 1::2]
    return torch.stack((first * cos - second * sin, second * cos + first * sin), dim=-1).flatten(-2)


def value_before_gate(self: vit.SwiGLU, x: Tensor) -> Tensor:
    value, gate = self.up(x).chunk(2, dim=-1)
    return self.down(F.silu(gate) * value)


ORIGINAL_GELU = F.gelu

PATCHES: dict[str, tuple[tuple[str, ...], Callable[[], Any]]] = {
    "rope: grid transposed": (DINOV3, lambda: patched(rope.Rope, "forward", lambda s, g: ORIGINAL_FORWARD(s, g[::-1]))),
    "rope: x before y": (DINOV3, lambda: patched(rope, "patch_centres", lambda g: ORIGINAL_CENTRES(g).flip(1))),
    "rope: interleaved pairs": (DINOV3, lambda: patched(attention, "rotate", rotate_interleaved)),
    "rope: left out": (DINOV3, lambda: patched(attention, "rotate", lambda x, *_: x)),
    "rope: normalised by max": (DINOV3, lambda: patched(rope, "patch_centres", centres_scaled_by(max))),
    "rope: normalised by min": (DINOV3, lambda: patched(rope, "patch_centres", centres_scaled_by(min))),
    "swiglu: gate and value swapped": (GATED, lambda: patched(vit.SwiGLU, "forward", value_before_gate)),
    "gelu: tanh": (PLAIN, lambda: patched(F, "gelu", lambda x: ORIGINAL_GELU(x, approximate="tanh"))),
}


def other_periods(state: State) -> State:
    periods = state["rope_embed.periods"]
    rounded = periods.bfloat16().float()
    exact = rope.geometric_periods(4 * len(periods), 2)
    return {**state, "rope_embed.periods": exact if torch.equal(rounded, periods) else rounded}


def local_norm(state: State) -> State:
    return {
        **state,
        "norm.weight": state["local_cls_norm.weight"],
        "norm.bias": state["local_cls_norm.bias"],
    }


def without_masks(state: State) -> State:
    return {key: value for key, value in state.items() if not key.endswith("bias_mask")}


WEIGHTS: dict[str, tuple[tuple[str, ...], Callable[[State], State]]] = {
    "periods: fp32 for bf16 and back": (DINOV3, other_periods),
    "norm: local_cls_norm": (WITH_LOCAL_NORM, local_norm),
    "bias mask: ignored": (MASKED, without_masks),
}

CONFIGS: dict[str, tuple[tuple[str, ...], Callable[[ViTConfig], ViTConfig]]] = {
    "v3 eps 1e-6": (tuple(set(SMALL_STREAM) & set(DINOV3)), lambda c: replace(c, norm_eps=1e-6)),
    "v2 eps 1e-5": (tuple(set(SMALL_STREAM) & set(DINOV2)), lambda c: replace(c, norm_eps=1e-5)),
    "no registers: antialias on": (NO_REGISTERS, lambda c: replace(c, table_antialias=True)),
    "no registers: offset 0": (NO_REGISTERS, lambda c: replace(c, table_offset=0.0)),
    "registers: antialias off": (WITH_REGISTERS, lambda c: replace(c, table_antialias=False)),
    "registers: offset 0.1": (WITH_REGISTERS, lambda c: replace(c, table_offset=0.1)),
}


def cases(table: dict[str, tuple[tuple[str, ...], Any]]) -> list[Any]:
    assert all(models for models, _ in table.values())
    return [pytest.param(name, how, id=f"{what} / {name}") for what, (models, how) in table.items() for name in models]


def worst(name: str, *, weights: State | None = None, change: Callable[[ViTConfig], ViTConfig] | None = None) -> float:
    ref = reference(name)
    state, config = keymaps.translate(weights or ref.weights, Facts(heads=ref.heads))
    return max(distances(build(state, change(config) if change else config), ref).values())


def test_there_are_eighteen():
    # The position table transposed is the one left: it has a test of its own.
    assert len(PATCHES) + len(WEIGHTS) + len(CONFIGS) + 1 == 18


@pytest.mark.parametrize(("name", "plant"), cases(PATCHES))
def test_a_mistake_in_the_arithmetic_is_seen(name, plant):
    with plant():
        assert worst(name) > TOLERANCE


@pytest.mark.parametrize(("name", "change"), cases(WEIGHTS))
def test_a_mistake_in_the_key_map_is_seen(name, change):
    assert worst(name, weights=change(reference(name).weights)) > TOLERANCE


@pytest.mark.parametrize(("name", "change"), cases(CONFIGS))
def test_a_mistake_in_the_config_is_seen(name, change):
    assert worst(name, change=change) > TOLERANCE


@pytest.mark.parametrize("name", DINOV2)
def test_a_transposed_position_table_is_seen(name):
    ref = reference(name)
    state, config = keymaps.translate(ref.weights, Facts(heads=ref.heads))
    state["positions"] = state["positions"].transpose(0, 1).contiguous()
    assert max(distances(build(state, config), ref).values()) > TOLERANCE
