"""Write tar files whose bytes depend on their members alone, with every member's place known before the first write.

Names are POSIX pax (IEEE Std 1003.1-2001, pax, "ustar Interchange Format"); times, owners and modes are fixed.
"""

import hashlib
import os
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

BLOCK = tarfile.BLOCKSIZE
"""Headers and contents begin at multiples of 512 bytes."""

END = 2 * BLOCK
"""An archive ends in two blocks of zeros."""


@dataclass(frozen=True)
class Place:
    """Where the content of a member lies.

    Attributes:
        offset: first byte, counted from the start of the file.
        size: bytes.
    """

    offset: int
    size: int


def header(name: str, size: int) -> bytes:
    """The header blocks of a regular file with mode 0644, owner 0 and time 0."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(format=tarfile.PAX_FORMAT, encoding="utf-8", errors="strict")


def stored_bytes(name: str, size: int) -> int:
    """Bytes that one member takes: header, content, and zeros up to the next block."""
    return len(header(name, size)) + -(-size // BLOCK) * BLOCK


def layout(members: Iterable[tuple[str, int]]) -> tuple[list[Place], int]:
    """Places of (name, size) members written in this order, and the size of the whole file."""
    places, at = [], 0
    for name, size in members:
        places.append(Place(at + len(header(name, size)), size))
        at += stored_bytes(name, size)
    return places, at + END


def hash_of_tar(path: Path, members: Iterable[tuple[str, int, str]]) -> str | None:
    """The SHA-256 of a tar that is, to the last byte, what `TarWriter` makes of these members, else `None`.

    Args:
        path: of the tar.
        members: (name, size, SHA-256 of the content) in order.
    """
    whole = hashlib.sha256()
    with path.open("rb") as handle:
        for name, size, sha256 in members:
            head, stored = header(name, size), handle.read(stored_bytes(name, size))
            end = len(head) + size
            if not stored.startswith(head) or stored[end:].strip(b"\0"):
                return None
            if hashlib.sha256(memoryview(stored)[len(head) : end]).hexdigest() != sha256:
                return None
            whole.update(stored)
        last = handle.read(END + 1)
        whole.update(last)
    return whole.hexdigest() if last == bytes(END) else None


class TarWriter:
    """Writes members one after the other and keeps the SHA-256 of the file.

    Args:
        handle: where to write; it is not closed.
    """

    def __init__(self, handle: BufferedIOBase) -> None:
        self._handle = handle
        self._hash = hashlib.sha256()

    def add(self, name: str, content: bytes) -> None:
        """Append one member."""
        self._put(header(name, len(content)))
        self._put(content)
        self._put(bytes(-len(content) % BLOCK))

    def finish(self) -> str:
        """Write the end of the archive and return the hash of the whole file in hex."""
        self._put(bytes(END))
        return self._hash.hexdigest()

    def _put(self, content: bytes) -> None:
        self._handle.write(content)
        self._hash.update(content)


@contextmanager
def part_file(path: Path) -> Iterator[BufferedIOBase]:
    """Open `NAME.part` beside `path`; on success sync it and rename it onto `path`, on error remove it.

    Unlike `files.replacing` the temporary name is always the same, so that a run that follows a killed one writes over
    what that one left, however large; whoever calls makes sure that one process writes at a time.
    """
    temporary = path.with_name(f"{path.name}.part")
    try:
        with temporary.open("wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def first_member(path: Path) -> tuple[str, bytes] | None:
    """Name and content of the first member; `None` where the file is no tar, empty or cut short."""
    try:
        with tarfile.open(path, mode="r:") as archive:
            info = archive.next()
            content = archive.extractfile(info) if info is not None and info.isreg() else None
            if info is None or content is None:
                return None
            return info.name, content.read()
    except tarfile.TarError:
        return None
