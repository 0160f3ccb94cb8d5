"""Checks of weights as a network: layout, tensors, config.json, which released model it is, and whether it runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from patchatlas.encoders import checkpoint, keymaps
from patchatlas.encoders.catalogue import Entry
from patchatlas.encoders.checkpoint import Checkpoint
from patchatlas.encoders.keymaps import own
from patchatlas.encoders.loading import THROUGH_TRANSFORMERS, load_encoder, translate
from patchatlas.encoders.verification.agreement import config_differences
from patchatlas.encoders.verification.outline import Outline
from patchatlas.encoders.verification.report import Check
from patchatlas.encoders.vit import ViTConfig
from patchatlas.errors import PatchAtlasError, WeightsError


def read_config(path: Path) -> tuple[dict[str, Any], str | None]:
    """`config.json` beside the weights, empty if there is none, and what is wrong with it or its neighbour."""
    fields: dict[str, Any] = {}
    try:
        fields = checkpoint.read_json(checkpoint.folder_of(path), "config.json")
        checkpoint.read_json(checkpoint.folder_of(path), "preprocessor_config.json")
    except WeightsError as error:
        return fields, str(error)
    return fields, None


def check_network(
    outlines: Mapping[Path, Outline], fields: dict[str, Any], *, heads: int | None
) -> tuple[ViTConfig | None, list[Check]]:
    """Layout and tensors: whose names these are, and whether all are there in the right shapes."""
    state: dict[str, Tensor] = {}
    for outline in outlines.values():
        state |= outline.tensors
    metadata = next(iter(outlines.values())).metadata if len(outlines) == 1 else {}
    if not state:
        nothing = "there are no readable tensors"
        return None, [Check(name=name, state="skipped", found=nothing) for name in ("layout", "tensors")]
    if fields.get("model_type") in THROUGH_TRANSFORMERS:
        return None, _check_with_transformers(outlines, fields, state)
    try:
        layout = own.LAYOUT if own.fits(metadata) else keymaps.recognise(state)
    except WeightsError as error:
        unknown = "the layout is not known"
        return None, [
            Check(name="layout", state="fail", found=str(error)),
            Check(name="tensors", state="skipped", found=unknown),
        ]
    weights = Checkpoint(state=state, metadata=metadata, config=fields, preprocessor={}, licence=None, sha256="")
    recognised = Check(name="layout", state="pass", found=layout)
    try:
        _, config = translate(weights, heads=heads)
    except PatchAtlasError as error:
        return None, [recognised, Check(name="tensors", state="fail", found=str(error))]
    size = "x".join(str(side) for side in config.patch)
    found = (
        f"whole: {config.family}, {config.depth} blocks of {config.dim}, {config.heads} heads, {config.ffn}, "
        f"patch {size}, {config.registers} registers"
    )
    return config, [recognised, Check(name="tensors", state="pass", found=found)]


def _check_with_transformers(
    outlines: Mapping[Path, Outline], fields: dict[str, Any], state: dict[str, Tensor]
) -> list[Check]:
    """The same for networks that transformers runs: its class says which tensors there must be."""
    from patchatlas.encoders import transformers_adapter

    model_type = fields["model_type"]
    layout = Check(name="layout", state="pass", found=f"Hugging Face, {model_type}, run by transformers")
    try:
        transformers_adapter.require_complete(next(iter(outlines)).parent, fields, state)
    except PatchAtlasError as error:
        return [layout, Check(name="tensors", state="fail", found=str(error))]
    return [layout, Check(name="tensors", state="pass", found=f"whole: as config.json wants them for {model_type}")]


def check_config(fields: dict[str, Any], problem: str | None, network: ViTConfig | None) -> Check:
    """config.json: readable, and of one mind with the tensors."""
    if problem is not None:
        return Check(name="config", state="fail", found=problem)
    if not fields:
        return Check(name="config", state="skipped", found="there is no config.json")
    if network is None:
        through_class = fields.get("model_type") in THROUGH_TRANSFORMERS  # `tensors` has compared them by this config
        found = "readable; see tensors" if through_class else "readable; no tensors to compare it with"
        return Check(name="config", state="skipped", found=found)
    differences = config_differences(fields, network)
    if differences:
        found = f"config.json: {'; '.join(differences)}. It is of another model; download the folder again"
        return Check(name="config", state="fail", found=found)
    return Check(name="config", state="pass", found="readable, and its numbers are those of the tensors")


def check_model(
    network: ViTConfig | None, candidates: Sequence[Entry], entry: Entry | None, fields: Mapping[str, Any]
) -> Check:
    """Which released model this is, and whether that is the one that it is named after."""
    names = " or ".join(candidate.name for candidate in candidates)
    if network is None and entry is not None and fields.get("model_type") in THROUGH_TRANSFORMERS:
        dim = fields.get("hidden_size", (fields.get("hidden_sizes") or [None])[-1])
        if dim == entry.dim:
            return Check(name="model", state="pass", found=f"{entry.name}, by name and config.json")
        found = f"named {entry.name}, whose tokens have {entry.dim} numbers; config.json says {dim}. Check the name"
        return Check(name="model", state="fail", found=found)
    if network is None:
        return Check(name="model", state="skipped", found="the network is not known")
    if entry is not None and entry not in candidates:
        found = f"named {entry.name}, but the shapes are those of {names or 'no released model'}; rename or replace it"
        return Check(name="model", state="fail", found=found)
    if entry is not None:
        return Check(name="model", state="pass", found=f"{entry.name}, licence {entry.licence}")
    if candidates:
        licences = " or ".join(sorted({candidate.licence for candidate in candidates}))
        return Check(name="model", state="pass", found=f"the shapes are those of {names}, licence {licences}")
    return Check(name="model", state="skipped", found="the shapes are those of no released model")


def check_forward(name_or_path: str | Path, *, heads: int | None, asked: bool, failed: bool) -> Check:
    """Load the encoder and run it on noise of 2 by 3 patches."""
    if not asked:
        return Check(name="forward", state="skipped", found="not asked for")
    if failed:
        return Check(name="forward", state="skipped", found="the failures above come first")
    try:
        encoder = load_encoder(name_or_path, device="cpu", dtype="fp32", heads=heads)
        spec = encoder.spec
        cells = (2, 3) if spec.ndim == 2 else (2, 2, 3)
        size = [side * patch for side, patch in zip(cells, spec.patch, strict=True)]
        tokens = encoder(torch.rand(1, spec.channels, *size, generator=torch.Generator().manual_seed(0)))
    except PatchAtlasError as error:
        return Check(name="forward", state="fail", found=str(error))
    kinds = [kind for kind in (tokens.patches, tokens.cls, tokens.registers) if kind is not None]
    if not all(torch.isfinite(kind).all() for kind in kinds):
        found = "tokens are not finite, though all weights are: no trained network does that; download it again"
        return Check(name="forward", state="fail", found=found)
    if (tokens.patches == tokens.patches[:, :1]).all():
        found = "all patches of a noisy picture give the same token: the weights are not trained; download them again"
        return Check(name="forward", state="fail", found=found)
    count, size_text = tokens.patches.shape[1], "x".join(str(side) for side in size)
    found = f"{size_text} pixels give {count} finite tokens of {spec.dim}; encoder {spec.name}, licence {spec.licence}"
    return Check(name="forward", state="pass", found=found)
