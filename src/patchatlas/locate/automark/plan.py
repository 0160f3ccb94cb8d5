"""What a session has to do: which photos hold confirmed marks, which lack some of them, and what cannot be used.

Nothing is decoded here: picture headers and mark files are read, so that a dry run or a wrong folder costs seconds.
Marks are held as mel stores them, by column and row of their pixel.
"""

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchatlas.errors import InputError, UsageError
from patchatlas.io.images import MAX_PIXELS, Header, read_header
from patchatlas.io.landmarks import Landmark, marks_path, parse_marks, read_content
from patchatlas.io.rotomaps import Rotomap, find_root, ignored_missing, read_rotomap

log = logging.getLogger(__name__)

Pixel = tuple[int, int]
"""Column and row."""


@dataclass(frozen=True)
class Trouble:
    """Something that a person should know of.

    Attributes:
        file: the picture or folder, named as everywhere in the session.
        reason: what is the matter with it.
    """

    file: str
    reason: str

    @classmethod
    def of(cls, name: str, error: InputError, *, folder: Path) -> "Trouble":
        """What an error says, without the folder of this machine in which the file lies."""
        said = str(error).replace(f"{folder}{os.sep}", "")
        return cls(name, said.replace(str(folder), name) if folder.is_absolute() else said)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A photo with confirmed marks.

    Attributes:
        name: path from the folder that all names of the session start from.
        path: the photo.
        size_hw: rows and columns, upright.
        sha256: of the photo's bytes.
        marks: the confirmed marks in it, by uuid; in the order of their uuids.
    """

    name: str
    path: Path
    size_hw: tuple[int, int]
    sha256: str
    marks: Mapping[str, Pixel]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A photo in which marks are looked for.

    Attributes:
        name: path from the folder that all names of the session start from.
        path: the photo.
        size_hw: rows and columns, upright.
        sha256: of the photo's bytes.
        missing: uuids to look for, sorted.
        ignored: uuids that the folder's lists say are rightly missing, sorted.
        confirmed: marks that a person has confirmed in it, by uuid.
        guessed: its other marks, by uuid.
        others_sha256: hash of its own mark file where proposals go to another; `None` if there is none.
        output: the mark file that proposals go to.
        before: bytes of that file as planned for; `None` if there is none.
    """

    name: str
    path: Path
    size_hw: tuple[int, int]
    sha256: str
    missing: tuple[str, ...]
    ignored: tuple[str, ...]
    confirmed: Mapping[str, Pixel]
    guessed: Mapping[str, Pixel]
    others_sha256: str | None
    output: Path
    before: bytes | None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A session before anything is done.

    Attributes:
        folder: the target folder.
        name: its name in the session.
        stem: of the mark files that proposals go to; `None` for the photos' own.
        references: photos with confirmed marks, in the order of the folders given and of the names in each.
        targets: photos to mark, in the order of their names.
        skipped: photos and folders that cannot be used.
        notes: what was passed over within those that can.
    """

    folder: Path
    name: str
    stem: str | None
    references: tuple[Reference, ...]
    targets: tuple[Target, ...]
    skipped: tuple[Trouble, ...]
    notes: tuple[Trouble, ...]


def make_plan(
    target_dir: str | Path,
    reference_dirs: Sequence[str | Path],
    *,
    stem: str | None = "automark",
    strict: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Plan:
    """See what there is to do.

    Args:
        target_dir: folder of photos to mark.
        reference_dirs: folders of photos with marks, the target folder too if wanted: no photo is its own reference.
        stem: proposals go to `photo.jpg.STEM.json`; `None` adds them to `photo.jpg.json` itself.
        strict: raise for the first photo or folder that cannot be used, instead of listing it.
        max_pixels: larger photos cannot be used.

    Raises:
        UsageError: a stem that names no set of marks, no reference folder, or one that is given twice.
        InputError: a folder that is not there, a target folder that cannot be read, or no confirmed mark anywhere.
        FormatError: a list of marks that are rightly missing cannot be read.
    """
    marks_path("photo.jpg", stem=stem)  # refuses a stem that names none
    folders = [Path(folder) for folder in reference_dirs]
    _require_folders(Path(target_dir), folders)
    rotomap = read_rotomap(target_dir)
    base = _base([rotomap.folder, *folders])
    listed = _Listed(strict=strict)
    _note_roots([rotomap.folder, *folders], base, listed)

    references: list[Reference] = []
    for folder in folders:
        try:
            there = read_rotomap(folder)
        except InputError as error:
            listed.skip(_name(folder, base), error, folder=folder)
            continue
        references += _references(there, base, listed, max_pixels)
    if not references:
        reasons = "".join(f"\n  {one.file}: {one.reason}" for one in listed.skipped)
        raise InputError(
            f"no photo in {', '.join(map(str, folders))} has a mark that a person confirmed (is_uuid_canonical true) "
            f"and that can be used; confirm some first{reasons}"
        )
    targets = _targets(rotomap, references, base, listed, stem=stem, max_pixels=max_pixels)
    return Plan(
        folder=rotomap.folder,
        name=_name(rotomap.folder, base),
        stem=stem,
        references=tuple(references),
        targets=tuple(targets),
        skipped=tuple(listed.skipped),
        notes=tuple(listed.notes),
    )


def sha256(content: bytes | None) -> str | None:
    """Hash of a file's bytes, in hex; `None` for no file."""
    return None if content is None else hashlib.sha256(content).hexdigest()


class _Listed:
    """Collects what cannot be used, or raises it at once."""

    def __init__(self, *, strict: bool) -> None:
        self.skipped: list[Trouble] = []
        self.notes: list[Trouble] = []
        self._strict = strict

    def skip(self, name: str, error: InputError, *, folder: Path) -> None:
        if self._strict:
            raise error
        log.warning("skipped %s: %s", name, error)
        self.skipped.append(Trouble.of(name, error, folder=folder))

    def note(self, name: str, reason: str) -> None:
        self.notes.append(Trouble(name, reason))


def _require_folders(target: Path, folders: Sequence[Path]) -> None:
    if not folders:
        raise UsageError("no reference folder was named; give at least one with confirmed marks")
    resolved = [folder.resolve() for folder in folders]
    if doubled := [folder for n, folder in enumerate(folders) if resolved[n] in resolved[:n]]:
        raise UsageError(f"the reference folder {doubled[0]} is given twice; name each once")
    for folder in (target, *folders):  # a name typed wrong is no item to skip
        if not os.path.lexists(folder):
            raise InputError(f"there is no folder {folder}; check the name")


def _base(folders: Sequence[Path]) -> Path:
    """The folder that names start from: the one root of all, or the nearest folder that holds them all."""
    roots = {find_root(folder) for folder in folders}
    root = roots.pop()
    if root is not None and not roots:
        return root
    return Path(os.path.commonpath([folder.resolve().parent for folder in folders]))


def _name(folder: Path, base: Path, file: str = "") -> str:
    return Path(os.path.relpath(folder.resolve() / file, base)).as_posix()


def _note_roots(folders: Sequence[Path], base: Path, listed: _Listed) -> None:
    target, *others = folders
    home = find_root(target)
    for folder in others:
        root = find_root(folder)
        if None not in (home, root) and root != home:
            log.warning("%s and %s lie below different melroots; are they of the same person?", target, folder)
            listed.note(_name(folder, base), "lies below another melroot than the target; is it of the same person?")


def _references(rotomap: Rotomap, base: Path, listed: _Listed, max_pixels: int) -> Iterable[Reference]:
    for path in rotomap.pictures:
        name = _name(rotomap.folder, base, path.name)
        try:
            header = read_header(path, max_pixels=max_pixels)
            marks = parse_marks(read_content(marks_path(path)), marks_path(path))
        except InputError as error:
            listed.skip(name, error, folder=rotomap.folder)
            continue
        confirmed = {mark.uuid: mark for mark in marks if mark.is_uuid_canonical is True and isinstance(mark.uuid, str)}
        usable = _once_inside(marks, header)
        for uuid in sorted(confirmed.keys() - usable.keys()):
            listed.note(name, f"the mark {uuid!r} is there more than once or outside the picture; it is not looked for")
        if odd := [mark.uuid for mark in marks if mark.is_uuid_canonical is True and not isinstance(mark.uuid, str)]:
            listed.note(name, f"uuids that are no text, so not looked for: {', '.join(map(json.dumps, odd))}")
        kept = {uuid: usable[uuid] for uuid in sorted(confirmed.keys() & usable.keys())}
        if kept:
            yield Reference(name=name, path=path, size_hw=header.size_hw, sha256=header.sha256, marks=kept)


def _targets(
    rotomap: Rotomap,
    references: Sequence[Reference],
    base: Path,
    listed: _Listed,
    *,
    stem: str | None,
    max_pixels: int,
) -> Iterable[Target]:
    ignored = ignored_missing(rotomap.folder)  # unread, it would let out proposals that a person has ruled out
    known = {uuid for one in references for uuid in one.marks}
    for path in rotomap.pictures:
        name = _name(rotomap.folder, base, path.name)
        output = marks_path(path, stem=stem)
        try:
            header = read_header(path, max_pixels=max_pixels)
            own = read_content(marks_path(path))
            before = own if stem is None else read_content(output)
            marks = parse_marks(own, marks_path(path))
            beside = [] if stem is None else parse_marks(before, output)
        except InputError as error:
            listed.skip(name, error, folder=rotomap.folder)
            continue
        placed = _once_inside(marks, header)
        person = {mark.uuid for mark in marks if mark.is_uuid_canonical is True and isinstance(mark.uuid, str)}
        confirmed = {uuid: at for uuid, at in placed.items() if uuid in person}
        guessed = {**_once_inside(beside, header), **placed}
        present = {mark.uuid for mark in [*marks, *beside] if isinstance(mark.uuid, str)}
        yield Target(
            name=name,
            path=path,
            size_hw=header.size_hw,
            sha256=header.sha256,
            missing=tuple(sorted(known - present - ignored)),
            ignored=tuple(sorted(ignored)),
            confirmed=confirmed,
            guessed={uuid: at for uuid, at in guessed.items() if uuid not in confirmed},
            others_sha256=sha256(None if stem is None else own),
            output=output,
            before=before,
        )


def _once_inside(marks: Sequence[Landmark], header: Header) -> dict[str, Pixel]:
    """Marks by uuid, without those outside the picture and those whose uuid stands at several places."""
    rows, columns = header.size_hw
    counts = Counter(mark.uuid for mark in marks if isinstance(mark.uuid, str))
    return {
        mark.uuid: (mark.x, mark.y)
        for mark in marks
        if isinstance(mark.uuid, str) and counts[mark.uuid] == 1 and 0 <= mark.x < columns and 0 <= mark.y < rows
    }
