"""The encoder that a student is to be like: opened, and checked against the crops and settings of a run.

Axes: g global crops, b samples, n patches, e features of that encoder.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.encoders.loading import load_encoder
from patchatlas.encoders.naming import resolve
from patchatlas.encoders.precision import choose_precision
from patchatlas.encoders.protocol import Encoder, Tokens
from patchatlas.errors import UsageError, WeightsError
from patchatlas.geometry.sampling import sample
from patchatlas.pretrain.config import PretrainConfig
from patchatlas.pretrain.crops.records import Batch
from patchatlas.pretrain.matches import Matches
from patchatlas.stamp import Stamp


def open_distilled(config: PretrainConfig, *, device: torch.device, given: Encoder | None = None) -> Encoder | None:
    """The encoder that `loss.distil` names; `None` where that term does not count.

    Args:
        config: of the run.
        device: where it is to be.
        given: an encoder that has that name, which then need not be found by it.

    Raises:
        WeightsError: it cannot be had.
        MissingExtraError: what it needs is not installed.
        UsageError: it does not fit the crops, has no class token though that is to count, is another one than the
            settings say by its stamp, or was given and does not fit the settings or the device.
    """
    distil = config.loss.distil
    if not distil.weight:
        if given is not None:
            raise UsageError(f"{given.spec.name} was given to be distilled, but loss.distil.weight is 0; raise it")
        return None
    named = str(distil.encoder)
    if given is None:
        given = _load(named, config, device)
    elif given.spec.name != named:
        raise UsageError(
            f"loss.distil.encoder is {named}, and the encoder given is called {given.spec.name}; set the one to the "
            "other, or give no encoder to have it loaded by its name"
        )
    elif given.device.type != device.type:
        raise UsageError(f"{named} was given on {given.device}, and the run is on {device}; put both on one device")
    spec, crops = given.spec, config.crops
    if spec.patch != tuple(crops.patch) or spec.channels != crops.channels:
        raise UsageError(
            f"{named} has patches of {spec.patch} and {spec.channels} channels, crops have {tuple(crops.patch)} and "
            f"{crops.channels}; tokens are compared one by one, so set crops.patch to that of {named}"
        )
    if distil.cls and not spec.has_cls:
        raise UsageError(f"{named} has no class token; set loss.distil.cls to 0")
    stamp = Stamp.of(spec).digest
    if distil.stamp not in (None, stamp):
        raise UsageError(
            f"{named} is not the encoder that loss.distil.stamp says: other weights, another layer, norm or precision. "
            "A run learns from one encoder from its first step to its last; put that one back, or name another folder"
        )
    return given


def _load(named: str, config: PretrainConfig, device: torch.device) -> Encoder:
    try:
        resolve(named, instead="name one that is here in loss.distil.encoder")
        return load_encoder(named, device=device, dtype=choose_precision(config.train.precision, device))
    except WeightsError as error:
        raise WeightsError(f"loss.distil.encoder: {error}") from error


def with_stamp(config: PretrainConfig, encoder: Encoder | None) -> PretrainConfig:
    """The settings with the stamp of what is distilled, so that a run that goes on goes on with the same encoder."""
    if encoder is None:
        return config
    distil = config.loss.distil.model_copy(update={"stamp": Stamp.of(encoder.spec).digest})
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
    """Its tokens of the global crops; it normalises their pixels itself.

    They are copied, since what an encoder gives is made in inference mode, which the student's gradients may not meet.
    """
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
