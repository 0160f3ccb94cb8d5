"""Feature maps of photos kept on disk, so that a photo is encoded once; see docs/formats/feature-cache-v1.md.

A map is kept under a hash of everything that it depends on, so a stale one is never found; and beside it lies the hash
of its bytes, so a damaged one is never read. Either is simply made anew. Tokens are fp16, whether they come from the
disk or were made a moment ago: what is computed from them is the same in both cases.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from patchatlas import __version__
from patchatlas.dense import RESAMPLE_RULE
from patchatlas.errors import FormatError, InputError
from patchatlas.features import FeatureMap
from patchatlas.files import write_text
from patchatlas.geometry.frame import Frame
from patchatlas.io.disk import disk_errors
from patchatlas.locate.recipe import Recipe
from patchatlas.spec import EncoderSpec
from patchatlas.stamp import Stamp

log = logging.getLogger(__name__)

FORMAT = "patchatlas.feature-cache"
VERSION = 1

LARGEST = 65504.0
"""Of fp16 (IEEE 754 binary16)."""

Facts = Mapping[str, Any]


def facts_of(*, picture: str, mask: str | None, spec: EncoderSpec, recipe: Recipe, frame: Frame) -> Facts:
    """Everything that a map depends on, as plain JSON values.

    Args:
        picture: SHA-256 of the photo's bytes, in hex.
        mask: of its mask's bytes; `None` if it has none.
        spec: of the encoder as the recipe prepares it: weights, layers, norm, debiasing, arithmetic.
        recipe: its windows and global view; the size is in the frame.
        frame: what was drawn of the photo.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        "package": __version__,
        "picture_sha256": picture,
        "mask_sha256": mask,
        "encoder": json.loads(Stamp.of(spec).to_json()),
        "resample": RESAMPLE_RULE,
        "frame": frame.to_json(),
        "windows": recipe.windows,
        "global_view": recipe.windows is not None and recipe.global_view,
    }


def halved(features: FeatureMap) -> FeatureMap:
    """The map as it is kept: patch tokens only, fp16, on the CPU.

    Raises:
        FormatError: a token is not finite, or beyond what fp16 holds.
    """
    tokens = features.tokens.cpu()
    if not bool((tokens.abs() <= LARGEST).all()):  # NaN is not, either
        raise FormatError(f"{features.spec.name} gave numbers that fp16 does not hold; its features cannot be kept")
    return replace(features, tokens=tokens.to(torch.float16), cls=None, registers=None)


class FeatureCache:
    """Maps kept in one folder.

    Args:
        folder: where, made when needed; `None` keeps nothing.
        write: whether new maps are kept, too.
    """

    def __init__(self, folder: Path | None, *, write: bool = True) -> None:
        self._folder = folder
        self._write = write

    def read(self, facts: Facts) -> FeatureMap | None:
        """The map made under these facts, if it is there and whole."""
        if self._folder is None:
            return None
        path = self._path(self._folder, facts)
        try:
            beside = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            if _digest(beside["facts"]) == path.stem and beside["sha256"] == _sha256(path):
                return FeatureMap.load(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError, InputError) as error:
            log.warning("%s is damaged (%s); it is made anew", path, error)
            return None
        log.warning("%s is not what was written there; it is made anew", path)
        return None

    def keep(self, facts: Facts, features: FeatureMap) -> None:
        """Keep a map that `halved` gave.

        Raises:
            ResourceError: the disk is full, or the folder may not be written.
        """
        if self._folder is None or not self._write:
            return
        path = self._path(self._folder, facts)
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            features.save(path)
            beside = {"facts": facts, "sha256": _sha256(path)}
            write_text(path.with_suffix(".json"), json.dumps(beside, indent=2, sort_keys=True) + "\n")

    @staticmethod
    def _path(folder: Path, facts: Facts) -> Path:
        return folder / f"{_digest(facts)}.safetensors"


def _digest(facts: Facts) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
