"""Mean and spread of stored features, per channel and of their norms, over a data set and over several workers.

Sums run in float64 by the pairwise update of Chan, Golub and LeVeque (Updating formulae and a pairwise algorithm for
computing sample variances, 1979, equations 2.1), so neither the order of the pictures nor how they are shared out shows
beyond 1e-12.

Axes: n tokens, d channels.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from jaxtyping import Float32, Float64
from safetensors.torch import save_file
from torch import Tensor

from patchatlas import __version__
from patchatlas.datasets.loader import Normalisation
from patchatlas.datasets.reading import as_tokens, entry_of
from patchatlas.errors import FormatError, InputError, PatchAtlasError, UsageError
from patchatlas.files import replacing, sort_safetensors_metadata, write_text
from patchatlas.io.disk import disk_errors
from patchatlas.io.feature_store import FeatureStore
from patchatlas.io.manifest import Record
from patchatlas.stamp import Stamp

FORMAT = "patchatlas.statistics"
VERSION = 1


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of vectors.

    Attributes:
        count: vectors seen.
        mean: of each channel.
        squares: sum over the vectors of (x - mean)^2, of each channel.
    """

    count: int
    mean: Float64[Tensor, " d"]
    squares: Float64[Tensor, " d"]

    @classmethod
    def of(cls, values: Float32[Tensor, "n d"] | Float64[Tensor, "n d"]) -> "Moments":
        """Moments of the rows, in two passes."""
        values = values.double()
        mean = values.mean(dim=0)
        return Moments(len(values), mean, (values - mean).square().sum(dim=0))

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both sets of vectors together."""
        count = self.count + other.count
        step = other.mean - self.mean
        mean = self.mean + step * (other.count / count)
        squares = self.squares + other.squares + step.square() * (self.count * other.count / count)
        return Moments(count, mean, squares)

    @property
    def std(self) -> Float64[Tensor, " d"]:
        """Standard deviation of each channel over the vectors seen (divided by their number, not one less)."""
        return (self.squares / self.count).sqrt()


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What a kind of features is like over a data set.

    Attributes:
        kind: `dinov3_patches`, ...
        stamp: how the features were made.
        images: pictures seen.
        channels: moments of each channel over all tokens.
        norms: moments of the tokens' Euclidean norms, one channel.
        norm_min: the smallest norm.
        norm_max: the largest norm.
    """

    kind: str
    stamp: Stamp
    images: int
    channels: Moments
    norms: Moments
    norm_min: float
    norm_max: float

    def merge(self, other: "Statistics") -> "Statistics":
        """Statistics of both parts of a data set together; the parts must not share pictures.

        Raises:
            InputError: they are of two kinds.
            StampError: the features were made in different ways.
        """
        if self.kind != other.kind:
            raise InputError(f"statistics of {self.kind} and of {other.kind} do not add up")
        self.stamp.require(other.stamp, what=f"statistics of {self.kind}")
        return Statistics(
            kind=self.kind,
            stamp=self.stamp,
            images=self.images + other.images,
            channels=self.channels.merge(other.channels),
            norms=self.norms.merge(other.norms),
            norm_min=min(self.norm_min, other.norm_min),
            norm_max=max(self.norm_max, other.norm_max),
        )

    def normalisation(self) -> Normalisation:
        """What the loader takes to bring each channel to mean 0 and deviation 1."""
        return Normalisation(mean=self.channels.mean.tolist(), std=self.channels.std.tolist(), stamp=self.stamp)

    def save(self, path: str | Path) -> None:
        """Write `.json`, or `.safetensors` with `mean`, `std`, `variance` and `squares` of the channels in float64.

        Raises:
            UsageError: another suffix.
            ResourceError: the disk is full, or the folder may not be written.
        """
        path = Path(path)
        if path.suffix not in (".json", ".safetensors"):
            raise UsageError(f"statistics are stored as .json or .safetensors, given {path.name}")
        with disk_errors(path):
            if path.suffix == ".json":
                write_text(path, json.dumps({**self.to_json(), **_lists(self.channels)}, indent=2) + "\n")
                return
            tensors = {
                "mean": self.channels.mean,
                "std": self.channels.std,
                "variance": self.channels.std.square(),
                "squares": self.channels.squares,
            }
            with replacing(path) as temporary:
                save_file(tensors, temporary, {key: json.dumps(value) for key, value in self.to_json().items()})
                sort_safetensors_metadata(temporary)

    def to_json(self) -> dict[str, Any]:
        """Everything but the channels, as plain values."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "package": __version__,
            "kind": self.kind,
            "stamp": json.loads(self.stamp.to_json()),
            "images": self.images,
            "tokens": self.channels.count,
            "norm": {
                "mean": self.norms.mean.item(),
                "std": self.norms.std.item(),
                "squares": self.norms.squares.item(),
                "min": self.norm_min,
                "max": self.norm_max,
            },
        }

    @classmethod
    def load(cls, path: str | Path) -> "Statistics":
        """Read what `save` wrote.

        Raises:
            InputError: there is no such file.
            FormatError: it is no file of statistics, or a newer version.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"there is no file {path}")
        try:
            facts, channels = _read(path)
            if (facts["format"], facts["version"]) != (FORMAT, VERSION):
                raise FormatError(f"{path} is {facts['format']!r} version {facts['version']}, not {FORMAT} {VERSION}")
            norm, count = facts["norm"], facts["tokens"]
            return Statistics(
                kind=facts["kind"],
                stamp=Stamp.from_json(json.dumps(facts["stamp"])),
                images=facts["images"],
                channels=Moments(count, channels["mean"], channels["squares"]),
                norms=Moments(count, _one(norm["mean"]), _one(norm["squares"])),
                norm_min=norm["min"],
                norm_max=norm["max"],
            )
        except PatchAtlasError:
            raise
        except (safetensors.SafetensorError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise FormatError(f"{path} cannot be read as statistics: {error}; take them again") from error


def statistics_of(tokens: Float32[Tensor, "n d"], *, kind: str, stamp: Stamp) -> Statistics:
    """Statistics of the tokens of one picture."""
    norms = tokens.double().norm(dim=1)
    return Statistics(
        kind=kind,
        stamp=stamp,
        images=1,
        channels=Moments.of(tokens),
        norms=Moments.of(norms[:, None]),
        norm_min=norms.min().item(),
        norm_max=norms.max().item(),
    )


def dataset_statistics(
    records: Iterable[Record],
    store: FeatureStore,
    kind: str,
    *,
    on_progress: Callable[[int], None] | None = None,
) -> Statistics:
    """Statistics of one kind over all pictures that were not skipped.

    Args:
        records: of the manifest, or a worker's part of them.
        store: where the features lie.
        kind: latents count as tokens of their channels, CLS as one token.
        on_progress: is told how many pictures are done.

    Raises:
        InputError: no picture has this kind, or one that was not skipped lacks it.
        StampError: the features were made in different ways.
        FormatError: a file is not what the manifest says.
    """
    total: Statistics | None = None
    for done, record in enumerate((record for record in records if record.status == "ok"), start=1):
        entry = entry_of(record, kind)
        stamp = store.stamp_of(store.path(entry).parent)
        one = statistics_of(as_tokens(store.read(entry)), kind=kind, stamp=stamp)
        total = one if total is None else total.merge(one)
        if on_progress is not None:
            on_progress(done)
    if total is None:
        raise InputError(f"no picture has {kind}; run `features build` first, or name another kind")
    return total


def merge_statistics(parts: Sequence[Statistics]) -> Statistics:
    """Statistics of several parts of a data set together.

    Raises:
        InputError: there is no part, or parts of two kinds.
        StampError: the features were made in different ways.
    """
    if not parts:
        raise InputError("there are no statistics to merge")
    total = parts[0]
    for part in parts[1:]:
        total = total.merge(part)
    return total


def _lists(channels: Moments) -> dict[str, list[float]]:
    return {"mean": channels.mean.tolist(), "std": channels.std.tolist(), "squares": channels.squares.tolist()}


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Facts, and mean and squares of the channels."""
    if path.suffix == ".json":
        facts = json.loads(path.read_text(encoding="utf-8"))
        tensors = {name: torch.tensor(facts[name], dtype=torch.float64) for name in ("mean", "squares")}
    else:
        with safetensors.safe_open(path, framework="pt") as stored:
            facts = {key: json.loads(value) for key, value in (stored.metadata() or {}).items()}
            tensors = {name: stored.get_tensor(name) for name in ("mean", "squares")}
    if tensors["mean"].ndim != 1 or tensors["mean"].shape != tensors["squares"].shape or facts["tokens"] < 1:
        raise FormatError(f"{path}: mean and squares are not one number a channel, or of no tokens")
    return facts, tensors


def _one(value: float) -> Float64[Tensor, " one"]:
    if not math.isfinite(value):
        raise FormatError(f"a norm of {value} is no norm")
    return torch.tensor([value], dtype=torch.float64)
