"""What a stage depends on, as one hash, and what differs between two runs, in words."""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from patchatlas.errors import InputError


def key_of(**parts: Any) -> str:
    """SHA-256 over the canonical JSON of all that a stage depends on, in hex."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hex.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot open {path}: {error.strerror}") from error


def differences(before: Mapping[str, Any], now: Mapping[str, Any], *, but: Collection[str] = ()) -> list[str]:
    """What two descriptions do not have in common, one line each.

    Args:
        but: names, with dots, that are not compared.
    """
    one, other = dict(_flat(before)), dict(_flat(now))
    names = [name for name in {**one, **other} if name not in but and one.get(name) != other.get(name)]
    return [f"{name}: {one.get(name)!r} before, {other.get(name)!r} now" for name in names]


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
