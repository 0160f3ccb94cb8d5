"""Load an encoder by name or path: find the weights, see whose they are, check them, build the network."""

import json
import logging
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import torch

from patchatlas.encoders import checkpoint, hub, keymaps, precision
from patchatlas.encoders.catalogue import IMAGENET, SAT493M, Entry, find_by_sha256
from patchatlas.encoders.checkpoint import Checkpoint
from patchatlas.encoders.keymaps import huggingface, own
from patchatlas.encoders.keymaps.layout import Facts, State
from patchatlas.encoders.layers import choose_layer
from patchatlas.encoders.naming import resolve
from patchatlas.encoders.precision import TORCH_DTYPES
from patchatlas.encoders.protocol import Encoder
from patchatlas.encoders.released import models_of_shape
from patchatlas.encoders.vit import ViTConfig
from patchatlas.encoders.vit_encoder import VitEncoder, build_network
from patchatlas.errors import UsageError, WeightsError
from patchatlas.spec import EncoderSpec

log = logging.getLogger(__name__)

THROUGH_TRANSFORMERS = ("vjepa2", "dinov3_convnext")
"""`model_type` of the networks that transformers runs."""

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]


def load_encoder(
    name_or_path: str | Path,
    *,
    device: str | torch.device = "auto",
    dtype: str = "auto",
    layer: int | None = None,
    norm: Literal["final", "none"] = "final",
    heads: int | None = None,
) -> Encoder:
    """Load an encoder. Nothing is downloaded unless a hub id is given, and nothing is ever put in another's place.

    Args:
        name_or_path: a weights file (.safetensors, .pth, .pt, .bin) or folder in the layout of Meta, Hugging Face,
            timm or our own; a hub id; a name of the catalogue for weights on this machine; or `bundled:NAME` for an
            encoder that comes with the package (see `bundled.names`).
        device: `auto` (CUDA, else MPS, else CPU), `cpu`, `cuda`, `cuda:N` or `mps`.
        dtype: `auto` (bf16 where the hardware has it), `fp32` or `bf16`.
        layer: block whose tokens are given, counted from 0, or from the end if negative; the last one by default.
        norm: `final` puts the network's last LayerNorm on the tokens, on those of an earlier layer too; `none` does
            not.
        heads: attention heads, for checkpoints that do not tell; all released ones do, or are known.

    Raises:
        WeightsError: weights that are absent, gated, incomplete, unsafe or not known, with what to do.
        UsageError: an option that makes no sense.
    """
    chosen = precision.choose_device(device)
    arithmetic = precision.choose_precision(dtype, chosen)
    if norm not in ("final", "none"):
        raise UsageError(f"norm {norm!r} is not known; use final or none")
    where = resolve(name_or_path)
    if where.bundled is not None:
        return _load_bundled(where.bundled, chosen, layer=layer, norm=norm, heads=heads)
    path = where.path if where.path is not None else hub.fetch(str(where.hub_id))
    source = where.hub_id or ("bundled" if where.sha256 is not None else path.name)
    name = where.entry.name if where.entry else Path(name_or_path).name
    model_type = checkpoint.read_json(checkpoint.folder_of(path), "config.json").get("model_type")
    if model_type in THROUGH_TRANSFORMERS:
        if heads is not None:
            raise UsageError(
                f"heads= is for checkpoints that do not tell them; {model_type} has them in its config.json"
            )
        from patchatlas.encoders import transformers_adapter

        return transformers_adapter.load(
            path, device=chosen, dtype=arithmetic, layer=layer, norm=norm, name=name, source=source
        )
    weights = checkpoint.read(path)
    if where.sha256 is not None and weights.sha256 != where.sha256:
        raise WeightsError(
            f"{path} has the SHA-256 {weights.sha256[:8]}…, it should be {where.sha256[:8]}…; install patchatlas again"
        )
    state, config = translate(weights, heads=heads)
    if where.entry is not None and where.entry not in models_of_shape(config):
        raise WeightsError(
            f"{path} is named as {where.entry.name}, but holds another network: {config.depth} blocks of {config.dim} "
            f"features, patch {config.patch}; load it by its path under another name, or put the right weights there"
        )
    entry = where.entry or find_by_sha256(weights.sha256)
    mean, std = normalisation(weights, config, entry, name=f"{name_or_path}/{path.name}")
    network = build_network(state, config, mean=mean, std=std, device=chosen, dtype=TORCH_DTYPES[arithmetic])
    header = own.read_header(weights.metadata) if own.fits(weights.metadata) else None
    spec = EncoderSpec(
        name=entry.name if entry else header.name if header else name,
        family=config.family,
        patch=config.patch,
        dim=config.dim,
        registers=config.registers,
        has_cls=True,
        channels=config.channels,
        mean=mean,
        std=std,
        layer=choose_layer(layer, config.depth),
        depth=config.depth,
        norm=norm,
        dtype=arithmetic,
        licence=licence_of(weights, entry, header),
        weights_sha256=weights.sha256,
        source=source,
        config_sha256=sha256(json.dumps(asdict(config), sort_keys=True).encode()).hexdigest(),
    )
    return VitEncoder(network, spec)


def translate(weights: Checkpoint, *, heads: int | None = None) -> tuple[State, ViTConfig]:
    """Our state dict and config of weights in any layout known.

    Raises:
        WeightsError: a layout that is not known, or one that is not complete.
    """
    if own.fits(weights.metadata):
        header = own.read_header(weights.metadata)
        if heads is not None and heads != header.config.heads:
            raise WeightsError(f"heads={heads} was asked, but the file says {header.config.heads}; leave heads= out")
        return own.translate(weights.state, header)
    if weights.config.get("model_type") in huggingface.MODEL_TYPES:
        return keymaps.translate(weights.state, huggingface.facts_of(weights.config, heads=heads))
    told = (weights.config.get("model_args") or {}).get("num_heads")  # timm's config.json
    return keymaps.translate(weights.state, Facts(heads=heads if told is None else told))


def normalisation(weights: Checkpoint, config: ViTConfig, entry: Entry | None, *, name: str) -> Normalisation:
    """Mean and std that the weights want, range 0..1: from the files, else the catalogue, else the name, else ImageNet.

    Raises:
        WeightsError: not one number a channel, or other than 3 channels and no file that tells.
    """
    found = _told_normalisation(weights)
    if found is None:
        if config.channels != 3:
            raise WeightsError(
                f"these weights take {config.channels} channels and no file tells their mean and std; store them as a "
                "patchatlas.encoder file, which does"
            )
        found = entry.mean_std if entry else SAT493M if "sat493m" in name.lower() else IMAGENET
        if entry is None:
            log.warning("no file tells the mean and std of these weights; taking %s and %s", *found)
    if len(found[0]) != config.channels or len(found[1]) != config.channels:
        raise WeightsError(
            f"mean {found[0]} and std {found[1]} are not one number for each of {config.channels} channels"
        )
    return found


def _told_normalisation(weights: Checkpoint) -> Normalisation | None:
    if own.fits(weights.metadata):
        header = own.read_header(weights.metadata)
        return header.mean, header.std
    places: list[tuple[dict[str, Any], str, str]] = [
        (weights.preprocessor, "image_mean", "image_std"),
        (weights.config.get("pretrained_cfg") or {}, "mean", "std"),  # timm's config.json
    ]
    for fields, mean, std in places:
        if mean in fields and std in fields:
            return tuple(float(value) for value in fields[mean]), tuple(float(value) for value in fields[std])
    return None


def licence_of(weights: Checkpoint, entry: Entry | None, header: own.Header | None) -> str:
    """Licence of weights: from our header, else the catalogue, the model card or timm's config; else `unknown`."""
    if header is not None:
        return header.licence
    told = (weights.config.get("pretrained_cfg") or {}).get("license")
    return (entry.licence if entry else None) or weights.licence or told or "unknown"


def _load_bundled(name: str, device: torch.device, *, layer: int | None, norm: str, heads: int | None) -> Encoder:
    if layer is not None or norm != "final" or heads is not None:
        raise UsageError(f"bundled:{name} is no network: it has no layers, norm or heads to choose")
    from patchatlas.encoders import sift

    return sift.load(device=device)
