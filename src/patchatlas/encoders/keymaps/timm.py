"""Key map of timm: `vit_*_patch14_dinov2`, `vit_*_patch14_reg4_dinov2` and the EVA-style `vit_*_patch16_dinov3`.

Facts from timm 1.0.31 (`models/vision_transformer.py`, `models/eva.py`, `layers/mlp.py`): with registers the position
of the class token is already added to it and the table has patches only; packed SwiGLU is `mlp.fc1` with the gate
first; EVA blocks hold LayerScale as `gamma_1`, the query and value biases apart from the weights and no key bias,
SwiGLU as `fc1_g` (gate) and `fc1_x` (value). Rotary periods are not stored: timm computes them in float32 (see
`huggingface.py` for what that means). Position tables are resampled as Meta released them.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from patchatlas.encoders.keymaps.layout import Facts, State, describe, join, rename, require_complete, square_table
from patchatlas.encoders.keymaps.meta import fold_cls_position
from patchatlas.encoders.rope import geometric_periods
from patchatlas.encoders.vit import ViTConfig
from patchatlas.errors import WeightsError

LAYOUT = "timm"

_BLOCK = r"blocks\.(\d+)\."

RULES = {
    r"cls_token": "cls_token",
    r"reg_token": "registers",
    r"pos_embed": "positions",
    r"patch_embed\.proj\.(weight|bias)": r"patch_embed.\1",
    _BLOCK + r"(norm[12])\.(weight|bias)": r"blocks.\1.\2.\3",
    _BLOCK + r"attn\.(qkv|proj)\.(weight|bias)": r"blocks.\1.attention.\2.\3",
    _BLOCK + r"attn\.([qv])_bias": r"blocks.\1.attention.\2.bias",
    _BLOCK + r"ls([12])\.gamma": r"blocks.\1.scale\2",
    _BLOCK + r"gamma_([12])": r"blocks.\1.scale\2",
    _BLOCK + r"mlp\.fc1\.(weight|bias)": r"blocks.\1.ffn.up.\2",
    _BLOCK + r"mlp\.fc1_g\.(weight|bias)": r"blocks.\1.ffn.gate.\2",
    _BLOCK + r"mlp\.fc1_x\.(weight|bias)": r"blocks.\1.ffn.value.\2",
    _BLOCK + r"mlp\.fc2\.(weight|bias)": r"blocks.\1.ffn.down.\2",
    r"norm\.(weight|bias)": r"norm.\1",
}


def fits(state: Mapping[str, Tensor]) -> bool:
    """Whether these are keys of this layout. (`vit_*_patch14_dinov2` with a plain MLP is Meta's layout, mask token
    aside.)"""
    if "patch_embed.proj.weight" not in state:
        return False
    up, down = state.get("blocks.0.mlp.fc1.weight"), state.get("blocks.0.mlp.fc2.weight")
    packed = up is not None and down is not None and up.shape[0] == 2 * down.shape[1]
    return packed or "reg_token" in state or any(re.fullmatch(_BLOCK + "gamma_1", key) for key in state)


def translate(state: Mapping[str, Tensor], facts: Facts) -> tuple[State, ViTConfig]:
    """Our state dict and the config it belongs to.

    Raises:
        WeightsError: keys missing, left over or of another shape.
    """
    ours, left_over = rename(state, rules=RULES, ignored=())
    if "cls_token" not in ours:
        raise WeightsError("the weights look like the timm layout but have no cls_token; this is no DINO backbone")
    ours = join(ours)
    family = "dinov2" if "positions" in ours else "dinov3"
    if "registers" in ours:
        ours["registers"] = ours["registers"].flatten(0, 1)  # (1, r, d) -> (r, d)
    if "positions" in ours and "registers" in ours:  # the table has no entry for the class token
        ours["positions"] = square_table(ours["positions"])
        ours["cls_token"] = ours["cls_token"].flatten()  # (1, 1, d) -> (d)
    else:
        ours = fold_cls_position(ours)
    config = describe(ours, facts, family=family)
    if config.table_grid is None:
        ours["rope.periods"] = geometric_periods(config.head_dim, config.ndim, config.rope_base)
    require_complete(ours, config, left_over=left_over, layout=LAYOUT)
    return ours, config
