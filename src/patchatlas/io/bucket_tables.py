"""Read a bucket table from a file."""

from pathlib import Path

from patchatlas.errors import FormatError, InputError
from patchatlas.geometry.bucket_tables import parse_table
from patchatlas.geometry.buckets import Hw


def read_table(path: str | Path) -> tuple[Hw, ...]:
    """The buckets (h, w) of a text or JSON file, see `parse_table`.

    Raises:
        InputError: there is no such file.
        FormatError: it holds no table.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"there is no bucket table {path}; give default, learn:N, or a file with a bucket a line, such as 1216x832"
        )
    try:
        return parse_table(path.read_text(encoding="utf-8"))
    except (FormatError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: {error}") from error
