"""One run at a time marks a folder, and clears away what a killed one left half-written."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from patchatlas.errors import InputError
from patchatlas.io.disk import disk_errors
from patchatlas.io.writers import is_leftover

if os.name == "posix":
    import fcntl

log = logging.getLogger(__name__)


@contextmanager
def alone_in(folder: Path, *, outputs: Sequence[Path]) -> Iterator[None]:
    """Within, no other run marks `folder`; temporary files of `outputs` that a killed run left are removed first.

    The lock is on the folder itself, so no file is left behind, and the system takes it back when the process dies.
    Where there are no such locks (Windows, some network disks) nothing is locked and nothing removed.

    Raises:
        InputError: another run is at work there.
        ResourceError: a leftover may not be removed.
    """
    if os.name != "posix":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _locked(descriptor, folder):
            for path in outputs:
                _sweep(path)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int, folder: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(f"another run is marking {folder}; wait until it has ended") from error
    except OSError as error:  # network file systems without locks: ENOLCK, EOPNOTSUPP
        log.warning("%s cannot be locked (%s); leftovers of killed runs are not removed", folder, error)
        return False
    return True


def _sweep(path: Path) -> None:
    """Remove the temporary files of one file."""
    with disk_errors(path):
        for name in sorted(os.listdir(path.parent)):
            if is_leftover(name, of=path):
                (path.parent / name).unlink(missing_ok=True)
