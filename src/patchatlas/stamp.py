"""A stamp names everything that changes the numbers of a feature; features with different stamps are not mixed."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

from patchatlas.errors import StampError
from patchatlas.spec import EncoderSpec

StampValue = str | int | float | bool | tuple[int, ...] | tuple[float, ...]


@dataclass(frozen=True)
class Stamp:
    """Named facts, in a fixed order.

    Attributes:
        facts: (name, value) pairs sorted by name.
    """

    facts: tuple[tuple[str, StampValue], ...]

    @classmethod
    def of(cls, spec: EncoderSpec, **recipe: StampValue) -> "Stamp":
        """Stamp of features that `spec` made under `recipe` (resample rule, fill, ...).

        Name and source of the encoder stay out: the same weights under another name give the same numbers. `layers` and
        `debias` are facts only where they are in use, so features made without them keep the stamps that they have.
        """
        facts: dict[str, StampValue] = {
            "family": spec.family,
            "patch": spec.patch,
            "dim": spec.dim,
            "mean": spec.mean,
            "std": spec.std,
            "layer": spec.layer,
            "norm": spec.norm,
            "dtype": spec.dtype,
            "weights_sha256": spec.weights_sha256,
            "config_sha256": spec.config_sha256,
            **({"layers": spec.layers} if spec.layers else {}),
            **({"debias": spec.debias} if spec.debias else {}),
            **recipe,
        }
        return Stamp(tuple(sorted(facts.items())))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON of the facts, in hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces."""
        return json.dumps(dict(self.facts), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Stamp":
        """The inverse of `to_json`."""
        facts = {name: tuple(v) if isinstance(v, list) else v for name, v in json.loads(text).items()}
        return Stamp(tuple(sorted(facts.items())))

    def require(self, other: "Stamp", *, what: str = "features") -> None:
        """Refuse `other` unless it is equal.

        Raises:
            StampError: with the names and both values of the facts that differ.
        """
        mine, theirs = dict(self.facts), dict(other.facts)
        differing = [name for name in sorted(mine.keys() | theirs.keys()) if mine.get(name) != theirs.get(name)]
        if differing:
            pairs = "; ".join(f"{name}: {mine.get(name)!r} and {theirs.get(name)!r}" for name in differing)
            raise StampError(
                f"these {what} were made in different ways ({pairs}); encode both with the same encoder and settings"
            )
