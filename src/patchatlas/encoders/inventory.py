"""What encoders there are: the facts of each, where to get its weights, and whether they are on this machine.

Asks neither the network nor torch, so that the list comes at once.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from patchatlas.encoders import bundled
from patchatlas.encoders.catalogue import CATALOGUE, Entry, find
from patchatlas.encoders.naming import find_locally
from patchatlas.encoders.suffixes import SUFFIXES
from patchatlas.errors import UsageError

EXTRAS = {"sift": ("opencv", "cv2"), "convnext": ("transformers", "transformers"), "vjepa2": ("transformers",) * 2}
"""Families that need an optional dependency: the extra that installs it, and the module that shows that it is there."""

SIFT_DIM, SIFT_PATCH, SIFT_LICENCE = 384, (8, 8), "Apache-2.0 (OpenCV)"
"""As `sift.py` has them, which imports torch; a test holds them together."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A place to get weights from.

    Attributes:
        id: on the Hugging Face hub.
        gated: whether it asks for an account and consent.
    """

    id: str
    gated: bool


@dataclass(frozen=True, kw_only=True)
class Item:
    """One encoder.

    Attributes:
        name: what it is called here.
        family: kind of network.
        parameters: numbers in the network.
        dim: length of a token.
        patch: patch size, (h, w) or (frames, h, w).
        registers: register tokens.
        licence: of the weights.
        size_bytes: about the size of a download in float32; of a bundled file, its size.
        sha256_start: first digits of the hash of `file`, as far as its publisher tells.
        file: the publisher's own file name.
        sources: ids on the hub, those that are not gated first.
        gated: whether every place to get it from asks for an account and consent.
        bundled: whether it comes with the package.
        path: the weights on this machine, if they are here.
        bytes_here: of the weights at `path`.
        extra: the extra of patchatlas that it needs besides weights.
        extra_installed: whether that is installed.
        has_card: whether a model card comes with it, see `bundled.card`.
    """

    name: str
    family: str
    parameters: int | None
    dim: int
    patch: tuple[int, ...]
    registers: int
    licence: str
    size_bytes: int | None
    sha256_start: str | None
    file: str | None
    sources: tuple[Source, ...]
    gated: bool
    bundled: bool
    path: Path | None
    bytes_here: int | None
    extra: str | None
    extra_installed: bool
    has_card: bool = False

    @property
    def ready(self) -> bool:
        """Whether it can be loaded now."""
        return (self.bundled or self.path is not None) and self.extra_installed

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        path = None if self.path is None else str(self.path)
        return {**asdict(self), "path": path, "ready": self.ready}


def take(names: Iterable[str] = ()) -> list[Item]:
    """The encoders with these names (or hub ids, or publishers' file names), or all: bundled ones, then the catalogue.

    Raises:
        UsageError: a name that is not known.
    """
    asked = list(names)
    if not asked:
        return [*map(_bundled, bundled.names()), *map(_catalogued, CATALOGUE.values())]
    return [_named(name) for name in asked]


def _named(name: str) -> Item:
    here = name.removeprefix(bundled.PREFIX)
    if here in bundled.names():
        return _bundled(here)
    entry = find(name)
    if entry is None:
        known = ", ".join([*(bundled.PREFIX + one for one in bundled.names()), *CATALOGUE])
        raise UsageError(f"no encoder in the catalogue is called {name!r}; there are: {known}")
    return _catalogued(entry)


def _catalogued(entry: Entry) -> Item:
    path = find_locally(entry)
    extra, installed = _extra(entry.family)
    places = [Source(id=entry.timm_id, gated=False)] if entry.timm_id else []
    places += [Source(id=entry.hf_id, gated=entry.gated)] if entry.hf_id else []
    return Item(
        name=entry.name,
        family=entry.family,
        parameters=entry.parameters,
        dim=entry.dim,
        patch=entry.patch,
        registers=entry.registers,
        licence=entry.licence,
        size_bytes=entry.size_bytes,
        sha256_start=entry.sha256_start,
        file=entry.meta_file,
        sources=tuple(places),
        gated=entry.gated and all(place.gated for place in places),
        bundled=False,
        path=path,
        bytes_here=None if path is None else _bytes_of_weights(path),
        extra=extra,
        extra_installed=installed,
    )


def _bundled(name: str) -> Item:
    return _sift(name) if name in bundled.WITHOUT_WEIGHTS else _bundled_weights(name)


def _bundled_weights(name: str) -> Item:
    told, path = bundled.outline(name), bundled.weights_file(name)
    return Item(
        name=bundled.PREFIX + name,
        family=told.family,
        parameters=told.parameters,
        dim=told.dim,
        patch=told.patch,
        registers=told.registers,
        licence=told.licence,
        size_bytes=path.stat().st_size,
        sha256_start=bundled.SHA256[name][:8],
        file=path.name,
        sources=(),
        gated=False,
        bundled=True,
        path=path,
        bytes_here=path.stat().st_size,
        extra=None,
        extra_installed=True,
        has_card=True,
    )


def _sift(name: str) -> Item:
    assert name == "sift", "the one bundled encoder without weights"
    extra, installed = _extra(name)
    return Item(
        name=f"bundled:{name}",
        family=name,
        parameters=0,
        dim=SIFT_DIM,
        patch=SIFT_PATCH,
        registers=0,
        licence=SIFT_LICENCE,
        size_bytes=0,
        sha256_start=None,
        file=None,
        sources=(),
        gated=False,
        bundled=True,
        path=None,
        bytes_here=None,
        extra=extra,
        extra_installed=installed,
    )


def _extra(family: str) -> tuple[str | None, bool]:
    if family not in EXTRAS:
        return None, True
    extra, module = EXTRAS[family]
    return extra, find_spec(module) is not None


def _bytes_of_weights(path: Path) -> int:
    """Of a file, or of the files in a folder that may hold tensors."""
    files = [path] if path.is_file() else [file for file in path.iterdir() if file.suffix in SUFFIXES]
    return sum(file.stat().st_size for file in files)
