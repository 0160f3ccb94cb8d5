"""The encoder that a student is to be like: opened, and checked against the crops and settings of a run.

Axes: g global crops, b samples, n patches, e features of that encoder.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.encoders.loading import load_encoder
from patchatlas.encoders.precision import choose_precision
from patchatlas.encoders.protocol import Encoder, Tokens
from patchatlas.errors import UsageError
from patchatlas.geometry.sampling import sample
from patchatlas.pretrain.config import PretrainConfig
from patchatlas.pretrain.crops.records import Batch
from patchatlas.pretrain.matches import Matches


def open_distilled(
    config: PretrainConfig, *, device: str | torch.device, given: Encoder | None = None
) -> Encoder | None:
    """The encoder that `loss.distil` names; `None` where that term does not count.

    Args:
        config: of the run.
        device: where it is to be.
        given: an encoder that has that name, which then need not be found by it.

    Raises:
        WeightsError: it cannot be had.
        UsageError: it does not fit the crops, has no class token though that is to count, has another hash than the
            settings say, or was given and is not the one that they name.
    """
    distil = config.loss.distil
    if not distil.weight:
        if given is not None:
            raise UsageError(f"{given.spec.name} was given to be distilled, but loss.distil.weight is 0; raise it")
        return None
    named = str(distil.encoder)
    if given is not None and given.spec.name != named:
        raise UsageError(
            f"loss.distil.encoder names {named}, given was {given.spec.name}; both must be the same encoder"
        )
    if given is None:
        where = torch.device("cpu") if device == "cpu" else torch.device(device)
        given = load_encoder(named, device=device, dtype=choose_precision(config.train.precision, where))
    spec, crops = given.spec, config.crops
    if spec.patch != tuple(crops.patch) or spec.channels != crops.channels:
        raise UsageError(
            f"{named} has patches of {spec.patch} and {spec.channels} channels, crops have {tuple(crops.patch)} and "
            f"{crops.channels}; tokens are compared one by one, so set crops.patch to that of {named}"
        )
    if distil.cls and not spec.has_cls:
        raise UsageError(f"{named} has no class token; set loss.distil.cls to 0")
    if distil.sha256 is not None and spec.weights_sha256 != distil.sha256:
        raise UsageError(
            f"{named} has SHA-256 {spec.weights_sha256}, loss.distil.sha256 says {distil.sha256}; a run learns from "
            "one encoder from its first step to its last"
        )
    return given


def with_sha256(config: PretrainConfig, encoder: Encoder | None) -> PretrainConfig:
    """The settings with the hash of what is distilled, so that a run that goes on goes on with the same weights."""
    if encoder is None or encoder.spec.weights_sha256 is None:
        return config
    distil = config.loss.distil.model_copy(update={"sha256": encoder.spec.weights_sha256})
    return config.model_copy(update={"loss": config.loss.model_copy(update={"distil": distil})})


@dataclass(frozen=True, eq=False)
class Shown:
    """What the distilled encoder says of the global crops of a micro-batch.

    Attributes:
        patches: its patch tokens.
        cls: its class tokens; `None` without any.
    """

    patches: Float[Tensor, "g b n e"]
    cls: Float[Tensor, "g b e"] | None


def look(encoder: Encoder, batch: Batch) -> Shown:
    """Its tokens of the global crops; it normalises their pixels itself."""
    g, b = batch.globals.shape[:2]
    tokens: Tokens = encoder(batch.globals.flatten(0, 1))
    return Shown(
        patches=tokens.patches.unflatten(0, (g, b)).clone(),
        cls=None if tokens.cls is None else tokens.cls.unflatten(0, (g, b)).clone(),
    )


def across(shown: Shown, matches: Matches) -> Float[Tensor, "e b n f"]:
    """For each ordered pair of views, the other view's tokens of the distilled encoder, read at the places of the
    patches of the first."""
    rows = []
    for (_, other), places in zip(matches.pairs, matches.cells, strict=True):
        maps = shown.patches[other].transpose(1, 2).unflatten(-1, matches.grid)  # (b, e, *grid)
        rows.append(torch.stack([sample(of, at) for of, at in zip(maps, places, strict=True)]))
    return torch.stack(rows)
