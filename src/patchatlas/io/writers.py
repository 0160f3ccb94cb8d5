"""Who writes in a folder: temporary files of killed writers are swept when, and only when, nobody else writes.

Every writer holds a shared lock on one file of the folder for as long as it lives; the system takes the lock back when
the process dies, however it dies. Whoever gets that lock alone knows that every temporary file is left over.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patchatlas.io.disk import disk_errors

if os.name == "posix":
    import fcntl

log = logging.getLogger(__name__)

LOCK = ".writers.lock"

# The names that `patchatlas.files.replacing` gives.
_LEFTOVER = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.part(?P<suffix>\.[^.]+)?")


def is_leftover(name: str, *, of: Path | None = None) -> bool:
    """Whether `name` is that of a temporary file, of any file or of one."""
    found = _LEFTOVER.fullmatch(name)
    return found is not None and (of is None or (found["name"], found["suffix"] or "") == (of.name, of.suffix))


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Within, this process is among the writers of a folder, which is made if it is not there.

    Raises:
        ResourceError: the disk is full, or the folder may not be written.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        writers = Writers(folder)
    try:
        yield
    finally:
        writers.leave()


class Writers:
    """This process among the writers of a folder and of the folders in it.

    Sweeps when it joins and again when it leaves, each time only if it is alone. Where the file system or the platform
    has no such locks nothing is ever swept.

    Attributes:
        swept: leftovers removed so far.
    """

    def __init__(self, folder: Path) -> None:
        self.swept: list[Path] = []
        self._folder = folder
        self._descriptor: int | None = None
        if os.name == "posix":
            self._descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            self._sweep_if_alone()
            self._lock(fcntl.LOCK_SH)  # waits for one who is sweeping

    def leave(self) -> None:
        """Stop being a writer; the last one sweeps."""
        if self._descriptor is not None:
            self._sweep_if_alone()
            os.close(self._descriptor)
            self._descriptor = None

    def _sweep_if_alone(self) -> None:
        if self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB):
            for place, folders, files in os.walk(self._folder):
                folders.sort()
                for path in (Path(place, name) for name in sorted(files) if is_leftover(name)):
                    path.unlink(missing_ok=True)
                    self.swept.append(path)

    def _lock(self, kind: int) -> bool:
        """Whether the lock was had."""
        assert self._descriptor is not None
        try:
            fcntl.flock(self._descriptor, kind)
        except BlockingIOError:  # others write
            return False
        except OSError as error:  # network file systems without locks: ENOLCK, EOPNOTSUPP
            log.warning("%s has no file locks (%s); leftovers of killed runs are not removed", self._folder, error)
            return False
        return True
