"""Rename the weights of a Meta backbone into the layouts of other projects, to test the way back.

Written from the facts that `keymaps/` cites, in the opposite direction and by other means, with no code shared.
"""

import torch
from torch import Tensor

State = dict[str, Tensor]


def _blocks(state: State) -> int:
    return 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))


def _masked_bias(state: State, i: int) -> Tensor | None:
    bias = state.get(f"blocks.{i}.attn.qkv.bias")
    mask = state.get(f"blocks.{i}.attn.qkv.bias_mask")
    return bias if bias is None or mask is None else bias * mask


def to_huggingface(state: State, *, names: str = "saved") -> State:
    """Keys of transformers: `saved` as its DINOv2 files have them, `class` as its classes have them."""
    v3 = "rope_embed.periods" in state
    out = {
        "embeddings.cls_token": state["cls_token"],
        "embeddings.mask_token": state["mask_token"].reshape(1, 1, -1) if v3 else state["mask_token"],
    }
    patch = "embeddings.patch_embeddings." + ("" if v3 else "projection.")
    for kind in ("weight", "bias"):
        out[patch + kind] = state[f"patch_embed.proj.{kind}"]
        out[("norm." if v3 else "layernorm.") + kind] = state[f"norm.{kind}"]
    if "pos_embed" in state:
        out["embeddings.position_embeddings"] = state["pos_embed"]
    for key in ("storage_tokens", "register_tokens"):
        if key in state:
            out["embeddings.register_tokens"] = state[key]
    for i in range(_blocks(state)):
        mine, theirs = f"blocks.{i}.", f"layer.{i}." if v3 else f"encoder.layer.{i}."
        parts = {"weight": state[mine + "attn.qkv.weight"].chunk(3)}
        bias = _masked_bias(state, i)
        if bias is not None:
            parts["bias"] = bias.chunk(3)
        old = not v3 and names == "saved"
        triple = (
            [f"attention.attention.{n}" for n in ("query", "key", "value")]
            if old
            else [f"attention.{n}_proj" for n in "qkv"]
        )
        for kind, tensors in parts.items():
            for name, tensor in zip(triple, tensors, strict=True):
                if not (v3 and kind == "bias" and name.endswith("k_proj")):
                    out[f"{theirs}{name}.{kind}"] = tensor
        for kind in ("weight", "bias"):
            out[f"{theirs}{'attention.output.dense' if old else 'attention.o_proj'}.{kind}"] = state[
                f"{mine}attn.proj.{kind}"
            ]
            for norm in ("norm1", "norm2"):
                out[f"{theirs}{norm}.{kind}"] = state[f"{mine}{norm}.{kind}"]
            for theirs_ffn, tensor in _huggingface_ffn(state, mine, kind, v3=v3, old=old).items():
                out[f"{theirs}mlp.{theirs_ffn}.{kind}"] = tensor
        for n in "12":
            out[f"{theirs}layer_scale{n}.lambda1"] = state[f"{mine}ls{n}.gamma"]
    return out


def _huggingface_ffn(state: State, block: str, kind: str, *, v3: bool, old: bool) -> State:
    def mine(name: str) -> Tensor:
        return state[f"{block}mlp.{name}.{kind}"]

    if f"{block}mlp.fc1.{kind}" in state:
        return {"up_proj": mine("fc1"), "down_proj": mine("fc2")} if v3 else {"fc1": mine("fc1"), "fc2": mine("fc2")}
    if v3:
        return {"gate_proj": mine("w1"), "up_proj": mine("w2"), "down_proj": mine("w3")}
    if old:
        return {"weights_in": mine("w12"), "weights_out": mine("w3")}
    gate, value = mine("w12").chunk(2)
    return {"gate_proj": gate, "up_proj": value, "down_proj": mine("w3")}


def to_timm(state: State) -> State:
    """Keys of timm's vit_*_dinov2 and vit_*_dinov3 (the `_qkvb` kind where there are biases)."""
    v3 = "rope_embed.periods" in state
    registers = state.get("storage_tokens", state.get("register_tokens"))
    out: State = {}
    for key, value in state.items():
        if key in ("mask_token", "rope_embed.periods", "storage_tokens", "register_tokens") or "bias_mask" in key:
            continue
        if key.startswith("local_cls_norm"):
            continue
        if v3 and key.endswith("attn.qkv.bias"):
            q, _, v = _masked_bias(state, int(key.split(".")[1])).chunk(3)
            out[key.replace("qkv.bias", "q_bias")] = q
            out[key.replace("qkv.bias", "v_bias")] = v
            continue
        for old, new in {
            "mlp.w12": "mlp.fc1",
            "mlp.w1.": "mlp.fc1_g.",
            "mlp.w2.": "mlp.fc1_x.",
            "mlp.w3": "mlp.fc2",
        }.items():
            key = key.replace(old, new)
        if v3:
            key = key.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2")
        out[key] = value
    if registers is not None:
        out["reg_token"] = registers
        if not v3:
            out["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
            out["pos_embed"] = state["pos_embed"][:, 1:]
    return out


def chunked(state: State, *, per_chunk: int) -> State:
    """Block keys as training with block chunks writes them: blocks.<chunk>.<block>."""
    out = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] == "blocks":
            parts.insert(1, str(int(parts[1]) // per_chunk))
        out[".".join(parts)] = value
    return out


def on_meta(shapes: dict[str, list[int]]) -> State:
    """Tensors without values."""
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
