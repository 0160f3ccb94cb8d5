"""The encoders that come with the package: their names, and for those with weights the file, its hash and its card.

A file `weights/NAME.safetensors` beside this module is an encoder of our own layout (docs/formats/encoder-v1.md) with
the linears in half precision; `weights/NAME.md` is its model card: data, licences, attribution, recipe, figures,
limits. `python -m tools.bundled.pack` writes both and prints the line that `SHA256` needs. Nothing here needs torch.
"""

import json
import struct
from dataclasses import dataclass
from pathlib import Path

from patchatlas.errors import WeightsError

PREFIX = "bundled:"

WITHOUT_WEIGHTS = ("sift",)
"""Encoders that are arithmetic alone."""

SHA256: dict[str, str] = {
    "vit-tiny16": "e930263ef8a4df216925b1405528aa868da667379940bf8b667072b1b61cb8d3",
}
"""Hash of the file of each bundled encoder with weights, by what follows `bundled:`. A file that has another one is not
loaded."""

FOLDER = Path(__file__).with_name("weights")


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What the header of a bundled file says.

    Attributes:
        family: kind of network.
        parameters: numbers in the network.
        dim: length of a token.
        patch: patch size, (h, w).
        registers: register tokens.
        licence: of the weights.
    """

    family: str
    parameters: int
    dim: int
    patch: tuple[int, ...]
    registers: int
    licence: str


def names() -> tuple[str, ...]:
    """What may follow `bundled:`."""
    return (*WITHOUT_WEIGHTS, *SHA256)


def weights_file(name: str) -> Path:
    """The weights of a bundled encoder.

    Raises:
        WeightsError: the file is not there.
    """
    path = FOLDER / f"{name}.safetensors"
    if not path.is_file():
        raise WeightsError(f"{path} is missing from this installation; install patchatlas again")
    return path


def card(name: str) -> str:
    """The model card of a bundled encoder, Markdown.

    Raises:
        WeightsError: the file is not there.
    """
    path = FOLDER / f"{name}.md"
    if not path.is_file():
        raise WeightsError(f"{path} is missing from this installation; install patchatlas again")
    return path.read_text(encoding="utf-8")


def outline(name: str) -> Outline:
    """What the file of a bundled encoder holds, read from its first bytes (safetensors: length, then JSON).

    Raises:
        WeightsError: the file is not there, or not one of ours.
    """
    path = weights_file(name)
    try:
        with path.open("rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            header = json.loads(handle.read(length))
        metadata = header.pop("__metadata__")
        config = json.loads(metadata["config"])
        return Outline(
            family=config["family"],
            parameters=sum(_count(tensor["shape"]) for tensor in header.values()),
            dim=config["dim"],
            patch=tuple(config["patch"]),
            registers=config["registers"],
            licence=metadata["licence"],
        )
    except (struct.error, ValueError, KeyError, MemoryError, OverflowError) as error:
        raise WeightsError(f"{path} is damaged ({error}); install patchatlas again") from error


def _count(shape: list[int]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count
