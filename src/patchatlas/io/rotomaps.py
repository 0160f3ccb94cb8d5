"""Folders of photos in the layout of aevri/mel: a rotomap is one dated folder of one part of the body::

    melroot                                     empty file: the folder that it lies in is the root
    rotomaps/parts/PART/SUBPART/2026_01_31/     one rotomap: 1.jpg, 2.jpg, ... as seen from around
        1.jpg  1.jpg.json  1.jpg.STEM.json  1.jpg.mask.png  1.jpg.meta.json
        ignore-missing  ignore-missing-carryforward   one uuid a line: marks that need not be here

Nothing but the pictures' suffix is demanded: any folder of JPEGs will do. (mel at commit a15f0a3.)
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from patchatlas.errors import FormatError, InputError

SUFFIXES = (".jpg", ".jpeg")
"""Of pictures, in any letter case."""

ROOT_MARKER = "melroot"

IGNORE_LISTS = ("ignore-missing", "ignore-missing-carryforward")


@dataclass(frozen=True)
class Rotomap:
    """One folder of photos.

    Attributes:
        folder: where.
        pictures: its pictures, 2.jpg before 10.jpg; hidden files are none.
    """

    folder: Path
    pictures: tuple[Path, ...]


def read_rotomap(folder: str | Path) -> Rotomap:
    """List a folder of photos; none is opened.

    Raises:
        InputError: there is no such folder, it cannot be read, or it holds no JPEG.
    """
    folder = Path(folder)
    names = _names_in(folder)
    pictures = tuple(folder / name for name in names if _is_picture(name))
    if not pictures:
        inside = [name for name in names if (folder / name).is_dir() and not name.startswith(".")]
        advice = f"; name one of the folders in it: {', '.join(inside[:5])}" if inside else ""
        raise InputError(f"{folder} holds no picture ({', '.join(SUFFIXES)}){advice}")
    return Rotomap(folder, pictures)


def ignored_missing(folder: Path) -> frozenset[str]:
    """The uuids that a person has noted as rightly missing from a rotomap.

    One a line; blank lines and lines that begin with # are passed over, spaces at the ends are cut off.

    Raises:
        FormatError: a list cannot be read as UTF-8 text.
    """
    found: set[str] = set()
    for path in (folder / name for name in IGNORE_LISTS):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise FormatError(f"{path} cannot be read ({error}); save it as UTF-8 text, one uuid a line") from error
        found.update(text for line in lines if (text := line.strip()) and not text.startswith("#"))
    return frozenset(found)


def find_root(path: Path) -> Path | None:
    """The nearest folder at or above `path` with a file `melroot`, links resolved; `None` if there is none."""
    start = path.resolve()
    return next((folder for folder in (start, *start.parents) if (folder / ROOT_MARKER).is_file()), None)


def natural(name: str) -> tuple[tuple[str | int, ...], str]:
    """A sorting key under which numbers in names count as numbers: 2.jpg before 10.jpg, before 10b.jpg."""
    parts = re.split(r"([0-9]+)", name.casefold())  # text and digits in turn, so equal places hold equal types
    return tuple(int(part) if n % 2 else part for n, part in enumerate(parts)), name


def _is_picture(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder), key=natural)
    except FileNotFoundError as error:
        raise InputError(f"there is no folder {folder}; check the name") from error
    except NotADirectoryError as error:
        raise InputError(f"{folder} is a file; name the folder of photos that it lies in") from error
    except OSError as error:
        raise InputError(f"cannot read the folder {folder}: {error.strerror}") from error
