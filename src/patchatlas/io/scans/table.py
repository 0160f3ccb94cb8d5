"""Positions from plain files by a mapping that the caller gives: CSV and other text, NPY, or two arrays of an NPZ."""

import re
from pathlib import Path

import numpy as np
from numpy import ndarray

from patchatlas.errors import FormatError, UsageError
from patchatlas.io.scans.archive import Archive, load_npy
from patchatlas.io.scans.scan import Content, real_numbers

_SEPARATORS = re.compile(r"[,;\s]+")


def read_text_table(path: Path, columns: tuple[str, str] | None) -> Content:
    """Positions from two columns of a text file: separated by commas, semicolons or spaces, # begins a comment.

    Raises:
        UsageError: no columns named, or none of that name or number.
        FormatError: no text, rows of unequal length, decimal commas, or a field that is no number.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is no UTF-8 text ({error}); name a CSV, NPY, NPZ or HDF5 file") from error
    kept = [(number, line.partition("#")[0].strip().rstrip(",;")) for number, line in enumerate(lines, start=1)]
    mixed = next((number for number, line in kept if "," in line and ";" in line), None)
    if mixed is not None:
        raise FormatError(f"{path}, line {mixed} has commas and semicolons; write decimals with a point")
    rows = [(number, _SEPARATORS.split(line)) for number, line in kept if line]
    if not rows:
        raise FormatError(f"{path} holds no rows: the scan is empty")
    header: list[str] = []
    if not all(_is_number(entry) for entry in rows[0][1]):
        header = rows.pop(0)[1]
    wide = len(header) or len(rows[0][1])
    if columns is None:
        raise _no_columns(path, header or [str(n) for n in range(wide)])
    at = [_column(path, name, header, wide) for name in columns]
    positions = []
    for number, fields in rows:
        if len(fields) != wide:
            raise FormatError(f"{path}, line {number}: {len(fields)} fields, where {wide} are expected")
        try:
            positions.append([float(fields[n]) for n in at])
        except ValueError as error:
            raise FormatError(f"{path}, line {number}: {error}") from error
    return _content("table", np.array(positions, dtype=np.float64).reshape(-1, 2), path, columns)


def read_array_table(path: Path, columns: tuple[str, str] | None) -> Content:
    """Positions from two columns of an NPY array (n, columns).

    Raises:
        UsageError: no columns named, or none of that number.
        FormatError: an array of another shape.
    """
    array = load_npy(path)
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise FormatError(
            f"{path} holds {array.dtype} of shape {array.shape}; positions are real numbers, (n, columns)"
        )
    if columns is None:
        raise _no_columns(path, [str(n) for n in range(array.shape[1])])
    at = [_column(path, name, [], array.shape[1]) for name in columns]
    return _content("NPY table", array[:, at].astype(np.float64), path, columns)


def read_mapped_npz(archive: Archive, columns: tuple[str, str]) -> Content:
    """Positions from two lists of an NPZ.

    Raises:
        FormatError: they are not there, or no lists of one length.
    """
    x, y = (archive.load(name) for name in columns)
    if x.ndim != 1 or x.shape != y.shape:
        raise FormatError(
            f"{archive.path}: {columns[0]} has the shape {x.shape}, {columns[1]} {y.shape}; give two lists"
        )
    positions = real_numbers(np.stack([x, y], axis=1), f"{archive.path}: {columns[0]}, {columns[1]}")
    return _content("NPZ by names", positions, archive.path, columns)


def _content(kind: str, positions: ndarray, path: Path, columns: tuple[str, str]) -> Content:
    known = {"order": ("xy", f"the caller: x is {columns[0]}, y is {columns[1]}")}
    note = f"--columns takes x from {columns[0]!r} and y from {columns[1]!r} of {path.name}"
    return Content(format=kind, positions=positions, known=known, notes=(note,))


def _column(path: Path, name: str, header: list[str], wide: int) -> int:
    if name in header:
        return header.index(name)
    if name.isdecimal() and int(name) < wide:
        return int(name)
    raise UsageError(
        f"{path} has no column {name!r}; it has {', '.join(header) if header else f'columns 0 to {wide - 1}'}"
    )


def _no_columns(path: Path, names: list[str]) -> UsageError:
    return UsageError(
        f"{path} is a plain table: say which columns are x (across) and y (down) with --columns X Y; it has: "
        f"{', '.join(names)}"
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
