"""Why a volume cannot be used: a closed list, so that scripts can count and filter."""

from typing import Literal, get_args

from patchatlas.errors import FormatError

VolumeReason = Literal[
    "missing",
    "unreadable",
    "empty",
    "not_a_volume",
    "truncated",
    "damaged",
    "unsupported",
    "not_ct",
    "wrong_units",
    "not_finite",
    "no_spacing",
    "no_orientation",
    "sheared",
    "mixed_series",
    "missing_slices",
    "uneven_slices",
    "too_small",
    "no_foreground",
    "no_mask",
    "not_a_mask",
    "mask_differs",
]
"""`missing`: no such file or folder. `unreadable`: may not be opened, or the disk fails. `empty`: 0 bytes.
`not_a_volume`: no format that is read, or not one array of three axes. `truncated`: ends before its voxels do.
`damaged`: other bytes than its format allows. `unsupported`: a kind of its format that is not read. `not_ct`: it says
that it is of another modality, or a localizer. `wrong_units`: no Hounsfield units. `not_finite`: NaN or infinity.
`no_spacing`, `no_orientation`: it does not say how large its voxels are or which way its axes run. `sheared`: slices
that are not stacked along their normal, as of a tilted gantry. `mixed_series`: pictures that do not belong together.
`missing_slices`, `uneven_slices`: gaps that are whole multiples of the slice distance, or not. `too_small`: fewer than
two voxels along an axis. `no_foreground`: no voxel above any threshold, or none in the mask that was given. `no_mask`:
masks were given, and none or several of its name. `not_a_mask`: not whole numbers from 0 on. `mask_differs`: its mask
has another shape, other voxels or another place."""

VOLUME_REASONS: tuple[VolumeReason, ...] = get_args(VolumeReason)


def printable(text: str) -> str:
    r"""The same text, with what names of files hold beside UTF-8 as `\xfc`, so that it can be printed and stored."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class VolumeError(FormatError):
    """A volume that cannot be used.

    Attributes:
        reason: which of `VOLUME_REASONS`.
    """

    def __init__(self, message: str, *, reason: VolumeReason) -> None:
        super().__init__(printable(message))
        self.reason: VolumeReason = reason
