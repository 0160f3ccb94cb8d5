"""One run at a time works on an episode."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patchatlas.errors import InputError
from patchatlas.files import lock_folder
from patchatlas.io.disk import disk_errors


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Within, no other run works on the episode in `folder`.

    Raises:
        InputError: another run is at work there.
        ResourceError: the folder may not be written.
    """
    busy = InputError(
        f"another run is at work in {folder}; wait until it has ended, or choose another name for the episode"
    )
    with disk_errors(folder):
        held = lock_folder(folder, busy=busy)
    with held:
        yield
