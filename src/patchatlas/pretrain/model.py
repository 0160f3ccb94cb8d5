"""From settings to networks: a student drawn from a seed or begun from an encoder's weights, and its teacher."""

import copy
import logging
from dataclasses import dataclass
from pathlib import Path

from patchatlas.encoders import checkpoint, hub
from patchatlas.encoders.catalogue import Entry, find_by_sha256
from patchatlas.encoders.checkpoint import Checkpoint
from patchatlas.encoders.keymaps.layout import State
from patchatlas.encoders.loading import normalisation, translate
from patchatlas.encoders.naming import resolve
from patchatlas.encoders.vit import ViTConfig
from patchatlas.errors import UsageError, WeightsError
from patchatlas.pretrain.config import PretrainConfig
from patchatlas.pretrain.inflate import inflate
from patchatlas.pretrain.student import Network, begin

log = logging.getLogger(__name__)


def make_student(config: PretrainConfig, *, distil: int | None = None) -> Network:
    """The network as it is before the first step, on the CPU; the same config gives the same bits.

    Args:
        config: of the run.
        distil: length of the tokens of the encoder that is distilled; `None` for none.

    Raises:
        WeightsError: weights to begin from that cannot be had, or are no ViT.
        UsageError: weights that do not fit the crops.
    """
    state, vit = (None, new_vit(config)) if config.model.weights is None else weights_of(config)
    student = begin(
        vit,
        dino=config.dino_head if config.loss.dino.weight else None,
        ibot=config.ibot_head if config.loss.ibot.weight else None,
        sigreg=config.projector if config.loss.sigreg.weight else None,
        distil=distil,
        layer_scale=config.model.layer_scale,
        checkpointing=config.train.checkpointing,
        seed=config.train.seed,
    )
    if state is not None:
        student.vit.load_state_dict(state)
        for parameter in student.parameters():
            parameter.requires_grad_(True)  # the LayerScale of the weights goes on learning
    return student


def make_teacher(student: Network) -> Network:
    """A copy that does not learn."""
    return copy.deepcopy(student).requires_grad_(False)


def new_vit(config: PretrainConfig) -> ViTConfig:
    """The network of a run from scratch: DINOv3's, with as many axes as the crops have."""
    dim, depth, heads = config.model.shape
    return ViTConfig(
        family="vit3d" if config.crops.ndim == 3 else "dinov3",
        patch=config.crops.patch,
        channels=config.crops.channels,
        dim=dim,
        depth=depth,
        heads=heads,
        ffn_hidden=4 * dim,
        registers=config.model.registers,
        rope_base=config.model.rope_base,
    )


def with_mean_std(config: PretrainConfig) -> PretrainConfig:
    """The settings with the mean and standard deviation of the weights that a run begins from, where they give none.

    Weights for pictures that are made into ones for volumes see other values than they did: those keep the default.

    Raises:
        WeightsError: the weights cannot be had, are no ViT, or do not tell.
    """
    model = config.model
    if model.weights is None or (model.mean is not None and model.std is not None):
        return config
    found = _found(model.weights)
    _, vit = translate(found.weights)
    if vit.ndim != config.crops.ndim:
        return config
    mean, std = normalisation(found.weights, vit, found.entry, name=f"{model.weights}/{found.path.name}")
    filled = model.model_copy(update={"mean": model.mean or mean, "std": model.std or std})
    return config.model_copy(update={"model": filled})


@dataclass(frozen=True)
class _Found:
    """Weights as they lie on the disk."""

    path: Path
    weights: Checkpoint
    entry: Entry | None


def _found(named: str) -> _Found:
    where = resolve(named, instead="leave model.weights out: a run of random weights needs none")
    if where.bundled is not None:
        raise WeightsError(f"bundled:{where.bundled} has no weights to begin from")
    path: Path = where.path if where.path is not None else hub.fetch(str(where.hub_id))
    weights = checkpoint.read(path)
    return _Found(path, weights, where.entry or find_by_sha256(weights.sha256))


def weights_of(config: PretrainConfig) -> tuple[State, ViTConfig]:
    """The weights that a run begins from, float32, made for volumes where they are for pictures.

    Raises:
        WeightsError: they cannot be had, or are no ViT.
        UsageError: they do not fit the crops.
    """
    named = str(config.model.weights)
    state, vit = translate(_found(named).weights)
    state = {key: value.float().clone() for key, value in state.items()}
    crops = config.crops
    if vit.ndim == 2 and crops.kind == "volumes":
        state, vit = inflate(state, vit, patch=crops.patch, grey=config.model.grey)
        log.warning("%s was made into a network for volumes of patch %s", named, crops.patch)
    if vit.patch != tuple(crops.patch) or vit.channels != crops.channels:
        raise UsageError(
            f"{named} has patch {vit.patch} and {vit.channels} channels, crops have {crops.patch} and "
            f"{crops.channels}; set crops.patch to that of the weights"
        )
    return state, vit
