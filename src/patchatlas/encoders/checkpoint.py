"""Read weights from a file or folder, safely: tensors, the JSON beside them, their licence and their hash.

Nothing in a file is executed: `torch.load` runs with `weights_only=True` and is never tried again without it;
safetensors hold no code.
"""

import hashlib
import json
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from patchatlas.encoders.suffixes import IN_FOLDERS, SUFFIXES
from patchatlas.errors import WeightsError

WRAPPERS = ("teacher", "model", "state_dict", "model_state_dict", "module")
"""Entries under which training programs store the state dict of a network."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Weights as they were found.

    Attributes:
        state: tensors by their foreign names, on the CPU, mapped from the file where that is possible.
        metadata: header of a single safetensors file.
        config: `config.json` beside the weights, empty if there is none.
        preprocessor: `preprocessor_config.json` beside the weights, empty if there is none.
        licence: what `README.md` beside the weights says, `None` if nothing.
        sha256: of the file, or of the sorted `name:hash` lines of several shards.
    """

    state: dict[str, Tensor]
    metadata: dict[str, str]
    config: dict[str, Any]
    preprocessor: dict[str, Any]
    licence: str | None
    sha256: str


def read(path: Path) -> Checkpoint:
    """Read the weights at `path`, a file or a folder.

    Raises:
        WeightsError: nothing there, several candidates, or a file that is damaged or unsafe.
    """
    files = weight_files(path)
    state: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for file in files:
        tensors, metadata = _read_safetensors(file) if file.suffix == ".safetensors" else (read_pickled(file), {})
        state.update(tensors)
    folder = folder_of(path)
    return Checkpoint(
        state=state,
        metadata=metadata if len(files) == 1 else {},
        config=read_json(folder, "config.json"),
        preprocessor=read_json(folder, "preprocessor_config.json"),
        licence=_licence(folder),
        sha256=digest(files),
    )


def folder_of(path: Path) -> Path | None:
    """The folder whose JSON files belong to the weights: `path` itself, or that of a file with a folder's usual
    name."""
    if path.is_dir():
        return path
    return path.parent if path.name in IN_FOLDERS else None


def weight_files(path: Path) -> tuple[Path, ...]:
    """The files that hold the tensors, sorted by name; only a shard index is read.

    Raises:
        WeightsError: nothing there, several candidates, or shards missing.
    """
    if not path.exists():
        raise WeightsError(f"{path} does not exist; give a file ({', '.join(SUFFIXES)}) or a folder with weights")
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise WeightsError(
                f"{path.name} has the suffix {path.suffix or '(none)'}; weights are {', '.join(SUFFIXES)}"
            )
        return (path,)
    for name in IN_FOLDERS:
        index = path / f"{name}.index.json"
        if index.exists():
            return _shards(index)
        if (path / name).exists():
            return (path / name,)
    candidates = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if len(candidates) == 1:
        return (candidates[0],)
    found = ", ".join(file.name for file in candidates) or "no weights"
    raise WeightsError(
        f"{path} holds {found}; one file of {', '.join(IN_FOLDERS)} is expected, or give the file itself"
    )


def digest(files: Sequence[Path]) -> str:
    """SHA-256 in hex of one file's bytes, or of the sorted lines `name:hash` of several."""
    hashes = {}
    for file in files:
        with file.open("rb") as handle:
            hashes[file.name] = hashlib.file_digest(handle, "sha256").hexdigest()
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    lines = "\n".join(f"{name}:{value}" for name, value in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def read_json(folder: Path | None, name: str) -> dict[str, Any]:
    """A JSON object in `folder`, empty if there is no such file.

    Raises:
        WeightsError: the file is not a JSON object.
    """
    if folder is None or not (folder / name).exists():
        return {}
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise WeightsError(f"{folder / name} is not JSON ({error}); download it again") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{folder / name} is not a JSON object; download it again")
    return content


def _shards(index: Path) -> tuple[Path, ...]:
    weight_map = read_json(index.parent, index.name).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(f"{index} has no weight_map; download it again")
    names = sorted(set(weight_map.values()))
    if any(Path(name).name != name for name in names):
        raise WeightsError(f"{index} names files outside its folder; do not use it")
    missing = [name for name in names if not (index.parent / name).exists()]
    if missing:
        raise WeightsError(f"{index.parent} lacks the shards {', '.join(missing)}; download them again")
    return tuple(index.parent / name for name in names)


def _read_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(file, framework="pt") as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}, dict(opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file} is not a whole safetensors file ({error}); download it again") from error


def read_pickled(file: Path) -> dict[str, Tensor]:
    """Tensors by name of a `.pth`, `.pt` or `.bin` file, mapped from it where its format allows.

    Raises:
        WeightsError: damaged, holding code, or without a state dict.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(
            f"{file} cannot be read as plain tensors ({reason}). "
            "It is damaged, or holds code, which is never run; download it again or ask its author for safetensors"
        ) from error
    return _tensors(content, file)


def _tensors(content: Any, file: Path) -> dict[str, Tensor]:
    """The state dict in what was loaded: itself, or the first wrapper that holds one."""
    if isinstance(content, Mapping):
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return {str(key): value for key, value in content.items()}
        for wrapper in WRAPPERS:
            if isinstance(content.get(wrapper), Mapping):
                return _tensors(content[wrapper], file)
    raise WeightsError(f"{file} holds no state dict: neither tensors by name nor one under {', '.join(WRAPPERS)}")


def _licence(folder: Path | None) -> str | None:
    """`license_name` or `license` of the front matter of a model card (hub documentation, "Model Cards")."""
    if folder is None or not (folder / "README.md").exists():
        return None
    lines = (folder / "README.md").read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or lines[0].strip() != "---":
        return None
    fields: dict[str, str] = {}
    for line in lines[1:]:
        if line.strip() == "---":
            break
        name, _, value = line.partition(":")
        fields[name] = value.strip().strip("\"'")
    return fields.get("license_name") or fields.get("license") or None
