"""Turn what the disk refuses (full, read-only, not ours) into an error that says so: exit code 6, old data intact."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from patchatlas.errors import ResourceError

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EFBIG: "it is larger than files may be here; raise the limit (ulimit -f)",
    errno.EROFS: "the disk is read-only; choose another folder",
    errno.EACCES: "the folder may not be written; change its permissions or choose another",
    errno.EPERM: "the folder may not be written; change its permissions or choose another",
}


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Run a block that writes `path` in one step; what the disk refuses becomes a `ResourceError`.

    Raises:
        ResourceError: no space, no permission or a limit. Any other `OSError` passes.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = error.errno if isinstance(error, OSError) else _number(error)
        if number not in _REASONS:
            raise
        raise ResourceError(
            f"cannot write {path}: {_REASONS[number]} and run again; what was written before is intact"
        ) from error


def _number(error: SafetensorError) -> int | None:
    """What the system called an error that the safetensors library met: it says so in its message only.

    (Rust's `std::io::Error` displays itself as "File too large (os error 27)".)
    """
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None
