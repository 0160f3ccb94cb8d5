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
from jaxtyping import Bool, Int16

from patchatlas import __version__
from patchatlas.errors import FormatError, InputError
from patchatlas.files import replacing_folder, write_text
from patchatlas.io.disk import disk_errors
from patchatlas.io.scans.archive import write_npz
from patchatlas.io.volumes.b2nd import open_b2nd, write_b2nd
from patchatlas.io.volumes.reasons import VolumeError
from patchatlas.io.volumes.sources import Source, read_source
from patchatlas.pretrain.cache import BODY, FORMAT, RECORD_FILE, TABLES_FILE, VALUES_FILE, VERSION, VolumeRecord
from patchatlas.pretrain.given_mask import MaskFunction, call_mask, read_mask
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


Mask = Source | MaskFunction | None
"""What counts as body where it is given: a mask file, or a function."""


@dataclass(frozen=True)
class _Told:
    """What an entry says of the files that it was made from, for the next run.

    Attributes:
        state: `Source.state` of the volume.
        mask: name, hash and state of its mask file; `None` without one.
    """

    state: str
    mask: dict[str, str] | None


def volume_id(name: str) -> str:
    """The folder of a source's entry: its name in plain letters, and eight digits that tell equal ones apart."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[-_LONGEST:].strip(".-")
    return f"{plain or 'volume'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def make_entry(
    source: Source, folder: Path, settings: IndexSettings, *, mask: Mask = None, verify: bool = False
) -> Done:
    """Bring the entry of a source up to date.

    Args:
        source: the volume.
        folder: of its entry, whether it is there or not.
        settings: how.
        mask: what counts as body, if it is given.
        verify: also compare the values that are there with the hash that was kept of them, and make them again where
            they differ.

    Raises:
        VolumeError: the volume or its mask cannot be used. An entry that was there stays until it is replaced; no index
            names it.
        UsageError: the mask function gives no mask.
        ResourceError: the disk. Files of the entry that cannot be read are made again.
        OSError: what the disk refuses in other ways, such as reading what was written a moment ago.
        MissingExtraError: a library that it needs is not installed.
    """
    stored = _stored(folder)
    if verify and stored is not None and not _as_written(folder, VALUES_FILE, stored):
        stored = None
    told = _Told(source.state(), _told_mask(mask, None if stored is None else stored["mask"]))
    if stored is None or stored["drawing"] != settings.drawing.model_dump(mode="json"):
        return _make(source, folder, settings, mask, told, sha256=source.sha256())
    record = VolumeRecord.from_json(stored["record"])
    if stored["state"] != told.state:  # written since; perhaps the same bytes
        sha256 = source.sha256()
        if sha256 != record.sha256:
            return _make(source, folder, settings, mask, told, sha256=sha256)
    counted = stored["counting"] == settings.counting.model_dump(mode="json") and _same_mask(stored["mask"], told.mask)
    if not counted or not _as_written(folder, TABLES_FILE, stored):
        # A mask file lies on the voxels of the source, which are not there any more where it was resampled.
        elsewhere = isinstance(mask, Source) and settings.drawing.spacing_zyx is not None
        values = None if elsewhere else _whole(folder, stored)
        if values is None:
            return _make(source, folder, settings, mask, told, sha256=record.sha256)
        values_sha256 = stored["files"].get(VALUES_FILE) or _sha256(folder / VALUES_FILE)
        return _count(record, values, folder, settings, mask, told, values_sha256=values_sha256)
    if (stored["state"], stored["mask"]) != (told.state, told.mask):
        with disk_errors(folder):
            write_text(folder / RECORD_FILE, _description(record, settings, told, stored["files"]))
    return Done(record, "kept")


def _make(source: Source, folder: Path, settings: IndexSettings, mask: Mask, told: _Told, *, sha256: str) -> Done:
    drawing = settings.drawing
    volume = read_source(source, drawing.declared())
    given = None
    if isinstance(mask, Source):
        given = read_mask(mask, drawing.declared(), size_zyx=volume.values.shape, affine=volume.affine)
    facts = dict(volume.facts)
    if drawing.spacing_zyx is not None:
        from patchatlas.pretrain.resampling import resample_mask, resample_volume  # torch loads for seconds

        facts["spacing_source_zyx"] = " ".join(f"{step:.6g}" for step in volume.spacing_zyx)
        given = None if given is None else resample_mask(given, volume, drawing.spacing_zyx)
        volume = resample_volume(volume, drawing.spacing_zyx)
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
    if isinstance(mask, MaskFunction):
        given = call_mask(mask, volume.values, volume.spacing_zyx, name=source.name)
    tables, record = _counted(record, volume.values, settings, given)
    with disk_errors(folder), replacing_folder(folder) as temporary:
        write_b2nd(temporary / VALUES_FILE, volume.values)
        write_npz(temporary / TABLES_FILE, tables)
        files = {name: _sha256(temporary / name) for name in (VALUES_FILE, TABLES_FILE)}
        write_text(temporary / RECORD_FILE, _description(record, settings, told, files))
    return Done(record, "made")


def _count(
    record: VolumeRecord,
    values: Int16[np.ndarray, "z y x"],
    folder: Path,
    settings: IndexSettings,
    mask: Mask,
    told: _Told,
    *,
    values_sha256: str,
) -> Done:
    """Count the values that are there. Tables are replaced before what describes them, which has their hash: killed in
    between, the next run finds another one and counts again, whatever its settings."""
    given = None
    if isinstance(mask, Source):
        affine = np.array(record.affine)
        given = read_mask(mask, settings.drawing.declared(), size_zyx=record.size_zyx, affine=affine)
    elif mask is not None:
        given = call_mask(mask, values, record.spacing_zyx, name=record.source)
    tables, record = _counted(replace(record, cell_zyx=settings.counting.cell_zyx), values, settings, given)
    with disk_errors(folder):
        write_npz(folder / TABLES_FILE, tables)
        files = {VALUES_FILE: values_sha256, TABLES_FILE: _sha256(folder / TABLES_FILE)}
        write_text(folder / RECORD_FILE, _description(record, settings, told, files))
    return Done(record, "counted")


def _counted(
    record: VolumeRecord,
    values: Int16[np.ndarray, "z y x"],
    settings: IndexSettings,
    given: Bool[np.ndarray, "z y x"] | None,
) -> tuple[Tables, VolumeRecord]:
    tables, foreground = count_tables(values, record.spacing_zyx, settings.counting, given=given)
    if given is not None and not foreground[BODY]:
        raise VolumeError("none of its voxels is in the mask that was given for it", reason="no_foreground")
    if not any(foreground.values()):
        raise VolumeError(
            f"none of its voxels, {record.low} to {record.high} HU, is foreground ({', '.join(foreground)})",
            reason="no_foreground",
        )
    return tables, replace(record, foreground=foreground)


def _told_mask(mask: Mask, before: dict[str, str] | None) -> dict[str, str] | None:
    """What an entry says of its mask file; `None` where it has none. Its bytes are read only if it was written since.

    Raises:
        VolumeError: it is gone, or cannot be read.
    """
    if not isinstance(mask, Source):
        return None
    state = mask.state()
    known = before is not None and (before["source"], before["state"]) == (mask.name, state)
    return before if known else {"source": mask.name, "sha256": mask.sha256(), "state": state}


def _same_mask(before: dict[str, str] | None, now: dict[str, str] | None) -> bool:
    if before is None or now is None:
        return before is now
    return before["sha256"] == now["sha256"]


def _description(record: VolumeRecord, settings: IndexSettings, told: _Told, files: dict[str, str]) -> str:
    """Args: `files` are the hashes of the values and the tables."""
    described = {
        "format": FORMAT,
        "version": VERSION,
        "package": __version__,
        "record": record.to_json(),
        "files": files,
        **settings.model_dump(mode="json"),
        "state": told.state,
        "mask": told.mask,
    }
    return json.dumps(described, indent=1) + "\n"


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _as_written(folder: Path, name: str, stored: dict[str, Any]) -> bool:
    """Whether a file of an entry is there with the bytes that were written; unknown, and so no, where it cannot be read
    and of entries that were made before their hashes were kept."""
    path = folder / name
    try:
        return path.is_file() and stored["files"].get(name) == _sha256(path)
    except OSError:
        return False


def _whole(folder: Path, stored: dict[str, Any]) -> Int16[np.ndarray, "z y x"] | None:
    """All values of an entry; `None` where they are damaged, and so have to be made again."""
    if VALUES_FILE in stored["files"] and not _as_written(folder, VALUES_FILE, stored):
        return None
    try:
        values: Int16[np.ndarray, "z y x"] = open_b2nd(folder / VALUES_FILE)[...]
    except (FormatError, OSError, RuntimeError, ValueError):
        return None
    return values


def _stored(folder: Path) -> dict[str, Any] | None:
    """The description of an entry; `None` where there is none of this version or none that can be read, or its values
    are gone or others."""
    try:
        stored: dict[str, Any] = json.loads((folder / RECORD_FILE).read_bytes())
        if (stored["format"], stored["version"]) != (FORMAT, VERSION):
            return None
        record = VolumeRecord.from_json(stored["record"])
        whole = record.id == folder.name and open_b2nd(folder / VALUES_FILE).shape == record.size_zyx
        whole = whole and {"drawing", "counting", "state"} <= stored.keys()
    except OSError:
        return None
    except (InputError, ValueError, KeyError, TypeError, AttributeError):  # damaged: JSON of another kind
        return None
    stored = {"mask": None, "files": {}, **stored}  # of entries that were written before there were these
    mask = stored["mask"]
    whole = whole and isinstance(stored["files"], dict)
    whole = whole and (mask is None or (isinstance(mask, dict) and {"source", "sha256", "state"} <= mask.keys()))
    return stored if whole else None
