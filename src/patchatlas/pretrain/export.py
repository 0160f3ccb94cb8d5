"""The teacher as an encoder: one plain `.safetensors` file that `load_encoder` opens, with what it was trained on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from patchatlas.encoders.keymaps import own
from patchatlas.encoders.suffixes import SUFFIXES
from patchatlas.encoders.vit import ViTConfig
from patchatlas.pretrain.config import PretrainConfig

VOLUME_AXES = "(z, y, x): z grows to Superior, y to Anterior, x to Right"
PHOTO_AXES = "(y, x): rows downwards, columns to the right, EXIF-upright"


def write_encoder(
    path: str | Path,
    state: Mapping[str, Tensor],
    vit: ViTConfig,
    config: PretrainConfig,
    *,
    step: int,
    spacing_mm: Sequence[float] | None,
) -> None:
    """Write the encoder of a run.

    Args:
        path: ends in `.safetensors`.
        state: of the teacher as a whole; what is not of the encoder is left out.
        vit: the network.
        config: of the run.
        step: updates of the weights so far.
        spacing_mm: a voxel of a large crop along each axis; `None` for photographs.

    Raises:
        InputError: the folder does not exist.
    """
    mean, std = config.mean_std
    weights = {key.removeprefix("vit."): value for key, value in state.items() if key.startswith("vit.")}
    header = own.Header(
        config=vit,
        mean=mean,
        std=std,
        name=config.name,
        licence=config.licence,
        input=described(vit, config, step=step, spacing_mm=spacing_mm),
    )
    own.write(path, weights, header)


def described(
    vit: ViTConfig, config: PretrainConfig, *, step: int, spacing_mm: Sequence[float] | None
) -> dict[str, Any]:
    """What the inputs of an encoder were, as its header says it (docs/formats/encoder-v1.md)."""
    facts: dict[str, Any] = {"kind": config.crops.kind, "step": step}
    distil = config.loss.distil
    made_from = {"weights": _called(config.model.weights), "distilled": _called(distil.encoder)}
    facts |= {name: value for name, value in made_from.items() if value is not None}
    if distil.stamp is not None:
        facts["distilled_stamp"] = distil.stamp
    if config.crops.kind == "volumes":
        facts |= {"axes": VOLUME_AXES, "window_hu": list(config.crops.window_hu)}
        facts |= {"spacing_mm": None if spacing_mm is None else list(spacing_mm)}
    else:
        facts["axes"] = PHOTO_AXES
    if vit.table_grid is None:
        pairs = vit.head_dim // (2 * vit.ndim)
        facts["rope"] = {
            "axes": vit.ndim,
            "pairs_an_axis": pairs,
            "unturned_channels": vit.head_dim - 2 * vit.ndim * pairs,
        }
    return facts


def _called(named: str | None) -> str | None:
    """A hub id or another name as it is; of a path its last part, for where files lie is nobody's business."""
    if named is None:
        return None
    path = Path(named)
    return path.name if path.suffix in SUFFIXES or path.is_absolute() or path.is_dir() else named
