"""The flags that say how landmarks are looked for and with which encoder, shared by the commands that look for them.

tyro makes flags of the fields; a field's docstring is its help.
"""

import re
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from pydantic import Field

from patchatlas.cli.console import Output
from patchatlas.errors import UsageError

if TYPE_CHECKING:
    from patchatlas.encoders.protocol import Encoder
    from patchatlas.geometry.turns import TurnKind
    from patchatlas.locate.recipe import Recipe

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


class SearchOptions(Output):
    """Encoder, input size, and every option of a search; see docs/locate.md."""

    encoder: Annotated[str | None, tyro.conf.arg(metavar="NAME|PATH")] = None
    """Weights file or folder, hub id, catalogue name, bundled:sift or bundled:vit-tiny16."""
    dino_size: Literal["small", "base", "large"] | None = None
    """DINOv3 of that size from the catalogue, in place of --encoder; base if neither is given."""
    image_size: Annotated[int, Field(gt=0)] = 896
    """Long side of the pictures as the encoder sees them, a multiple of its patch."""
    windows: int | None = None
    """Encode in overlapping windows of so many pixels, below --image-size; for large image sizes."""
    global_view: bool = True
    """With --windows: set what the encoder makes of the whole picture beside what it makes of the windows."""
    max_memory: Annotated[str | None, tyro.conf.arg(metavar="SIZE")] = None
    """Memory that the activations of the encoder may take, such as 2GB or 500MB."""
    debias: int = 0
    """Take so many directions of position out of the tokens, found on an empty picture."""
    layers: Annotated[str | None, tyro.conf.arg(metavar="N,N")] = None
    """Blocks of the encoder whose tokens are set side by side, counted from 0, such as 11,17."""
    tta: Annotated[str | None, tyro.conf.arg(metavar="flip,rot90")] = None
    """Try SOURCE mirrored (flip), turned by quarters (rot90) or both as well, and keep what matches best."""
    peak: Literal["parabola", "soft-argmax"] = "parabola"
    """How a place is told to a part of a patch."""
    jitter: Annotated[int | None, tyro.conf.arg(metavar="PIXELS")] = None
    """Look again at the best places with patches so many encoder pixels apart; a part of the patch."""
    zoom: Annotated[float | None, tyro.conf.arg(metavar="FACTOR")] = None
    """Look again at the best places, both pictures magnified so many times."""
    candidates: int = 3
    """How many of the best places --jitter and --zoom look at."""
    masks: bool = True
    """Heed the mask beside a picture (photo.jpg.mask.png): what is outside is neither answer nor rival."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the encoder; auto takes bf16 where the hardware has it."""

    def recipe(self) -> "Recipe":
        """How to look.

        Raises:
            UsageError: options that make no sense, or not together.
        """
        from patchatlas.locate.recipe import Recipe

        if self.encoder is not None and self.dino_size is not None:
            raise UsageError("give either --encoder or --dino-size, not both")
        return Recipe(
            image_size=self.image_size,
            windows=self.windows,
            global_view=self.global_view,
            max_memory=None if self.max_memory is None else parse_bytes(self.max_memory),
            debias=self.debias,
            layers=() if self.layers is None else parse_layers(self.layers),
            turns=() if self.tta is None else parse_turns(self.tta),
            peak=self.peak,
            jitter=self.jitter,
            zoom=self.zoom,
            candidates=self.candidates,
        )

    def load(self) -> "Encoder":
        """The encoder.

        Raises:
            WeightsError: it cannot be had.
            UsageError: a device or arithmetic that is not known.
        """
        from patchatlas.encoders.catalogue import DINO_SIZES
        from patchatlas.encoders.loading import load_encoder

        name = self.encoder or DINO_SIZES[self.dino_size or "base"]
        return load_encoder(name, device=self.device, dtype=self.dtype)


def parse_bytes(text: str) -> int:
    """Bytes of a size such as 2GB (1000s), 1.5GiB (1024s) or 500000000.

    Raises:
        UsageError: not a number with one of the units.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Z]*)\s*", text.upper())
    if found is None or found[2] not in UNITS:
        raise UsageError(f"--max-memory {text!r} is no size; write 2GB, 500MB, 1.5GiB or a number of bytes")
    return int(float(found[1]) * UNITS[found[2]])


def parse_layers(text: str) -> tuple[int, ...]:
    """Block numbers of "11,17".

    Raises:
        UsageError: not whole numbers with commas between.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--layers {text!r} are no blocks; write their numbers, counted from 0, as 11,17") from error


def parse_turns(text: str) -> "tuple[TurnKind, ...]":
    """What "flip,rot90" asks for.

    Raises:
        UsageError: another word.
    """
    known: dict[str, TurnKind] = {"flip": "flip", "rot90": "rot90"}
    try:
        return tuple(known[part.strip()] for part in text.split(","))
    except KeyError as error:
        raise UsageError(f"--tta {text!r} is not known; write flip, rot90 or flip,rot90") from error
