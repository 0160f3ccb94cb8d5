"""Vectors kept on disk by what was embedded and how, so that nothing is embedded twice.

The format is docs/formats/reid-cache-v1.md. A row is found by the hash of its pixels, within a folder that is named by
the stamp: vectors of two encoders, or of one under two settings, never meet. Crops that could not be embedded are kept
as such.

Axes: n crops, d features.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import safetensors
import torch
from jaxtyping import Bool, Float32
from safetensors.torch import save_file
from torch import Tensor

from patchatlas import __version__
from patchatlas.arrays import ImageU8
from patchatlas.errors import FormatError
from patchatlas.files import replacing, sort_safetensors_metadata, write_text
from patchatlas.io.disk import disk_errors
from patchatlas.reid.embed.backend import Embedder
from patchatlas.spec import EncoderSpec
from patchatlas.stamp import Stamp

FORMAT = "patchatlas.reid-cache"
VERSION = 1

MakeRows = Callable[[Sequence[int]], tuple[Tensor, Tensor]]
"""Vectors (n, d) and which of them are any good (n), of the places that are asked for."""

log = logging.getLogger(__name__)


def key_of(*pictures: ImageU8) -> bytes:
    """SHA-256 over the sizes and pixels of pictures, in order."""
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(f"{picture.shape}".encode())
        digest.update(np.ascontiguousarray(picture).tobytes())
    return digest.digest()


class VectorCache:
    """Rows of one stamp in one folder; made when needed. What is kept is on the disk only after `flush`.

    Files are read once, when it is opened. One that is damaged, or is of another stamp, is passed over and said so.

    Args:
        folder: of the caches of all stamps.
        stamp: how the vectors are made.
        dim: length of a vector.
    """

    def __init__(self, folder: Path, stamp: Stamp, dim: int) -> None:
        self._folder, self._stamp, self._dim = folder / stamp.digest[:16], stamp, dim
        self._rows: dict[bytes, Tensor | None] = {}
        self._new: dict[bytes, Tensor | None] = {}
        for path in sorted(self._folder.glob("*.safetensors")):
            try:
                self._rows.update(self._read(path))
            except FormatError as error:
                log.warning("%s; its vectors are made anew", error)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: bytes) -> bool:
        return key in self._rows

    def get(self, key: bytes) -> Float32[Tensor, " d"] | None:
        """The vector, or None for a crop that could not be embedded.

        Raises:
            KeyError: it is not known.
        """
        return self._rows[key]

    def keep(self, key: bytes, vector: Float32[Tensor, " d"] | None) -> None:
        """Take in a row."""
        self._rows[key] = self._new[key] = vector

    def through(self, keys: Sequence[bytes], make: MakeRows) -> tuple[Float32[Tensor, "n d"], Bool[Tensor, " n"]]:
        """Rows of all keys, in order: those that are known, and the others as `make` gives them, which are then kept
        and on the disk.

        Args:
            make: vectors and which are any good, of the places in `keys` that it is given.

        Raises:
            ResourceError: the disk is full, or the folder may not be written.
        """
        unknown = {key: place for place, key in enumerate(keys) if key not in self}
        if unknown:
            found, valid = make(list(unknown.values()))
            for key, vector, good in zip(unknown, found, valid.tolist(), strict=True):
                self.keep(key, vector.clone() if good else None)
            self.flush()
        vectors, known = torch.full((len(keys), self._dim), torch.nan), torch.zeros(len(keys), dtype=torch.bool)
        for place, key in enumerate(keys):
            row = self.get(key)
            if row is not None:
                vectors[place], known[place] = row, True
        return vectors, known

    def flush(self) -> None:
        """Write what is new, in one step, as a file named by the hash of its keys.

        Raises:
            ResourceError: the disk is full, or the folder may not be written.
        """
        if not self._new:
            return
        keys = sorted(self._new)
        rows = [self._new[key] for key in keys]
        tensors = {
            "keys": torch.from_numpy(np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32).copy()),
            "valid": torch.tensor([row is not None for row in rows], dtype=torch.bool),
            "vectors": torch.stack([torch.full((self._dim,), torch.nan) if row is None else row for row in rows]),
        }
        header = {
            "format": FORMAT,
            "version": str(VERSION),
            "package": __version__,
            "stamp": self._stamp.to_json(),
            "sha256": _content(tensors),
        }
        path = self._folder / f"{hashlib.sha256(b''.join(keys)).hexdigest()[:16]}.safetensors"
        with disk_errors(path):
            self._folder.mkdir(parents=True, exist_ok=True)
            write_text(self._folder / "stamp.json", self._stamp.to_json() + "\n")
            with replacing(path) as temporary:
                save_file(tensors, temporary, header)
                sort_safetensors_metadata(temporary)
        self._new.clear()

    def _read(self, path: Path) -> dict[bytes, Tensor | None]:
        try:
            with safetensors.safe_open(path, framework="pt") as stored:
                header = stored.metadata() or {}
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}
        except (safetensors.SafetensorError, OSError) as error:
            raise FormatError(f"{path} is damaged ({error})") from error
        expected = {"format": FORMAT, "version": str(VERSION), "stamp": self._stamp.to_json()}
        for name, value in expected.items():
            if header.get(name) != value:
                raise FormatError(f"{path} has another {name} than {value}")
        if tensors.keys() != {"keys", "valid", "vectors"} or header.get("sha256") != _content(tensors):
            raise FormatError(f"{path} is not what was written there")
        keys = [bytes(row) for row in tensors["keys"].numpy()]
        parts = zip(keys, tensors["vectors"], tensors["valid"].tolist(), strict=True)
        return {key: vector if valid else None for key, vector, valid in parts}


class CachedEmbedder:
    """An embedder that looks into a cache first.

    Attributes:
        hits: crops that were known.
        misses: crops that were embedded.
    """

    def __init__(self, embedder: Embedder, folder: Path) -> None:
        self._embedder = embedder
        self._cache = VectorCache(folder, embedder.stamp, embedder.dim)
        self.hits = self.misses = 0

    @property
    def spec(self) -> EncoderSpec:
        """The facts of what makes the vectors."""
        return self._embedder.spec

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._embedder.dim

    @property
    def stamp(self) -> Stamp:
        """What the vectors depend on: the cache changes nothing."""
        return self._embedder.stamp

    def embed_crops(self, crops: Sequence[ImageU8]) -> tuple[Float32[Tensor, "n d"], Bool[Tensor, " n"]]:
        """As the embedder's; what is new is on the disk when this returns.

        Raises:
            ResourceError: the disk is full, or the folder may not be written.
        """
        before = len(self._cache)
        rows = self._cache.through([key_of(crop) for crop in crops], lambda places: self._make(crops, places))
        embedded = len(self._cache) - before
        self.misses, self.hits = self.misses + embedded, self.hits + len(crops) - embedded
        return rows

    def _make(self, crops: Sequence[ImageU8], places: Sequence[int]) -> tuple[Tensor, Tensor]:
        return self._embedder.embed_crops([crops[place] for place in places])


def _content(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in ("keys", "valid", "vectors"):
        if name in tensors:
            digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()
