"""A feature map: patch tokens that know which part of which picture each of them saw.

Axes: n patches (row-major over the grid), d features, r registers, k queries, p points.
"""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors
import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from patchatlas import __version__
from patchatlas.errors import FormatError, InputError, PatchAtlasError, ShapeError
from patchatlas.files import replacing, sort_safetensors_metadata
from patchatlas.geometry.grid import PatchGrid
from patchatlas.geometry.sampling import sample
from patchatlas.spec import EncoderSpec
from patchatlas.stamp import Stamp

FORMAT = "patchatlas.features"
VERSION = 1


@dataclass(frozen=True)
class Descriptors:
    """Feature vectors read from a map, with the stamp of the map.

    Attributes:
        vectors: one row a point.
        stamp: how they were made.
    """

    vectors: Float[Tensor, "k d"]
    stamp: Stamp


@dataclass(frozen=True)
class FeatureMap:
    """Tokens of one picture or volume on their grid.

    Attributes:
        tokens: patch tokens, row-major: token i is cell (i // columns, i % columns).
        grid: where each token's patch lies in the source.
        spec: the encoder that made them.
        stamp: everything that changes the numbers.
        cls: class token, where the encoder has one and saw the whole picture.
        registers: register tokens, likewise.
    """

    tokens: Float[Tensor, "n d"]
    grid: PatchGrid
    spec: EncoderSpec
    stamp: Stamp
    cls: Float[Tensor, " d"] | None = None
    registers: Float[Tensor, "r d"] | None = None

    def __post_init__(self) -> None:
        if self.tokens.shape[0] != self.grid.count:
            raise ShapeError(f"{self.tokens.shape[0]} tokens do not fill a grid of {self.grid.shape}")

    def as_grid(self) -> Float[Tensor, "d *shape"]:
        """The tokens as an array over the grid, features first; shares memory."""
        return self.tokens.T.reshape(-1, *self.grid.shape)

    def at(self, points_source: Float[Tensor, "p ndim"]) -> Descriptors:
        """Features at source points (x, y[, z]), linear between patch centres, float32."""
        return Descriptors(sample(self.as_grid(), self.grid.cells_of(points_source)), self.stamp)

    def similarity(self, query: Descriptors) -> Float[Tensor, "k *shape"]:
        """Cosine of each query with each patch, float32, -1..1; a zero vector has cosine 0 with everything.

        Raises:
            StampError: the query was made in another way; the message names what differs.
        """
        self.stamp.require(query.stamp)
        tokens = self.tokens.float()
        asked = F.normalize(query.vectors.to(tokens), dim=1)
        return ((asked @ tokens.T) / self._lengths).reshape(-1, *self.grid.shape)

    @cached_property
    def _lengths(self) -> Tensor:
        """Of the tokens; kept, since a map may be asked many times."""
        lengths: Tensor = torch.linalg.vector_norm(self.tokens.float(), dim=1)
        return lengths.clamp(min=1e-12)

    def pca(self, k: int = 3) -> "Pca":
        """Principal components of these tokens; see `fit_pca` for a basis shared by several maps."""
        return fit_pca([self], k)

    def save(self, path: str | Path) -> None:
        """Write a `.safetensors` file with tokens, grid, spec and stamp, in one step.

        Raises:
            InputError: the suffix is not `.safetensors`, or the folder does not exist.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            raise InputError(f"feature maps are stored as .safetensors, given {path.name}")
        tensors = {"tokens": self.tokens, "cls": self.cls, "registers": self.registers}
        header = {
            "format": FORMAT,
            "version": str(VERSION),
            "package": __version__,
            "stamp": self.stamp.to_json(),
            "spec": json.dumps(asdict(self.spec), sort_keys=True),
            "grid": json.dumps(self.grid.to_json(), sort_keys=True),
        }
        with replacing(path) as temporary:
            save_file(
                {k: t.detach().cpu().contiguous() for k, t in tensors.items() if t is not None}, temporary, header
            )
            sort_safetensors_metadata(temporary)

    @classmethod
    def load(cls, path: str | Path, *, expect: Stamp | None = None) -> "FeatureMap":
        """Read a map back.

        Args:
            path: a file that `save` wrote.
            expect: refuse the file unless its stamp is this one.

        Raises:
            InputError: there is no such file.
            FormatError: the file is not a feature map, is damaged, or is of a newer version.
            StampError: the stamp is not the expected one.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"there is no feature map {path}")
        try:
            with safetensors.safe_open(path, framework="pt") as stored:
                header: dict[str, str] = stored.metadata() or {}
                if header.get("format") != FORMAT:
                    raise FormatError(f"{path} is not a patchatlas feature map (format {header.get('format')!r})")
                if header.get("version") != str(VERSION):
                    raise FormatError(
                        f"{path} has version {header.get('version')} of {FORMAT}; this patchatlas ({__version__}) "
                        f"reads version {VERSION}"
                    )
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}
            stamp = Stamp.from_json(header["stamp"])
            grid = PatchGrid.from_json(json.loads(header["grid"]))
            spec = EncoderSpec(**_tuples(json.loads(header["spec"])))
            read = FeatureMap(tensors.pop("tokens"), grid, spec, stamp, **tensors)
        except PatchAtlasError:
            raise
        except (
            safetensors.SafetensorError,
            LookupError,
            TypeError,
            AttributeError,
            ValueError,
            ArithmeticError,
        ) as error:
            raise FormatError(f"{path} cannot be read as a feature map: {error}; encode the picture again") from error
        if expect is not None:
            stamp.require(expect)
        return read


@dataclass(frozen=True)
class Pca:
    """A linear basis in which feature maps can be shown.

    Attributes:
        mean: mean of the tokens it was fitted on.
        basis: orthonormal rows, largest variance first; in each row the entry of largest size is positive.
        variance: variance along each row.
        stamp: how the tokens were made.
    """

    mean: Float[Tensor, " d"]
    basis: Float[Tensor, "k d"]
    variance: Float[Tensor, " k"]
    stamp: Stamp

    def project(self, features: FeatureMap) -> Float[Tensor, "k *shape"]:
        """Coordinates of each patch in this basis, over the grid, float32.

        Raises:
            StampError: the map was made in another way than those the basis was fitted on.
        """
        self.stamp.require(features.stamp)
        centred = features.tokens.float() - self.mean
        return (centred @ self.basis.T).T.reshape(-1, *features.grid.shape)


def fit_pca(maps: list[FeatureMap], k: int = 3) -> Pca:
    """One basis for several maps, so that equal colours mean equal features.

    Signs are fixed (the largest entry of each row is positive), so the same tokens give the same picture everywhere.

    Raises:
        ShapeError: there are fewer tokens or features than components, or no map at all.
        StampError: the maps were made in different ways.
    """
    if not maps:
        raise ShapeError("fit_pca needs at least one feature map")
    for other in maps[1:]:
        maps[0].stamp.require(other.stamp, what="feature maps")
    tokens = torch.cat([m.tokens for m in maps]).double()
    if not 1 <= k <= min(tokens.shape):
        raise ShapeError(f"{k} components asked of {tokens.shape[0]} tokens with {tokens.shape[1]} features")
    mean = tokens.mean(dim=0)
    centred = tokens - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred / max(1, tokens.shape[0] - 1))
    basis = vectors.flip(1).T[:k]  # eigh sorts upwards
    largest = basis.gather(1, basis.abs().argmax(dim=1, keepdim=True))
    basis = basis * largest.sign()
    return Pca(mean.float(), basis.float(), values.flip(0)[:k].clamp(min=0).float(), maps[0].stamp)


def _tuples(stored: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in stored.items()}
