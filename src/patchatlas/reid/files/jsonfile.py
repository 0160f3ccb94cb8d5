"""JSON with a format and a version in it: canonical bytes out, and in again only what is as it should be."""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from patchatlas import __version__
from patchatlas.errors import FormatError, InputError
from patchatlas.files import replacing, write_text
from patchatlas.io.disk import disk_errors


def head_of(kind: str, version: int) -> dict[str, Any]:
    """What every file begins with."""
    return {"format": kind, "version": version, "package": __version__}


def dumped(content: Mapping[str, Any]) -> str:
    """One line of JSON, keys in the order given; numbers that are not finite are our bug."""
    return json.dumps(content, allow_nan=False, ensure_ascii=False)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write for people too, in one step; the same content is the same bytes.

    Raises:
        ResourceError: the disk is full, or the folder may not be written.
    """
    with disk_errors(path):
        write_text(path, json.dumps(content, allow_nan=False, ensure_ascii=False, indent=1) + "\n")


def write_lines(path: Path, head: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]) -> None:
    """Write a head and one object a line, as they come, and all in one step.

    Raises:
        ResourceError: as `write_json`.
    """
    with disk_errors(path), replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for one in chain([head], lines):
            file.write(f"{dumped(one)}\n")


def read_json(path: Path, *, kind: str, version: int) -> dict[str, Any]:
    """The object in a file.

    Raises:
        InputError: there is no such file.
        FormatError: it is not JSON, of another format or of a version that is not known.
    """
    return checked(parsed(path, _bytes(path)), path, kind=kind, version=version)


def read_lines(path: Path, *, kind: str, version: int) -> Iterator[dict[str, Any]]:
    """The head and the other lines of a file, one after the other.

    Raises:
        InputError: there is no such file.
        FormatError: as `read_json`; says which line.
    """
    try:
        with path.open("rb") as file:
            yield checked(parsed(path, file.readline(), line=1), path, kind=kind, version=version)
            for number, line in enumerate(file, start=2):
                yield parsed(path, line, line=number)
    except OSError as error:
        raise InputError(f"cannot open {path}: {error.strerror}") from error


def parsed(path: Path, text: bytes, *, line: int | None = None) -> dict[str, Any]:
    """One JSON object.

    Raises:
        FormatError: it is none.
    """
    where = "" if line is None else f", line {line}"
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}{where} is not JSON ({error}); make the episode again with --restart") from error
    if not isinstance(content, dict):
        raise FormatError(f"{path}{where} holds no JSON object; make the episode again with --restart")
    return content


def checked(content: dict[str, Any], path: Path, *, kind: str, version: int) -> dict[str, Any]:
    """Content of the format and version that are meant.

    Raises:
        FormatError: it is of another.
    """
    if content.get("format") != kind:
        raise FormatError(f"{path} is no {kind} file (format {content.get('format')!r}); name another file")
    if content.get("version") != version:
        raise FormatError(
            f"{path} has version {content.get('version')!r} of {kind}, known is {version}; read it with a newer "
            "patchatlas"
        )
    return content


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot open {path}: {error.strerror}") from error
