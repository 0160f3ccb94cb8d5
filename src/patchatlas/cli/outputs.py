"""What may not be written over: pictures that are read, and the marks and masks that stand beside any picture."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from patchatlas.errors import InputError, UsageError

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".ppm")
"""Suffixes of files beside which marks and masks are looked for, in any letter case."""


def require_free(what: str, path: Path, *, inputs: Iterable[Path] = ()) -> None:
    """See before the work that a file can be written, and that nothing of a person's is lost by it.

    Args:
        what: the option that names it, for the messages.
        path: the file. One that exists is replaced; a link is followed.
        inputs: pictures that are read, whatever their suffixes.

    Raises:
        UsageError: it is one of `inputs`, or named as the marks or the mask of one of them or of a picture beside it.
        InputError: its folder does not exist, or it is a folder.
    """
    pictures = {picture.resolve() for picture in inputs}
    for named in (path.parent.resolve() / path.name, path.resolve()):
        if named in pictures:
            raise UsageError(f"{what} {path} would overwrite a picture that is read; choose another name")
        for picture in _told_of(named):
            if picture in pictures or (picture.suffix.lower() in PICTURES and picture.is_file()):
                raise UsageError(
                    f"{what} {path} would overwrite the marks or the mask of {picture.name}, or be taken for them; "
                    "choose a name that does not begin with that of a picture, or another folder"
                )
    if not path.parent.is_dir():
        raise InputError(f"cannot write {what} {path}: the folder {path.parent} does not exist; create it first")
    if path.is_dir():
        raise InputError(f"cannot write {what} {path}: it is a folder; name a file")


def _told_of(path: Path) -> Iterator[Path]:
    """The pictures that a file would hold the marks of (NAME.json, NAME.STEM.json) or the mask of (NAME.mask.png)."""
    name = path.name.lower()
    if name.endswith(".mask.png"):
        yield path.with_name(path.name[: -len(".mask.png")])
    elif name.endswith(".json"):
        yield from (path.with_name(path.name[:end]) for end, sign in enumerate(path.name) if sign == "." and end)
