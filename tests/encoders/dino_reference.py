"""The reference outputs in tests/golden/dino, and how far a network of ours is from them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from patchatlas.encoders import keymaps
from patchatlas.encoders.keymaps.layout import Facts
from patchatlas.encoders.vit import ViT, ViTConfig, split_tokens

FOLDER = Path(__file__).parents[1] / "golden" / "dino"

DINOV2 = (
    "dinov2_mlp_noreg_g4_d64h2",
    "dinov2_mlp_reg_g37_d64h2",
    "dinov2_swiglu_noreg_g37_d64h4",
    "dinov2_swiglu_reg_g4_d64h2",
)
DINOV3 = ("dinov3_7bstyle_d80h4", "dinov3_mask0_d64h4", "dinov3_mlp_d128h2", "dinov3_swiglu_d64h2")
MODELS = DINOV2 + DINOV3

TOLERANCE = 2e-5
"""Ten times the float32 noise of the reference itself."""


@dataclass(frozen=True)
class Reference:
    """One small reference network: its weights under its own names, and what it gives."""

    name: str
    facts: dict[str, Any]
    weights: dict[str, Tensor]
    outputs: dict[str, Tensor]

    @property
    def heads(self) -> int:
        return int(self.facts["kwargs"]["num_heads"])

    @property
    def sizes(self) -> list[str]:
        return [case["id"] for case in self.facts["cases"]]


@cache
def reference(name: str) -> Reference:
    """Read once; tensors are shared, so tests must not write into them."""
    return Reference(
        name=name,
        facts=json.loads((FOLDER / f"{name}.json").read_text()),
        weights=load_file(FOLDER / f"{name}.weights.safetensors"),
        outputs=load_file(FOLDER / f"{name}.io.safetensors"),
    )


@cache
def released() -> dict[str, Any]:
    """Key lists of the real architectures."""
    return json.loads((FOLDER / "released_state_dict_keys.json").read_text())


def build(state: Mapping[str, Tensor], config: ViTConfig) -> ViT:
    """A network in eval mode."""
    with torch.device("meta"):
        network = ViT(config)
    network.load_state_dict(dict(state), assign=True)
    return network.eval()


def ours(name: str) -> tuple[dict[str, Tensor], ViTConfig]:
    """A reference network's weights in our layout."""
    ref = reference(name)
    return keymaps.translate(ref.weights, Facts(heads=ref.heads))


@torch.no_grad()
def distances(network: ViT, ref: Reference) -> dict[str, float]:
    """Largest absolute difference for every stored output `<size>/<what>`."""
    depth = network.config.depth
    found = {}
    for size in ref.sizes:
        earlier, last = network.forward_blocks(ref.outputs[f"{size}/input"], [depth - 2, depth - 1])
        for prefix, tokens in {
            "": network.norm(last),
            "prenorm_": last,
            "inter0_": network.norm(earlier),
            "inter1_": network.norm(last),
        }.items():
            split = split_tokens(tokens, network.config)
            for kind in ("cls", "registers", "patches"):
                key = f"{size}/{prefix}{kind}"
                if key in ref.outputs:
                    given = getattr(split, kind)
                    assert given.shape == ref.outputs[key].shape
                    found[key] = (given - ref.outputs[key]).abs().max().item()
    return found
