"""Any saved picture or array as plain numbers, for measuring: PNG, TIFF, JPEG, BMP, PPM or NPY, of any bit depth.

`io.images` is for photographs that go into an encoder; here 16-bit, float and complex values are kept as they are.

Axes: c channels, h w pixels.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray
from PIL import Image, UnidentifiedImageError

from patchatlas.errors import FormatError, InputError
from patchatlas.io.images import FORMATS, MAX_PIXELS
from patchatlas.io.pillow import pillow_ready
from patchatlas.io.scans.archive import load_npy

_MODES = frozenset({"1", "L", "LA", "RGB", "RGBA", "I", "I;16", "I;16B", "I;16L", "I;16N", "F"})
_MOST_CHANNELS_LAST = 4


def read_raster(path: str | Path) -> Shaped[ndarray, "c h w"]:
    """Values of a picture, channels first.

    Args:
        path: a picture, or an NPY array (h, w), (c, h, w), or (h, w, c) with up to four channels.

    Raises:
        InputError: no such file.
        FormatError: not a picture or array, damaged, of too many pixels, several pictures, or no numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}; check the name")
    with path.open("rb") as handle:
        is_npy = handle.read(6) == b"\x93NUMPY"
    return channels_first(load_npy(path) if is_npy else _picture(path), str(path))


def channels_first(array: ndarray, what: str) -> Shaped[ndarray, "c h w"]:
    """Values (h, w), (c, h, w), or (h, w, c) with up to four channels, channels first.

    Raises:
        FormatError: other axes, or no numbers.
    """
    if array.dtype.kind not in "biufc" or array.ndim not in (2, 3) or 0 in array.shape:
        raise FormatError(f"{what} is {array.dtype} {array.shape}; a picture is numbers, (h, w) or (channels, h, w)")
    if array.ndim == 2:
        return array[None]
    if array.shape[2] <= _MOST_CHANNELS_LAST < array.shape[0]:
        return np.moveaxis(array, 2, 0)
    return array


def _picture(path: Path) -> ndarray:
    try:
        with pillow_ready(MAX_PIXELS, MAX_PIXELS), Image.open(path, formats=FORMATS) as picture:
            pictures = getattr(picture, "n_frames", 1)
            if pictures > 1:
                raise FormatError(f"{path} holds {pictures} pictures; save the one you mean as its own file")
            if picture.width * picture.height > MAX_PIXELS:
                raise FormatError(
                    f"{path} has {picture.width} x {picture.height} pixels, allowed are {MAX_PIXELS}; give its NPY"
                )
            values = picture if picture.mode in _MODES else picture.convert("RGB")
            return np.array(values)  # a copy, which may be written to
    except UnidentifiedImageError as error:
        raise FormatError(f"{path} is neither an NPY array nor a picture of {', '.join(FORMATS)}") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path} is damaged or cut short ({error}); save it again") from error
