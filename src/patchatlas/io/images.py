"""Read a picture file as upright RGB pixels that know where they lay in the file, and write one.

Only the values are read, as OpenCV reads them: colour profiles and gamma tags are not applied.
"""

import hashlib
import logging
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from patchatlas.arrays import ImageU8
from patchatlas.errors import FormatError, InputError, UsageError
from patchatlas.files import replacing
from patchatlas.geometry.frame import Frame

logger = logging.getLogger(__name__)

MAX_PIXELS = 89_478_485
"""Largest picture read unless the caller says otherwise: Pillow's own limit, a quarter GiB of RGB."""

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM")
"""Formats that are read, by Pillow's names; JPEG takes in the multi-picture files of phones and 3-D cameras."""

JPEG_QUALITY = 92
JPEG_LONGEST_SIDE = 65_535  # ITU T.81 stores each side in 16 bits

# Pillow's modes with 8 bits or fewer a channel and a plain way to RGB. The others (I, I;16, F: levels without an agreed
# display range; LAB, HSV: other colour spaces) would need a choice that is not ours to make.
_MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"})

# What Pillow's decoders raise for damaged bytes.
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError, struct.error)

_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_PILLOW_LIMIT = threading.Lock()


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as it came from its file.

    Attributes:
        pixels: upright RGB.
        frame: the upright picture, with the raster stored in the file as its source.
        path: the file.
        sha256: hash of the file's bytes, in hex.
    """

    pixels: ImageU8
    frame: Frame
    path: Path
    sha256: str

    @property
    def size_hw(self) -> tuple[int, int]:
        """Rows and columns of the upright picture."""
        return self.pixels.shape[0], self.pixels.shape[1]


def read_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> ImageU8:
    """The pixels of `read_picture`."""
    return read_picture(path, max_pixels=max_pixels).pixels


def read_picture(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a picture, turned upright as its EXIF orientation says.

    * Grey, palette, CMYK and YCbCr become RGB; CMYK by Pillow's plain formula.
    * Transparency is laid on white.
    * Colour with 16 bits a channel keeps the upper 8; grey with 16 bits is refused.
    * A multi-picture JPEG gives its first picture; animations and TIFFs of several pages are refused.
    * An orientation that is only in XMP is not obeyed, as OpenCV and browsers do not; one that is not 1 to 8 is passed
      over with a warning.

    Args:
        path: a JPEG, PNG, WebP, TIFF, BMP or PPM file; the content decides, not the name.
        max_pixels: rows times columns that are still read; a guard against files that unpack into all memory.

    Raises:
        InputError: no such file, a folder, or a file that may not be opened.
        FormatError: not a picture of these formats, empty, cut short, damaged, too large, animated, or with pixels that
            have no plain 8-bit RGB.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a picture file in it")
    if not path.is_file():
        raise InputError(f"there is no picture file {path}; check the name")
    try:
        handle = path.open("rb")
    except OSError as error:
        raise InputError(f"cannot open {path}: {error.strerror}") from error
    with handle, _pillow_allows(max_pixels):
        if not handle.read(1):
            raise FormatError(f"{path} is empty (0 bytes); copy or export the picture again")
        pixels, frame = _decode(handle, path, max_pixels)
        handle.seek(0)
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    return Picture(pixels, frame, path, digest)


def write_image(path: str | Path, pixels: ImageU8) -> None:
    """Write RGB pixels as JPEG (quality 92, colour at full resolution) or PNG, by suffix, in one step.

    Raises:
        UsageError: the suffix is not .jpg, .jpeg or .png, or the picture is too large for a JPEG.
        InputError: the folder does not exist.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".jpg", ".jpeg", ".png"):
        raise UsageError(f"cannot write {path}: the suffix is {path.suffix!r}; use .jpg, .jpeg or .png")
    rows, columns = pixels.shape[:2]
    if suffix != ".png" and max(rows, columns) > JPEG_LONGEST_SIDE:
        raise UsageError(
            f"cannot write {path}: {columns} x {rows} pixels, a JPEG side holds {JPEG_LONGEST_SIDE}; use .png"
        )
    picture = Image.fromarray(pixels)
    with replacing(path) as temporary:
        if suffix == ".png":
            picture.save(temporary, format="PNG")
        else:
            picture.save(temporary, format="JPEG", quality=JPEG_QUALITY, subsampling=0)


def _decode(handle: BinaryIO, path: Path, max_pixels: int) -> tuple[ImageU8, Frame]:
    try:
        picture = Image.open(handle, formats=FORMATS)
        columns, rows = picture.size
        if columns * rows > max_pixels:
            raise _too_large(path, f"{columns} x {rows} = {columns * rows} pixels", max_pixels)
        _refuse_unclear(picture, path)
        orientation = _orientation(picture, path)
        picture.load()
    except FormatError:
        raise
    except UnidentifiedImageError as error:
        raise FormatError(
            f"{path} is no picture that can be read: not {', '.join(FORMATS)}, or its beginning is damaged; "
            f"convert it (HEIC from a phone, say) to JPEG or PNG"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(path, str(error), max_pixels) from error
    except _DAMAGE as error:
        raise FormatError(f"{path} is damaged or cut short ({error}); copy or export the picture again") from error
    upright = _as_rgb(picture)
    if picture.format != "TIFF" and orientation in _TURNS:  # Pillow turns TIFFs while it loads them
        upright = upright.transpose(_TURNS[orientation])
    pixels = np.array(upright)
    rows, columns = pixels.shape[:2]
    stored_hw = (columns, rows) if orientation >= 5 else (rows, columns)
    return pixels, Frame.from_exif(stored_hw, orientation)


def _refuse_unclear(picture: ImageFile.ImageFile, path: Path) -> None:
    """Refuse several frames in one file, and pixels without a plain 8-bit RGB."""
    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format != "MPO":
        raise FormatError(
            f"{path} holds {frames} pictures (an animation or pages); save the one you mean as its own file"
        )
    if picture.mode not in _MODES:
        raise FormatError(
            f"{path} has pixels of the kind {picture.mode!r}, which have no agreed 8-bit colours; "
            f"save it as 8-bit grey or RGB with the brightness range you want"
        )


def _orientation(picture: ImageFile.ImageFile, path: Path) -> int:
    for key in ("xmp", "XML:com.adobe.xmp"):  # else Pillow takes an orientation from there
        picture.info.pop(key, None)
    orientation = picture.getexif().get(_ORIENTATION_TAG, 1)
    if orientation not in range(1, 9):
        logger.warning("%s: EXIF orientation %r does not exist (1 to 8 do); taken as upright", path, orientation)
        return 1
    return int(orientation)


def _as_rgb(picture: Image.Image) -> Image.Image:
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture.convert("RGB")


def _too_large(path: Path, found: str, max_pixels: int) -> FormatError:
    return FormatError(
        f"{path} is too large: {found}, allowed are {max_pixels}; scale it down first, or from Python raise max_pixels "
        "if you trust it"
    )


@contextmanager
def _pillow_allows(max_pixels: int) -> Iterator[None]:
    """Lift Pillow's limit, which is one for the whole process, while a larger picture is read; one reader at a time."""
    if max_pixels <= MAX_PIXELS:
        yield
        return
    with _PILLOW_LIMIT:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = max_pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before
