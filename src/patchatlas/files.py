"""Write files so that a reader sees the old bytes or the new ones, never a part; take a folder for one process."""

import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from patchatlas.errors import InputError, PatchAtlasError, UsageError

LOCK = ".lock"
"""In a folder that one process at a time works in. Empty; it may stay behind, and says nothing then: the system takes
the lock back when a process dies."""


def lock_folder(folder: str | Path, *, busy: PatchAtlasError) -> AbstractContextManager[object]:
    """Take a folder for this process alone; the end of the context that is returned gives it back.

    Args:
        folder: exists.
        busy: raised if another process, or another part of this one, has it.

    Raises:
        OSError: no lock can be made there.
    """
    from filelock import FileLock, Timeout  # not before it is needed: half a second the first time

    try:
        return FileLock(Path(folder) / LOCK).acquire(timeout=0)
    except Timeout as error:
        raise busy from error


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success sync it, rename it onto `path` and sync the folder; on error
    remove it.

    A file that is replaced hands on its permissions. A link stays: what it points to is replaced.

    Raises:
        InputError: the folder of `path` does not exist.
    """
    suffix = Path(path).suffix  # of the name given: some libraries go by it
    path = Path(_followed(path))
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: the folder {path.parent} does not exist; create it first")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part{suffix}")
    of_new = None if path.exists() else _mode_of_a_new_file(temporary)  # some libraries write for the owner alone
    try:
        yield temporary
        with temporary.open("rb") as handle:
            _hand_on_mode(path, temporary, of_new=of_new)
            os.fsync(handle.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """Yield a new, empty folder beside `path`; on success sync it and put it in `path`'s place, on error remove it.

    A folder in that place is renamed aside first, renamed back if the new one cannot take its place, and deleted once
    it has. Whether it may be replaced is for the caller to say. No portable call swaps two folders, so a process that
    is killed between the two renames leaves both beside `path`, whole: the former as `.NAME.*.old`, the new as
    `.NAME.*.part`.

    Raises:
        InputError: the folder that `path` lies in does not exist.
    """
    path = Path(os.path.abspath(path))
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: the folder {path.parent} does not exist; create it first")
    temporary, former = (path.with_name(f".{path.name}.{secrets.token_hex(4)}.{end}") for end in ("part", "old"))
    temporary.mkdir()
    try:
        yield temporary
        _sync_tree(temporary)
        try:
            if path.exists():
                path.rename(former)
            temporary.rename(path)
        except BaseException:
            if former.exists() and not path.exists():
                former.rename(path)
            raise
        sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if path.exists():  # else the former folder could not be put back: leave it where it is
            shutil.rmtree(former, ignore_errors=True)


def holds_others(folder: str | Path, what: str, *, some: Sequence[str] = ()) -> UsageError:
    """To be raised where a folder is to be made that holds other files.

    Args:
        folder: that was named.
        what: would be made there.
        some: names of what is there, of which the first few are told.
    """
    told = ", ".join(some[:3]) + (" ..." if len(some) > 3 else "")
    named = f" ({told})" if some else ""
    return UsageError(f"{folder} holds other files and no {what}{named}; name a new or an empty folder")


def sync_folder(folder: Path) -> None:
    """Put the names in `folder` on the disk, so that a rename outlives a loss of power; Windows has no such call."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: str | Path, content: bytes, *, sync_name: bool = True) -> None:
    """Write `content` to `path` in one step, as `replacing` does.

    Args:
        path: its folder exists.
        content: all of the file.
        sync_name: also put the name on the disk before this returns. Without it `sync_folder` is left to the caller,
            who calls it once for many files.

    Raises:
        InputError: the folder of `path` does not exist.
    """
    path = _followed(path)
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(4)}.part{os.path.splitext(name)[1]}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"cannot write {path}: the folder {folder} does not exist; create it first") from error
    try:
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            _hand_on_mode(path, temporary)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if sync_name:
        sync_folder(Path(folder))


def write_text(path: str | Path, content: str) -> None:
    """Write `content` to `path` as UTF-8, newlines as given, in one step."""
    write_bytes(path, content.encode())


def sort_safetensors_metadata(path: str | Path) -> None:
    """Put the metadata of a safetensors file in the order of its keys, in place.

    The safetensors library writes them in another order every time; sorted, the same content is the same bytes. (A file
    begins with the length of its JSON header, eight bytes, low first, and the header may end in spaces: safetensors
    README, "Format".)
    """
    with Path(path).open("r+b") as handle:
        length = int.from_bytes(handle.read(8), "little")
        header = json.loads(handle.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        content = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(content) <= length, "the same keys and values take the same room"
        handle.seek(8)
        handle.write(content.ljust(length))


def _followed(path: str | Path) -> str:
    """The name that is written to: that which a link points to, however far, else `path` itself."""
    return os.path.realpath(path) if os.path.islink(path) else os.fspath(path)


def _mode_of_a_new_file(temporary: Path) -> int:
    """The permissions that the umask leaves a new file, seen on one of this name, which is gone again."""
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        return os.fstat(descriptor).st_mode
    finally:
        os.close(descriptor)
        temporary.unlink()


def _hand_on_mode(former: str | Path, temporary: str | Path, *, of_new: int | None = None) -> None:
    """Give a file the permissions of the one that it will replace, if there is one, or else `of_new`, if given."""
    try:
        mode = os.stat(former).st_mode
    except OSError:
        if of_new is None:
            return
        mode = of_new
    if stat.S_ISREG(mode) and mode != os.stat(temporary).st_mode:  # some disks know one mode only
        os.chmod(temporary, stat.S_IMODE(mode))


def _sync_tree(folder: Path) -> None:
    """Put all files below `folder`, and their names, on the disk."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
    sync_folder(folder)
