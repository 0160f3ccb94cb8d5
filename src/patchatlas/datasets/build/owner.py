"""Whose a derived folder is: one manifest's, since features are named by picture ids alone, which two could share."""

import json
import os
from pathlib import Path

from filelock import FileLock

from patchatlas.errors import FormatError, InputError
from patchatlas.files import write_text
from patchatlas.io.disk import disk_errors
from patchatlas.io.feature_store import FeatureStore

FORMAT = "patchatlas.derived"
VERSION = 1
OWNER = "_owner.json"


def claim(derived_dir: Path, manifest: Path) -> None:
    """Note that a derived folder is of this manifest, where it is nobody's yet.

    Features that are there without an owner, made before there were owners, go to a manifest that names a set of them.

    Args:
        derived_dir: a folder that is there.
        manifest: need not be there.

    Raises:
        InputError: the folder is of another manifest, or holds features that this one does not name.
        FormatError: the owner file cannot be read.
        ResourceError: the disk is full, or the folder may not be written.
    """
    path, name = derived_dir / OWNER, name_of(manifest, derived_dir)
    advice = f"give {manifest.name} a folder of its own with --derived-dir"
    with disk_errors(path), FileLock(derived_dir / ".sets.lock"):  # two builds that start together see one state
        if path.is_file():
            owner = _read(path)
            if owner != name:
                raise InputError(
                    f"the features in {derived_dir} are of the manifest {owner}, not of {name} (as seen from there); "
                    f"{advice}. If the manifest was renamed, remove {path}"
                )
            return
        sets = [folder.name for folder in FeatureStore(derived_dir).sets()]
        if sets and not _names_one_of(manifest, sets):
            raise InputError(
                f"{derived_dir} holds features and does not say of which manifest; {manifest.name} names none of "
                f"them; {advice}, or move {', '.join(sets)} away"
            )
        content = {"format": FORMAT, "version": VERSION, "manifest": name}
        write_text(path, json.dumps(content, indent=2) + "\n")


def name_of(manifest: Path, derived_dir: Path) -> str:
    """Posix path of a manifest seen from its derived folder, links resolved; it stays when both move together."""
    place = os.path.join(os.path.realpath(manifest.parent), manifest.name)
    try:
        return Path(os.path.relpath(place, os.path.realpath(derived_dir))).as_posix()
    except ValueError:  # on Windows there is no way from one drive to another
        return Path(place).as_posix()


def _read(path: Path) -> str:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if (content["format"], content["version"]) != (FORMAT, VERSION):
            raise FormatError(f"it is {content['format']} version {content['version']}, not {FORMAT} {VERSION}")
        return str(content["manifest"])
    except (ValueError, LookupError, TypeError) as error:
        raise FormatError(
            f"{path} cannot be read: {error}; remove it if all features here are of one manifest"
        ) from error


def _names_one_of(manifest: Path, sets: list[str]) -> bool:
    """Whether any line of a manifest, of whatever version, names a file of one of these sets."""
    if not manifest.is_file():
        return False
    wanted = [f'"{name}/'.encode() for name in sets]
    with manifest.open("rb") as lines:
        return any(name in line for line in lines for name in wanted)
