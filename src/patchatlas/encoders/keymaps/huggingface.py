"""Key map of Hugging Face transformers: Dinov2Model, Dinov2WithRegistersModel and DINOv3ViTModel.

Facts from transformers 5.23.0 (`models/dinov2*`, `models/dinov3_vit`, `conversion_mapping.py`): queries, keys and
values are split; files of DINOv2 carry older names than the classes (both are read); DINOv3 files carry no rotary
periods, the class computes them in float32 from `rope_theta`. (Meta's released files hold the same periods rounded to
bfloat16, so the two give tokens that differ by about 1e-2.) DINOv2 without registers is resampled as Meta released
it, with the 0.1 that `Dinov2Model` leaves out.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from patchatlas.encoders.keymaps.layout import Facts, State, describe, join, rename, require_complete
from patchatlas.encoders.keymaps.meta import fold_cls_position
from patchatlas.encoders.rope import geometric_periods
from patchatlas.encoders.vit import ViTConfig
from patchatlas.errors import WeightsError

LAYOUT = "Hugging Face"

MODEL_TYPES = ("dinov2", "dinov2_with_registers", "dinov3_vit")
"""`model_type` of the config.json files that this map serves."""

_BLOCK = r"(?:encoder\.|model\.)?layer\.(\d+)\."

RULES = {
    r"embeddings\.cls_token": "cls_token",
    r"embeddings\.register_tokens": "registers",
    r"embeddings\.position_embeddings": "positions",
    r"embeddings\.patch_embeddings\.(?:projection\.)?(weight|bias)": r"patch_embed.\1",
    _BLOCK + r"(norm[12])\.(weight|bias)": r"blocks.\1.\2.\3",
    _BLOCK + r"attention\.([qkv])_proj\.(weight|bias)": r"blocks.\1.attention.\2.\3",
    _BLOCK + r"attention\.attention\.(q)uery\.(weight|bias)": r"blocks.\1.attention.\2.\3",
    _BLOCK + r"attention\.attention\.(k)ey\.(weight|bias)": r"blocks.\1.attention.\2.\3",
    _BLOCK + r"attention\.attention\.(v)alue\.(weight|bias)": r"blocks.\1.attention.\2.\3",
    _BLOCK + r"attention\.(?:o_proj|output\.dense)\.(weight|bias)": r"blocks.\1.attention.proj.\2",
    _BLOCK + r"layer_scale([12])\.lambda1": r"blocks.\1.scale\2",
    _BLOCK + r"mlp\.(?:fc1|weights_in)\.(weight|bias)": r"blocks.\1.ffn.up.\2",
    _BLOCK + r"mlp\.gate_proj\.(weight|bias)": r"blocks.\1.ffn.gate.\2",
    _BLOCK + r"mlp\.up_proj\.(weight|bias)": r"blocks.\1.ffn.value.\2",
    _BLOCK + r"mlp\.(?:fc2|weights_out|down_proj)\.(weight|bias)": r"blocks.\1.ffn.down.\2",
    r"(?:layernorm|norm)\.(weight|bias)": r"norm.\1",
}

IGNORED = (r"embeddings\.mask_token",)  # stands for hidden patches in pretraining only


def facts_of(config: Mapping[str, Any], *, heads: int | None) -> Facts:
    """What a `config.json` of one of `MODEL_TYPES` tells that shapes do not.

    Raises:
        WeightsError: an activation that no released model has. (The SwiGLU of DINOv2 does not heed `hidden_act`.)
    """
    expected = "silu" if config.get("use_gated_mlp") else "gelu"
    if not config.get("use_swiglu_ffn") and config.get("hidden_act", expected) != expected:
        raise WeightsError(
            f"config.json asks for hidden_act {config['hidden_act']!r}, {expected} expected; this network is not known"
        )
    return Facts(
        heads=heads or config.get("num_attention_heads"),
        norm_eps=config.get("layer_norm_eps"),
        rope_base=config.get("rope_theta"),
    )


def fits(state: Mapping[str, Tensor]) -> bool:
    """Whether these are keys of this layout."""
    return "embeddings.cls_token" in state and any(key.startswith("embeddings.patch_embeddings.") for key in state)


def translate(state: Mapping[str, Tensor], facts: Facts) -> tuple[State, ViTConfig]:
    """Our state dict and the config it belongs to.

    Raises:
        WeightsError: keys missing, left over or of another shape.
    """
    ours, left_over = rename(state, rules=RULES, ignored=IGNORED)
    # In DINOv3's plain MLP `up_proj` is the only upper linear: it is a value only beside a gate.
    for key in [key for key in ours if ".ffn.value." in key and key.replace(".value.", ".gate.") not in ours]:
        ours[key.replace(".value.", ".up.")] = ours.pop(key)
    ours = join(ours)
    if "registers" in ours:
        ours["registers"] = ours["registers"].flatten(0, 1)  # (1, r, d) -> (r, d)
        if not ours["registers"].shape[0]:
            del ours["registers"]
    family = "dinov2" if "positions" in ours else "dinov3"
    ours = fold_cls_position(ours)
    config = describe(ours, facts, family=family)
    if config.table_grid is None:
        ours["rope.periods"] = geometric_periods(config.head_dim, config.ndim, config.rope_base)
    require_complete(ours, config, left_over=left_over, layout=LAYOUT)
    return ours, config
