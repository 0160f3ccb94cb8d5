"""One volume of a cache: read from its source, or recognised as there already, or counted anew.

An entry is a folder with the values, the tables and a description; it is put in place whole. The layout is in
docs/formats/volume-cache-v1.md.
"""

import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int16

from patchatlas import __version__
from patchatlas.errors import FormatError, InputError
from patchatlas.files import replacing_folder, write_text
from patchatlas.io.disk import disk_errors
from patchatlas.io.scans.archive import write_npz
from patchatlas.io.volumes.b2nd import open_b2nd, write_b2nd
from patchatlas.io.volumes.reasons import VolumeError
from patchatlas.io.volumes.sources import Source, read_source
from patchatlas.pretrain.cache import FORMAT, RECORD_FILE, TABLES_FILE, VALUES_FILE, VERSION, VolumeRecord
from patchatlas.pretrain.index_settings import IndexSettings
from patchatlas.pretrain.tables import Tables, count_tables

How = Literal["made", "kept", "counted"]
"""Read and written, left as it was, or counted again from the values that were there."""

_LONGEST = 60
"""Characters of a source's name in the name of its folder."""


@dataclass(frozen=True)
class Done:
    """An entry that is in place.

    Attributes:
        record: what it holds.
        how: how it came there.
    """

    record: VolumeRecord
    how: How


def volume_id(name: str) -> str:
    """The folder of a source's entry: its name in plain letters, and eight digits that tell equal ones apart."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[-_LONGEST:].strip(".-")
    return f"{plain or 'volume'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def make_entry(source: Source, folder: Path, settings: IndexSettings) -> Done:
    """Bring the entry of a source up to date.

    Args:
        source: the volume.
        folder: of its entry, whether it is there or not.
        settings: how.

    Raises:
        VolumeError: the volume cannot be used. An entry that was there stays until it is replaced; no index names it.
        ResourceError: the disk.
        MissingExtraError: a library that it needs is not installed.
    """
    try:
        state = source.state()
        stored = _stored(folder)
        if stored is None or stored["drawing"] != settings.drawing.model_dump(mode="json"):
            return _make(source, folder, settings, state=state, sha256=source.sha256())
        record = VolumeRecord.from_json(stored["record"])
        if stored["state"] != state:  # written since; perhaps the same bytes
            sha256 = source.sha256()
            if sha256 != record.sha256:
                return _make(source, folder, settings, state=state, sha256=sha256)
        if stored["counting"] != settings.counting.model_dump(mode="json"):
            values = _whole(folder)
            if values is None:
                return _make(source, folder, settings, state=state, sha256=record.sha256)
            return _count(record, values, folder, settings, state=state)
        if stored["state"] != state:
            with disk_errors(folder):
                write_text(folder / RECORD_FILE, _description(record, settings, state))
        return Done(record, "kept")
    except FileNotFoundError as error:
        raise VolumeError(f"it is gone: {error}", reason="missing") from error
    except PermissionError as error:
        raise VolumeError(f"it may not be opened: {error}", reason="unreadable") from error


def _make(source: Source, folder: Path, settings: IndexSettings, *, state: str, sha256: str) -> Done:
    volume = read_source(source, settings.drawing.declared())
    facts = dict(volume.facts)
    if settings.drawing.spacing_zyx is not None:
        from patchatlas.pretrain.resampling import resample_volume  # torch loads for seconds, in every worker

        facts["spacing_source_zyx"] = " ".join(f"{step:.6g}" for step in volume.spacing_zyx)
        volume = resample_volume(volume, settings.drawing.spacing_zyx)
    z, y, x = volume.values.shape
    record = VolumeRecord(
        id=folder.name,
        source=source.name,
        size_zyx=(z, y, x),
        spacing_zyx=volume.spacing_zyx,
        affine=tuple(tuple(float(entry) for entry in row) for row in volume.affine),
        cell_zyx=settings.counting.cell_zyx,
        foreground={},
        low=int(volume.values.min()),
        high=int(volume.values.max()),
        sha256=sha256,
        facts=facts,
    )
    tables, record = _counted(record, volume.values, settings)
    with disk_errors(folder), replacing_folder(folder) as temporary:
        write_b2nd(temporary / VALUES_FILE, volume.values)
        write_npz(temporary / TABLES_FILE, tables)
        write_text(temporary / RECORD_FILE, _description(record, settings, state))
    return Done(record, "made")


def _count(
    record: VolumeRecord, values: Int16[np.ndarray, "z y x"], folder: Path, settings: IndexSettings, *, state: str
) -> Done:
    """Count the values that are there. Tables are replaced before what describes them: killed in between, the old
    description makes the next run count again."""
    tables, record = _counted(replace(record, cell_zyx=settings.counting.cell_zyx), values, settings)
    with disk_errors(folder):
        write_npz(folder / TABLES_FILE, tables)
        write_text(folder / RECORD_FILE, _description(record, settings, state))
    return Done(record, "counted")


def _counted(
    record: VolumeRecord, values: Int16[np.ndarray, "z y x"], settings: IndexSettings
) -> tuple[Tables, VolumeRecord]:
    tables, foreground = count_tables(values, record.spacing_zyx, settings.counting)
    if not any(foreground.values()):
        raise VolumeError(
            f"none of its voxels, {record.low} to {record.high} HU, is foreground ({', '.join(foreground)})",
            reason="no_foreground",
        )
    return tables, replace(record, foreground=foreground)


def _description(record: VolumeRecord, settings: IndexSettings, state: str) -> str:
    told = {
        "format": FORMAT,
        "version": VERSION,
        "package": __version__,
        "record": record.to_json(),
        **settings.model_dump(mode="json"),
        "state": state,
    }
    return json.dumps(told, indent=1) + "\n"


def _whole(folder: Path) -> Int16[np.ndarray, "z y x"] | None:
    """All values of an entry; `None` where they are damaged, and so have to be made again."""
    try:
        values: Int16[np.ndarray, "z y x"] = open_b2nd(folder / VALUES_FILE)[...]
    except (FormatError, RuntimeError, ValueError):
        return None
    return values


def _stored(folder: Path) -> dict[str, Any] | None:
    """The description of an entry; `None` where there is none of this version, or its values are gone."""
    try:
        stored: dict[str, Any] = json.loads((folder / RECORD_FILE).read_bytes())
        open_b2nd(folder / VALUES_FILE)
        whole = (stored["format"], stored["version"]) == (FORMAT, VERSION) and (folder / TABLES_FILE).is_file()
        return stored if whole else None
    except (FileNotFoundError, InputError, FormatError, json.JSONDecodeError, UnicodeDecodeError, KeyError):
        return None
