"""What a cache that is there was made with, and the refusal to change its values, or to fill other folders, unasked."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from patchatlas.errors import ResourceError, UsageError
from patchatlas.files import LOCK, holds_others
from patchatlas.pretrain.cache import FORMAT, INDEX_FILE, RECORD_FILE
from patchatlas.pretrain.index_report import REPORT_FILE
from patchatlas.pretrain.index_settings import Counting, Drawing, IndexSettings

_OWN = {INDEX_FILE, REPORT_FILE, LOCK, "volumes"}


def former_settings(folder: str | Path) -> IndexSettings | None:
    """The settings that a cache was made with; of one that was not finished, those of its last volume.

    Returns:
        `None` where there is no cache, or none whose settings can be made out.

    Raises:
        ResourceError: a description may not be read, or the disk fails.
    """
    folder = Path(folder)
    told = _settings(folder / INDEX_FILE, within="settings")
    if told is None:
        entries = [path for path in folder.glob(f"volumes/*/{RECORD_FILE}") if path.is_file()]
        for path in sorted(entries, key=lambda path: path.stat().st_mtime_ns, reverse=True):
            told = _settings(path, within=None)
            if told is not None:
                break
    return told


def continued(folder: str | Path, former: IndexSettings, *, masked: bool) -> IndexSettings:
    """The settings to go on with in a cache that is there.

    Args:
        folder: of the cache.
        former: what it was made with.
        masked: masks are given, which take the place of the body.

    Raises:
        UsageError: it was made with masks, and now there are none.
    """
    counting = former.counting
    if masked:
        kept = {name: getattr(counting, name) for name in ("cell_zyx", "thresholds")}
        return former.model_copy(update={"counting": Counting.model_validate(kept)})
    if counting.mask is not None:
        raise UsageError(
            f"{folder} counts as body what masks say ({counting.mask}); give them again with --mask (mask=... in "
            "Python), or say with --anew that the body is meant"
        )
    return former


def require_same_values(folder: str | Path, former: Drawing, asked: Drawing) -> None:
    """Refuse to make the volumes of a cache again, with other values.

    What only takes in volumes that were left out before is no other value: a spacing for arrays that do not tell,
    where none was given. Other units are: below -1024 only Hounsfield units are lifted.

    Raises:
        UsageError: which settings differ, and how to say that it is meant.
    """
    differing = {name: pair for name, pair in changes(former, asked).items() if not _widens(name, pair[0])}
    if differing:
        told = [(_option(name), *map(_text, pair)) for name, pair in differing.items()]
        before, now = (" ".join(f"{one[0]} {one[k]}" for one in told) for k in (1, 2))
        raise UsageError(
            f"{folder} was made with {before}, asked for is {now}: all its volumes would be read again and get other "
            f"values. Leave {', '.join(one[0] for one in told)} out to go on with its own, choose another folder, or "
            "say that it is meant with --anew (anew=True in Python)"
        )


def require_own(folder: str | Path) -> None:
    """Refuse a folder that holds other files and no cache.

    Raises:
        UsageError: it does.
        ResourceError: a description may not be read, or the disk fails.
    """
    folder = Path(folder)
    if not folder.is_dir() or former_settings(folder) is not None:
        return
    others = sorted(path.name for path in folder.iterdir() if path.name not in _OWN and not path.name.startswith("."))
    if _foreign(folder):
        others.append(INDEX_FILE)
    if others:
        raise holds_others(folder, "cache", some=others)


def changes(former: Drawing | Counting, asked: Drawing | Counting) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, each as it was and as it is asked for."""
    before, now = former.model_dump(), asked.model_dump()
    return {name: (before[name], now[name]) for name in before if before[name] != now[name]}


def described(changed: dict[str, tuple[Any, Any]]) -> str:
    """What `changes` found, in words."""
    return ", ".join(f"{name} {_text(before)} -> {_text(now)}" for name, (before, now) in changed.items())


def _widens(name: str, before: object) -> bool:
    return name == "assume_spacing_zyx" and before is None


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_text, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)


def _read(path: Path) -> object:
    try:
        read: object = json.loads(path.read_bytes())
        return read
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    except OSError as error:  # no settings to go on with, and those of a new cache would change its values
        raise ResourceError(
            f"cannot read {path} ({error.strerror or error}), which says how the cache was made; make it readable, or "
            "delete it, and run again"
        ) from error


def _settings(path: Path, *, within: str | None) -> IndexSettings | None:
    told = _read(path)
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        return None
    try:
        given = told if within is None else told[within]
        return IndexSettings.model_validate({name: given[name] for name in IndexSettings.model_fields})
    except (KeyError, TypeError, ValidationError):
        return None


def _foreign(folder: Path) -> bool:
    """Whether the index of a folder is not one of a cache; one that says nothing is, where there are no entries."""
    path = folder / INDEX_FILE
    if not path.exists():
        return False
    told = _read(path)
    if told is None:
        return path.is_dir() or not any(folder.glob(f"volumes/*/{RECORD_FILE}"))
    return not (isinstance(told, dict) and told.get("format") == FORMAT)
