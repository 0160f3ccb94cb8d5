"""Write a stitched canvas as a folder that is there in full or not at all, and read it: docs/formats/stitch-v1.md."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from patchatlas.arrays import ImageU8
from patchatlas.errors import FormatError, InputError
from patchatlas.files import replacing_folder
from patchatlas.io.images import write_image
from patchatlas.io.scans import hdf5
from patchatlas.io.scans.archive import load_npy

FORMAT = "patchatlas.stitch"
VERSION = 1
REPORT = "report.json"


def write_stitch(
    folder: Path,
    *,
    arrays: Mapping[str, ndarray],
    pictures: Mapping[str, ImageU8],
    report: Mapping[str, Any],
    with_hdf5: bool,
) -> None:
    """Write arrays as NPY, pictures as PNG, the report as JSON, and on request all arrays as one HDF5 file.

    Args:
        folder: made by this; a folder that a former run has made is replaced in one step.
        arrays: by name.
        pictures: by name.
        report: what goes into report.json; `format` and `version` are added.
        with_hdf5: also write stitch.h5.

    Raises:
        InputError: the folder has other content, or its parent does not exist.
        MissingExtraError: HDF5 is asked for and h5py is not installed.
    """
    with replacing_result(folder) as temporary:
        text = fill_folder(temporary, arrays=arrays, pictures=pictures, report=report)
        if with_hdf5:
            with hdf5.h5py("--hdf5").File(temporary / "stitch.h5", "w") as file:
                for name, array in arrays.items():
                    file.create_dataset(name, data=array, track_times=False)
                file.attrs["report"] = text


def fill_folder(
    folder: Path, *, arrays: Mapping[str, ndarray], pictures: Mapping[str, ImageU8], report: Mapping[str, Any]
) -> str:
    """Write these into a folder from `replacing_result`, and return the text of the report."""
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    for name, picture in pictures.items():
        write_image(folder / f"{name}.png", picture)
    text = json.dumps({"format": FORMAT, "version": VERSION, **report}, indent=2, allow_nan=False) + "\n"
    (folder / REPORT).write_text(text, encoding="utf-8")
    return text


def read_stitch(folder: Path) -> tuple[dict[str, ndarray], dict[str, Any]]:
    """The arrays and the report of a folder.

    Raises:
        InputError: no such folder.
        FormatError: not written by `write_stitch`, or by a later version.
    """
    path = folder / REPORT
    if not path.is_file():
        raise InputError(f"{folder} has no {REPORT}; name a folder that `patchatlas stitch run` has written")
    report = _report(path)
    if report.get("version") != VERSION:
        raise FormatError(
            f"{path} is version {report.get('version')} of {FORMAT}; this program reads version {VERSION}"
        )
    return {name: load_npy(folder / f"{name}.npy") for name in report["arrays"]}, report


@contextmanager
def replacing_result(folder: Path) -> Iterator[Path]:
    """`patchatlas.files.replacing_folder`, for a folder that is not there, is empty or holds a former result.

    Raises:
        InputError: the parent does not exist, or `folder` is there and holds anything else, before or after.
    """
    folder = Path(os.path.abspath(folder))
    check_replaceable(folder)
    with replacing_folder(folder) as temporary:
        yield temporary
        check_replaceable(folder)  # again: making the result may have taken hours


def check_replaceable(folder: Path) -> None:
    """Refuse a folder that must not be written.

    Raises:
        InputError: its parent does not exist, it is a file, or it holds anything but a former result.
    """
    if not folder.parent.is_dir():
        raise InputError(f"cannot write {folder}: the folder {folder.parent} does not exist; create it first")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"cannot write {folder}: it is a file; name a folder")
    report = folder / REPORT
    if any(folder.iterdir()) and not (report.is_file() and _report(report)):
        raise InputError(f"cannot write {folder}: it holds other files; name a new folder")


def _report(path: Path) -> dict[str, Any]:
    """The report of a former result.

    Raises:
        FormatError: another kind of report.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(f"{path} is no JSON ({error}); it was not written by `patchatlas stitch run`") from error
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise FormatError(f"{path} is not of the format {FORMAT}")
    return report
