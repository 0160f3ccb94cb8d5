"""Find the volumes in a folder, whatever their formats, and read one of them."""

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from patchatlas.errors import InputError
from patchatlas.io.volumes.arrays import read_npy, read_npz
from patchatlas.io.volumes.b2nd import read_b2nd
from patchatlas.io.volumes.dicom import group_by_series, read_series
from patchatlas.io.volumes.dicom_header import Header, read_header
from patchatlas.io.volumes.inv3 import read_inv3
from patchatlas.io.volumes.nifti import read_nifti
from patchatlas.io.volumes.reasons import VolumeError, VolumeReason, printable
from patchatlas.io.volumes.volume import Declared, Volume
from patchatlas.io.volumes.zarr_volumes import SUFFIX, read_zarr

_READERS: dict[str, Callable[[Path, Declared], Volume]] = {
    ".nii": read_nifti,
    ".nii.gz": read_nifti,
    ".npy": read_npy,
    ".npz": read_npz,
    ".b2nd": read_b2nd,
    ".inv3": read_inv3,
    SUFFIX: read_zarr,
}
_BARE = (".npy", ".npz", ".b2nd", SUFFIX)
"""Arrays that a JSON file beside them may describe; see `sidecar`."""

_DICOM = (".dcm", ".dicom", ".ima")
_PREAMBLE = 128
"""Bytes before the letters DICM (DICOM PS3.10, 7.1)."""
_GROUPS = (b"\x02\x00", b"\x08\x00")
"""How a data set begins that was written without them: the group of its first element, 0002 or 0008."""


@dataclass(frozen=True)
class Source:
    """What one volume is read from.

    Attributes:
        name: relative to the folder that was searched, with `/`; of a DICOM series its folder and identifier.
        files: those of a DICOM series, or one file (one folder of zarr), with the JSON file beside it if that describes
            it.
        is_series: whether it is a DICOM series.
    """

    name: str
    files: tuple[Path, ...]
    is_series: bool = False

    @property
    def stem(self) -> str:
        """Its name without the suffix of a format, by which a volume and its mask find each other."""
        return self.name if self.is_series else self.name[: len(self.name) - len(_suffix(Path(self.name)))]

    def state(self) -> str:
        """Sizes and times of its files as one short text: unchanged if no file has been written since.

        Raises:
            VolumeError: a file is gone (missing), or may not be looked at (unreadable).
        """
        with _told_apart():
            stats = [(within, path.stat()) for within, path in self._contents()]
        told = [(within, stat.st_size, stat.st_mtime_ns) for within, stat in stats]
        return hashlib.sha256(repr(told).encode()).hexdigest()[:32]

    def sha256(self) -> str:
        """Of the bytes of its files, one after the other; those within a folder are named first.

        Raises:
            VolumeError: a file is gone (missing), or cannot be read (unreadable).
        """
        digest = hashlib.sha256()
        with _told_apart():
            for within, path in self._contents():
                digest.update(within.encode("utf-8", "surrogateescape"))
                with path.open("rb") as handle:
                    while chunk := handle.read(1 << 20):
                        digest.update(chunk)
        return digest.hexdigest()

    def _contents(self) -> Iterator[tuple[str, Path]]:
        """All files, those of folders with their names within."""
        for path in self.files:
            if path.is_dir():
                yield from sorted((inner.relative_to(path).as_posix(), inner) for inner in _files_in(path))
            else:
                yield "", path


@dataclass(frozen=True)
class Fault:
    """Something that looked like a volume and cannot be used.

    Attributes:
        source: its name.
        reason: why.
        message: the same in words.
    """

    source: str
    reason: VolumeReason
    message: str


@dataclass(frozen=True)
class Found:
    """What is in a folder.

    Attributes:
        sources: in the order of their names.
        faults: DICOM files that belong to no series or cannot be read, and folders that may not be listed.
        ignored: other files, counted by suffix.
    """

    sources: tuple[Source, ...]
    faults: tuple[Fault, ...]
    ignored: Mapping[str, int]


def find_volumes(path: str | Path) -> Found:
    """All volumes below a folder, or the one that a file holds.

    Files count by suffix (.nii, .nii.gz, .npy, .npz, .b2nd, .inv3), DICOM also by content. The DICOM pictures of one
    folder are grouped by series. A folder .zarr is one volume. Links are followed; hidden files and folders are left
    out.

    Raises:
        InputError: there is nothing of that name.
        MissingExtraError: there is DICOM, and pydicom is not installed.
    """
    path = Path(path)
    if path.is_dir() and _suffix(path) != SUFFIX:
        files, faults = _walk(path)
        return _found(path, files, faults)
    if path.is_file() or path.is_dir():
        return _found(path.parent, [path], [])
    raise InputError(f"there is no file or folder {path}; check the name")


def read_source(source: Source, declared: Declared) -> Volume:
    """Read a volume that was found.

    Raises:
        VolumeError: it cannot be used; see its reason.
        MissingExtraError: a library that it needs is not installed.
    """
    path = source.files[0]
    with _told_apart():
        if source.is_series:
            return read_series(source.files, declared)
        if path.is_file() and path.stat().st_size == 0:
            raise VolumeError("it is empty (0 bytes); copy it again", reason="empty")
        return _READERS[_suffix(path)](path, declared)


def read_volume(path: str | Path, declared: Declared | None = None) -> Volume:
    """Read the one volume that a file or a folder of DICOM holds.

    Args:
        path: .nii, .nii.gz, .npy, .npz, .b2nd, .inv3, .zarr, one DICOM file or a folder.
        declared: what the caller says of arrays that say little.

    Raises:
        InputError: there is nothing of that name.
        VolumeError: none, several or unusable volumes.
        MissingExtraError: a library that it needs is not installed.
    """
    found = find_volumes(path)
    if len(found.sources) > 1:
        names = ", ".join(source.name for source in found.sources[:5])
        raise VolumeError(
            f"{path} holds {len(found.sources)} volumes ({names} ...); read one of them, or index them all",
            reason="mixed_series",
        )
    if not found.sources:
        if found.faults:
            raise VolumeError(f"{path}: {found.faults[0].message}", reason=found.faults[0].reason)
        raise VolumeError(
            f"{path} holds no volume: read are DICOM series, {', '.join(sorted(_READERS))}", reason="not_a_volume"
        )
    try:
        return read_source(found.sources[0], declared or Declared())
    except VolumeError as error:
        raise VolumeError(f"{path}: {error}", reason=error.reason) from error


@contextmanager
def _told_apart() -> Iterator[None]:
    """Give what the system says of files that are read a reason.

    Raises:
        VolumeError: one is gone (missing), or may not or cannot be read, as a link to itself (unreadable).
    """
    try:
        yield
    except FileNotFoundError as error:
        raise VolumeError(f"it is gone: {error}", reason="missing") from error
    except OSError as error:
        raise VolumeError(f"it may not be opened: {error}", reason="unreadable") from error


def _walk(root: Path) -> tuple[list[Path], list[Fault]]:
    """All visible files and folders of zarr below a folder, also those of links to folders and links to nothing, and
    folders that may not be listed. A folder that is reached twice is listed once."""
    files: list[Path] = []
    faults: list[Fault] = []

    def refused(error: OSError) -> None:
        name = _name(Path(error.filename).relative_to(root))
        faults.append(Fault(name, "unreadable", f"the folder may not be listed: {error}"))

    seen: set[str] = set()
    for folder, inner, names in os.walk(root, followlinks=True, onerror=refused):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        real = os.path.realpath(folder)
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        files += [Path(folder) / name for name in inner if _suffix(Path(name)) == SUFFIX]
        inner[:] = [name for name in inner if _suffix(Path(name)) != SUFFIX]
        files += [Path(folder) / name for name in names if not name.startswith(".")]
    return sorted(files), faults


def _files_in(folder: Path) -> Iterator[Path]:
    """All files below a folder.

    Raises:
        OSError: a folder may not be listed.
    """

    def refused(error: OSError) -> None:
        raise error

    for inner, _, names in os.walk(folder, onerror=refused):
        yield from (Path(inner) / name for name in names)


def _found(root: Path, files: Sequence[Path], faults: list[Fault]) -> Found:
    sources: list[Source] = []
    ignored: Counter[str] = Counter()
    pictures: dict[Path, list[Header]] = {}
    described = {file.with_suffix(".json") for file in files if _suffix(file) in _BARE}
    for file in files:
        name, suffix = _name(file.relative_to(root)), _suffix(file)
        if _is_special(file):
            if suffix in _READERS or suffix in _DICOM:
                faults.append(Fault(name, "not_a_volume", "it is a pipe, a socket or a device, which is not opened"))
            else:
                ignored[suffix or "no suffix"] += 1
        elif suffix in _READERS:
            beside = file.with_suffix(".json")
            with_json = suffix in _BARE and beside.is_file()
            sources.append(Source(name, (file, beside) if with_json else (file,)))
        elif file in described:
            continue  # it is read with its array
        elif _is_dicom(file):
            try:
                pictures.setdefault(file.parent, []).append(read_header(file))
            except VolumeError as error:
                faults.append(Fault(name, error.reason, str(error)))
        elif suffix in _DICOM:
            faults.append(Fault(name, *_no_dicom(file)))
        else:
            ignored[suffix or "no suffix"] += 1
    for folder, headers in pictures.items():
        sources.extend(_series(root, folder, headers))
    return Found(tuple(sorted(sources, key=lambda source: source.name)), tuple(faults), dict(sorted(ignored.items())))


def _series(root: Path, folder: Path, headers: list[Header]) -> Iterator[Source]:
    """The series of a folder; a folder of one series gives its own name."""
    groups = group_by_series(headers)
    within = _name(folder.relative_to(root))
    for uid, group in groups.items():
        named = f"{within}/{uid or 'series without UID'}".removeprefix("./")
        name = within if len(groups) == 1 and within != "." else named
        yield Source(name, tuple(sorted(header.path for header in group)), is_series=True)


def _name(within: Path) -> str:
    """The name of a file as it is printed and stored."""
    return printable(within.as_posix())


def _is_special(path: Path) -> bool:
    """Whether opening it may wait for ever or do something, as with pipes and devices. Links to nothing do neither."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _suffix(path: Path) -> str:
    """The suffix in small letters; .nii.gz is one."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def _is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its content; the directory of a medium is none."""
    if path.name.upper() == "DICOMDIR":
        return False
    try:
        with path.open("rb") as handle:
            start = handle.read(_PREAMBLE + 4)
    except OSError:  # `_no_dicom` tells of it where the name says DICOM
        return False
    return start[_PREAMBLE:] == b"DICM"


def _no_dicom(path: Path) -> tuple[VolumeReason, str]:
    """Why a file named as DICOM is none."""
    try:
        size = path.stat().st_size
        with path.open("rb") as handle:
            start = handle.read(len(_GROUPS[0]))
    except FileNotFoundError as error:
        return "missing", f"it is gone, or a link to nothing: {error}"
    except OSError as error:
        return "unreadable", f"it may not be opened: {error}"
    if size == 0:
        return "empty", "it is empty (0 bytes); copy it again"
    if start in _GROUPS:
        return (
            "unsupported",
            "it has no DICOM part 10 header (128 bytes and the letters DICM); write it again with one, for example "
            "with dcmconv of DCMTK",
        )
    return (
        "damaged",
        "it is named as DICOM and has no DICOM part 10 header (the letters DICM at byte 128): it is of another kind, "
        "or its start is lost",
    )
