"""Entries of a cache whose sources have another name now, because another folder was named beside theirs: kept.

A source is named by its place in the folder that is indexed, and by that folder as well where there are several.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from patchatlas.files import write_text
from patchatlas.io.volumes.reasons import VolumeError
from patchatlas.io.volumes.sources import Source
from patchatlas.pretrain.cache import RECORD_FILE
from patchatlas.pretrain.entry import volume_id


def take_over(found: Sequence[Source], volumes: Path) -> None:
    """Give entries that no source stands for to sources that have none, where they are of the same files.

    That is where their names are alike, one of them without its first folder, and the sizes and times of the files are
    the same. Where several entries fit a source nothing is done: the volume is read again.

    Args:
        found: all sources.
        volumes: the folder of the entries.
    """
    there = entries_in(volumes)
    wanted = {volume_id(source.name): source for source in found}
    orphans = [told for name in sorted(there - wanted.keys()) if (told := _told(volumes / name)) is not None]
    if not orphans:
        return
    for name in sorted(wanted.keys() - there):
        fitting = [told for told in orphans if _fits(told, wanted[name])]
        if len(fitting) == 1:
            (told,) = fitting
            orphans.remove(told)
            folder = volumes / told["record"]["id"]
            told["record"] |= {"id": name, "source": wanted[name].name}
            # Killed in between, the entry says another name than its folder has, and is no entry.
            write_text(folder / RECORD_FILE, json.dumps(told, indent=1) + "\n")
            folder.rename(volumes / name)


def entries_in(volumes: Path) -> set[str]:
    """The names of all entries; other programs leave files and hidden folders among them."""
    return {path.name for path in volumes.iterdir() if path.is_dir() and not path.name.startswith(".")}


def _told(folder: Path) -> dict[str, Any] | None:
    """The description of an entry, as far as it is one; `entry.make_entry` looks closer."""
    try:
        told: dict[str, Any] = json.loads((folder / RECORD_FILE).read_bytes())
        return told if told["record"]["id"] == folder.name and isinstance(told["state"], str) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _fits(told: dict[str, Any], source: Source) -> bool:
    before = told["record"]["source"]
    names = (before, source.name)
    if not any(long.split("/", 1)[1:] == [short] for long, short in (names, names[::-1])):
        return False
    try:
        state = source.state()
    except VolumeError:
        return False
    return bool(told["state"] == state)
