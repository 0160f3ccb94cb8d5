"""`run.json`: what was asked for, what it was made of, and what came of it; `run.log.json`: how long that took."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patchatlas.reid.files.jsonfile import head_of, read_json, write_json

NAME = "run.json"
FORMAT = "patchatlas.reid-run"
VERSION = 1

LOG_NAME = "run.log.json"
LOG_FORMAT = "patchatlas.reid-log"


def write_run(folder: Path, content: Mapping[str, Any]) -> None:
    """Write it in one step.

    Raises:
        ResourceError: the disk is full, or the folder may not be written.
    """
    write_json(folder / NAME, {**head_of(FORMAT, VERSION), **content})


def read_run(folder: Path) -> dict[str, Any]:
    """What is said of a run.

    Raises:
        InputError: there is no such file.
        FormatError: it is not of the format.
    """
    return read_json(folder / NAME, kind=FORMAT, version=VERSION)


def write_log(folder: Path, content: Mapping[str, Any]) -> None:
    """Write what differs from run to run: times, speeds, where the video lay.

    Raises:
        ResourceError: as `write_run`.
    """
    write_json(folder / LOG_NAME, {**head_of(LOG_FORMAT, VERSION), **content})


def read_log(folder: Path) -> dict[str, Any]:
    """What is said of the last run of an episode.

    Raises:
        InputError: there is no such file.
        FormatError: it is not of the format.
    """
    return read_json(folder / LOG_NAME, kind=LOG_FORMAT, version=VERSION)
