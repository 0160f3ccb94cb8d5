"""Key map of Meta's own files: DINOv2 and DINOv3 backbones, as `state_dict()` of the reference networks gives them.

Facts from facebookresearch/dinov2 at b8931f7 and facebookresearch/dinov3 at 6876159: names, the k-bias mask that is
multiplied onto the bias, `w1` = gate and `w2` = value of the SwiGLU, `w12` = both with the gate first, and the block
chunks of training checkpoints (`blocks.<chunk>.<block>`, the block number counting through).
"""

import re
from collections.abc import Mapping

from torch import Tensor

from patchatlas.encoders.keymaps.layout import Facts, State, describe, join, rename, require_complete, square_table
from patchatlas.encoders.vit import ViTConfig
from patchatlas.errors import WeightsError

LAYOUT = "Meta"

PREFIXES = ("teacher.backbone.", "module.", "backbone.")
"""Wrappers that training puts around a backbone."""

_BLOCK = r"blocks\.(?:\d+\.)?(\d+)\."

RULES = {
    r"cls_token": "cls_token",
    r"(?:register_tokens|storage_tokens)": "registers",
    r"pos_embed": "positions",
    r"rope_embed\.periods": "rope.periods",
    r"patch_embed\.proj\.(weight|bias)": r"patch_embed.\1",
    _BLOCK + r"(norm[12])\.(weight|bias)": r"blocks.\1.\2.\3",
    _BLOCK + r"attn\.(qkv|proj)\.(weight|bias|bias_mask)": r"blocks.\1.attention.\2.\3",
    _BLOCK + r"ls([12])\.gamma": r"blocks.\1.scale\2",
    _BLOCK + r"mlp\.(?:fc1|w12)\.(weight|bias)": r"blocks.\1.ffn.up.\2",
    _BLOCK + r"mlp\.w1\.(weight|bias)": r"blocks.\1.ffn.gate.\2",
    _BLOCK + r"mlp\.w2\.(weight|bias)": r"blocks.\1.ffn.value.\2",
    _BLOCK + r"mlp\.(?:fc2|w3)\.(weight|bias)": r"blocks.\1.ffn.down.\2",
    r"norm\.(weight|bias)": r"norm.\1",
}

IGNORED = (
    r"mask_token",  # stands for hidden patches in pretraining only
    r"local_cls_norm\.(weight|bias)",  # norm of local crops in training; evaluation uses `norm`
    r"(?:student|dino_head|ibot_head|teacher\.dino_head|teacher\.ibot_head)\..*",  # other networks of a training run
)


def unwrap(state: Mapping[str, Tensor]) -> State:
    """The state dict without the prefixes of training wrappers; keys without the prefix stay as they are."""
    unwrapped = dict(state)
    for prefix in (*PREFIXES, *PREFIXES):  # wrappers nest: module.backbone., backbone.module.
        if any(key.startswith(prefix) for key in unwrapped):
            unwrapped = {key.removeprefix(prefix): value for key, value in unwrapped.items()}
    return unwrapped


def fits(state: Mapping[str, Tensor]) -> bool:
    """Whether these are keys of this layout."""
    keys = unwrap(state).keys()
    return "patch_embed.proj.weight" in keys and any(re.fullmatch(_BLOCK + r"ls1\.gamma", key) for key in keys)


def translate(state: Mapping[str, Tensor], facts: Facts) -> tuple[State, ViTConfig]:
    """Our state dict and the config it belongs to.

    Raises:
        WeightsError: keys missing, left over or of another shape; a k-bias mask of other numbers than 0 and 1.
    """
    ours, left_over = rename(unwrap(state), rules=RULES, ignored=IGNORED)
    for key in [key for key in ours if key.endswith(".bias_mask")]:
        bias = key.removesuffix("_mask")
        mask = ours.pop(key)
        if not mask.is_meta and not ((mask == 0) | (mask == 1)).all():
            raise WeightsError(f"{key} holds other numbers than 0 and 1: the file was saved before it was initialised")
        if bias in ours:
            ours[bias] = ours[bias] * mask.to(ours[bias].dtype)
    ours = join(ours)
    if "registers" in ours:
        ours["registers"] = ours["registers"].flatten(0, 1)  # (1, r, d) -> (r, d)
    family = "dinov2" if "positions" in ours else "dinov3"
    ours = fold_cls_position(ours)
    config = describe(ours, facts, family=family)
    require_complete(ours, config, left_over=left_over, layout=LAYOUT)
    return ours, config


def fold_cls_position(state: State) -> State:
    """Add the table's first entry to the class token and make the rest a grid: (1, 1 + n, d) -> (rows, columns, d)."""
    folded = dict(state)
    if "cls_token" in folded:
        folded["cls_token"] = folded["cls_token"].flatten()  # (1, 1, d) -> (d)
        if "positions" in folded:
            table = folded["positions"]
            folded["cls_token"] = folded["cls_token"] + table[0, 0]
            folded["positions"] = square_table(table[:, 1:])
    return folded
