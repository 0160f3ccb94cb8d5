"""How a landmark is looked for: every option that changes the answer, in one value that is checked when it is made."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from patchatlas.errors import UsageError
from patchatlas.geometry.turns import TurnKind

PeakRule = Literal["parabola", "soft-argmax"]

MOST_CANDIDATES = 5
"""The best place and its four runners-up: a finding has no more."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is done to two pictures to find a point of one in the other.

    What depends on the encoder (whether it has such layers, whether windows are whole patches) is checked where the
    encoder is known.

    Attributes:
        image_size: long side of both pictures as the encoder sees them, in input pixels; a multiple of the patch.
        windows: side of overlapping square windows, in input pixels; without it one forward sees the whole picture.
        global_view: with windows, set the tokens of the whole picture, encoded at the size of a window, beside theirs.
        max_memory: bytes that the activations of a forward may take.
        debias: directions taken out of the tokens, those in which the tokens of an empty picture differ by position.
        layers: blocks whose tokens are set side by side, counted from 0, ascending; without any, the encoder's own.
        turns: also look from the source mirrored (`flip`), turned by quarters (`rot90`) or all eight ways (both).
        peak: how a peak is placed within its patch: `matching.peaks.refine` or `matching.peaks.soft_argmax`.
        jitter: stride, in input pixels, of the finer patches about the best places; divides the patch.
        zoom: magnification of the second look at the best places, above 1.
        candidates: how many of the best places `jitter` and `zoom` look at, 1..5.

    Raises:
        UsageError: a value outside its range, one that needs another that is not there, or a name twice.
    """

    image_size: int = 896
    windows: int | None = None
    global_view: bool = True
    max_memory: int | None = None
    debias: int = 0
    layers: tuple[int, ...] = ()
    turns: tuple[TurnKind, ...] = ()
    peak: PeakRule = "parabola"
    jitter: int | None = None
    zoom: float | None = None
    candidates: int = 3

    def __post_init__(self) -> None:
        for name in ("image_size", "windows", "max_memory", "jitter"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"{name} {value} is not positive; give at least 1, or leave it out")
        _require(
            self.windows is None or self.windows < self.image_size,
            f"windows of {self.windows} px see all of an image size of {self.image_size} at once; give smaller ones, "
            "a larger image size, or no windows",
        )
        _require(
            self.global_view or self.windows is not None,
            "global_view off leaves nothing out: without windows the whole picture is all there is; give windows too",
        )
        _require(self.debias >= 0, f"debias {self.debias} is negative; give the number of directions, 0 for none")
        _require(
            all(layer >= 0 for layer in self.layers) and list(self.layers) == sorted(set(self.layers)),
            f"layers {_listed(self.layers)} are not ascending block numbers from 0; write them as 11,17",
        )
        _require(
            not (self.debias and self.layers),
            "debias works on the tokens of one layer as they are, layers scales them; leave out one of the two",
        )
        _require(
            set(self.turns) <= set(get_args(TurnKind)) and len(set(self.turns)) == len(self.turns),
            f"turns {_listed(self.turns)} are not flip, rot90 or both, each once",
        )
        _require(self.peak in get_args(PeakRule), f"peak {self.peak!r} is none of {_listed(get_args(PeakRule))}")
        _require(
            self.zoom is None or (math.isfinite(self.zoom) and self.zoom > 1),
            f"zoom {self.zoom} does not magnify; give a number above 1, such as 2.4, or leave it out",
        )
        _require(
            1 <= self.candidates <= MOST_CANDIDATES,
            f"candidates {self.candidates} is not in 1..{MOST_CANDIDATES}; there are no more places to look at",
        )
        _require(
            self.closer or self.candidates == Recipe.candidates,
            f"candidates {self.candidates} has nothing to choose for; give jitter or zoom too, or leave it out",
        )

    @property
    def closer(self) -> bool:
        """Whether the best places are looked at a second time."""
        return self.jitter is not None or self.zoom is not None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, all of them, defaults too."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Recipe":
        """The inverse of `to_json`.

        Raises:
            UsageError: a name that is no option, or as when a recipe is made.
        """
        known: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in stored.items()}
        _require(known.keys() <= asdict(cls()).keys(), f"a recipe of other options than these: {_listed(known)}")
        return cls(**known)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise UsageError(otherwise)


def _listed(values: object) -> str:
    return ", ".join(str(value) for value in values) if isinstance(values, tuple | dict) else str(values)
