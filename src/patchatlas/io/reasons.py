"""Why a picture cannot be used: a closed list, so that scripts can count and filter."""

from typing import Literal, get_args

from patchatlas.errors import FormatError

Reason = Literal[
    "missing",
    "folder",
    "unreadable",
    "empty",
    "not_a_picture",
    "truncated",
    "damaged",
    "too_large",
    "too_small",
    "animated",
    "unsupported_pixels",
    "changed",
]
"""`missing`: no such file. `folder`: a folder of that name. `unreadable`: may not be opened, or the disk fails.
`empty`: 0 bytes. `not_a_picture`: no format that is read, whatever its name. `truncated`: ends before its picture does.
`damaged`: other bytes than its format allows. `too_large`, `too_small`: beyond the limits asked for. `animated`:
several pictures or pages. `unsupported_pixels`: no agreed 8-bit RGB. `changed`: other bytes than when the manifest was
made."""

REASONS: tuple[Reason, ...] = get_args(Reason)


class PictureError(FormatError):
    """A picture that cannot be used.

    Attributes:
        reason: which of `REASONS`.
    """

    def __init__(self, message: str, *, reason: Reason) -> None:
        super().__init__(message)
        self.reason: Reason = reason
