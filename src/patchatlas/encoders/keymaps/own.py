"""Our own file layout: a safetensors file of our keys whose header says what they are.

Header metadata, all strings: `format` = "patchatlas.encoder", `version` = "1", `package` (the version that wrote it),
`config` (JSON of `ViTConfig`), `preprocessing` (JSON with `mean` and `std`, lists of one number a channel, range 0..1),
`name`, `licence`, in converted files `source` and `source_sha256`, where the network was trained here `input` (JSON:
what its inputs were), and where a model card belongs to the file `card` (JSON: its facts). Tensors are those of
`ViT.state_dict()`, in the normalised space (mean and std are not folded in). The format's page:
docs/formats/encoder-v1.md.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from patchatlas import __version__
from patchatlas.encoders.keymaps.layout import State, require_complete
from patchatlas.encoders.vit import ViTConfig
from patchatlas.errors import ShapeError, WeightsError
from patchatlas.files import replacing, sort_safetensors_metadata

LAYOUT = "patchatlas"
FORMAT = "patchatlas.encoder"
VERSION = "1"


@dataclass(frozen=True, kw_only=True)
class Header:
    """What the header of one of our files says.

    Attributes:
        config: the network.
        mean: per channel, range 0..1.
        std: per channel, range 0..1.
        name: what the weights are called.
        licence: their licence, as their publisher names it.
        source: what they were converted from: the last part of a path, or a hub id.
        source_sha256: hash of what they were converted from, as `checkpoint.digest` gives it.
        input: what the network was trained on, as plain JSON: axes, spacing, window and so on.
        card: facts of the model card that belongs to the file, as plain JSON: seed, hardware, time and so on.
    """

    config: ViTConfig
    mean: tuple[float, ...]
    std: tuple[float, ...]
    name: str
    licence: str
    source: str | None = None
    source_sha256: str | None = None
    input: dict[str, Any] | None = None
    card: dict[str, Any] | None = None

    def to_metadata(self) -> dict[str, str]:
        """Header metadata of a safetensors file."""
        told = {"input": self.input, "card": self.card}
        written = {key: json.dumps(value, sort_keys=True) for key, value in told.items() if value is not None}
        origin = {"source": self.source, "source_sha256": self.source_sha256, **written}
        return {
            **{key: value for key, value in origin.items() if value is not None},
            "format": FORMAT,
            "version": VERSION,
            "package": __version__,
            "config": json.dumps(asdict(self.config), sort_keys=True),
            "preprocessing": json.dumps({"mean": self.mean, "std": self.std}),
            "name": self.name,
            "licence": self.licence,
        }


def fits(metadata: Mapping[str, str]) -> bool:
    """Whether a safetensors header is one of ours."""
    return metadata.get("format") == FORMAT


def read_header(metadata: Mapping[str, str]) -> Header:
    """The header of one of our files.

    Raises:
        WeightsError: another version, or fields that cannot be read.
    """
    if metadata.get("version") != VERSION:
        raise WeightsError(
            f"the file is {FORMAT} version {metadata.get('version')}, this program reads version {VERSION}; "
            "install the patchatlas that wrote it or convert the weights again"
        )
    try:
        fields = json.loads(metadata["config"])
        lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
        preprocessing = json.loads(metadata["preprocessing"])
        return Header(
            config=ViTConfig(**{**fields, **lists}),
            mean=tuple(preprocessing["mean"]),
            std=tuple(preprocessing["std"]),
            name=metadata["name"],
            licence=metadata["licence"],
            source=metadata.get("source"),
            source_sha256=metadata.get("source_sha256"),
            input=json.loads(metadata["input"]) if "input" in metadata else None,
            card=json.loads(metadata["card"]) if "card" in metadata else None,
        )
    except (KeyError, TypeError, json.JSONDecodeError, ShapeError) as error:
        raise WeightsError(
            f"the header of this {FORMAT} file cannot be read ({error}); convert the weights again"
        ) from error


def translate(state: Mapping[str, Tensor], header: Header) -> tuple[State, ViTConfig]:
    """Our state dict, checked, and its config.

    Raises:
        WeightsError: keys missing, left over or of another shape.
    """
    ours = dict(state)
    require_complete(ours, header.config, left_over=(), layout=LAYOUT)
    return ours, header.config


def write(path: str | Path, state: Mapping[str, Tensor], header: Header) -> None:
    """Write one of our files, in one step; the same content gives the same bytes.

    Raises:
        WeightsError: `state` does not fit `header.config`.
        InputError: the folder does not exist.
    """
    require_complete(dict(state), header.config, left_over=(), layout=LAYOUT)
    with replacing(path) as temporary:
        save_file({key: value.contiguous() for key, value in state.items()}, temporary, metadata=header.to_metadata())
        sort_safetensors_metadata(temporary)
