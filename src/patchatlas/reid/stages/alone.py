"""One run at a time works on an episode."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from patchatlas.errors import InputError
from patchatlas.io.disk import disk_errors

LOCK = ".lock"
"""Empty; it may stay behind, and says nothing then: the system takes the lock back when a process dies."""


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Within, no other run works on the episode in `folder`.

    Raises:
        InputError: another run is at work there.
        ResourceError: the folder may not be written.
    """
    lock = FileLock(folder / LOCK)
    try:
        with disk_errors(folder):
            lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(
            f"another run is at work in {folder}; wait until it has ended, or choose another name for the episode"
        ) from error
    try:
        yield
    finally:
        lock.release()
