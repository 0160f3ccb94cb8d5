"""Read a picture file as upright RGB pixels that know where they lay in the file, and write one.

Only the values are read, as OpenCV reads them: colour profiles and gamma tags are not applied.
"""

import hashlib
import logging
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from patchatlas.arrays import ImageU8
from patchatlas.errors import UsageError
from patchatlas.files import replacing
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.rounding import ceil_to_multiple
from patchatlas.io.cut_short import ends_early
from patchatlas.io.pillow import pillow_ready
from patchatlas.io.reasons import PictureError

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

# Words by which Pillow says that the bytes end too early.
_CUT_SHORT = ("truncated", "eof", "end of file")

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


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as it came from its file.

    Attributes:
        pixels: upright RGB.
        frame: the pixels, with the raster stored in the file as its source; both have one size unless the picture was
            shrunk while it was read.
        orientation: EXIF orientation, 1 to 8.
        path: the file.
        sha256: hash of the file's bytes, in hex.
    """

    pixels: ImageU8
    frame: Frame
    orientation: int
    path: Path
    sha256: str

    @property
    def size_hw(self) -> tuple[int, int]:
        """Rows and columns of the pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


@dataclass(frozen=True)
class Header:
    """What a picture file says of itself.

    Attributes:
        frame: the upright picture, with the raster stored in the file as its source.
        orientation: EXIF orientation, 1 to 8.
        path: the file.
        sha256: hash of the file's bytes, in hex.
    """

    frame: Frame
    orientation: int
    path: Path
    sha256: str

    @property
    def size_hw(self) -> tuple[int, int]:
        """Rows and columns of the upright picture."""
        return self.frame.size[0], self.frame.size[1]


def read_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> ImageU8:
    """The pixels of `read_picture`."""
    return read_picture(path, max_pixels=max_pixels).pixels


def read_picture(
    path: str | Path, *, max_pixels: int = MAX_PIXELS, at_least_hw: tuple[int, int] | None = None
) -> Picture:
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
        at_least_hw: a JPEG is read at 1/2, 1/4 or 1/8 of its size, the smallest that has so many rows and columns when
            upright. That is faster and gives slightly other pixels; the frame says exactly where they lie.

    Raises:
        PictureError: with the reason why the file cannot be used, see `patchatlas.io.reasons`.
    """
    path = Path(path)
    with _opened(path) as handle, pillow_ready(max_pixels, MAX_PIXELS), _typed_errors(handle, path, max_pixels):
        picture, orientation, stored_hw = _open_picture(handle, path, max_pixels)
        divisor = 1 if at_least_hw is None else _shrink_jpeg(picture, at_least_hw, orientation)
        picture.load()
        upright = _as_rgb(picture)
        if picture.format != "TIFF" and orientation in _TURNS:  # Pillow turns TIFFs while it loads them
            upright = upright.transpose(_TURNS[orientation])
        digest = _digest(handle)
    pixels = np.array(upright)
    return Picture(pixels, _frame(stored_hw, orientation, divisor), orientation, path, digest)


def read_header(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Header:
    """What a picture file says of itself, without decoding its pixels; refuses what `read_picture` would refuse then.

    Raises:
        PictureError: as `read_picture`; damage among the pixels is not seen.
    """
    path = Path(path)
    with _opened(path) as handle, pillow_ready(max_pixels, MAX_PIXELS), _typed_errors(handle, path, max_pixels):
        _, orientation, stored_hw = _open_picture(handle, path, max_pixels)
        digest = _digest(handle)
    return Header(_frame(stored_hw, orientation, 1), orientation, path, digest)


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


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file, open for reading, if it is one and not empty."""
    try:
        found = path.stat()
        handle = path.open("rb") if stat.S_ISREG(found.st_mode) else None  # opening a pipe would wait for its writer
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a name with a zero byte
        raise PictureError(f"there is no picture file {path}; check the name", reason="missing") from error
    except OSError as error:
        raise PictureError(f"cannot open {path}: {error.strerror}", reason="unreadable") from error
    if stat.S_ISDIR(found.st_mode):
        raise PictureError(f"{path} is a folder; name a picture file in it", reason="folder")
    if handle is None:
        raise PictureError(f"{path} is no file but a pipe or device; name a picture file", reason="missing")
    with handle:
        if found.st_size == 0:
            raise PictureError(f"{path} is empty (0 bytes); copy or export the picture again", reason="empty")
        yield handle


def _open_picture(handle: BinaryIO, path: Path, max_pixels: int) -> tuple[ImageFile.ImageFile, int, tuple[int, int]]:
    """The picture, not yet decoded, its orientation, and rows and columns as they are stored."""
    picture = Image.open(handle, formats=FORMATS)
    columns, rows = picture.size
    if columns * rows > max_pixels:
        raise _too_large(path, f"{columns} x {rows} = {columns * rows} pixels", max_pixels)
    _refuse_unclear(picture, path)
    orientation = _orientation(picture, handle, path)
    turned = picture.format == "TIFF" and orientation >= 5  # Pillow gives the size of a TIFF as it is seen
    return picture, orientation, (columns, rows) if turned else (rows, columns)


@contextmanager
def _typed_errors(handle: BinaryIO, path: Path, max_pixels: int) -> Iterator[None]:
    """Turn what Pillow raises into our errors, with a reason."""
    try:
        yield
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        if ends_early(handle):
            raise _cut_short(path, "its directory is beyond its end") from error
        raise PictureError(
            f"{path} is no picture that can be read: not {', '.join(FORMATS)}, or its beginning is damaged; "
            f"convert it (HEIC from a phone, say) to JPEG or PNG",
            reason="not_a_picture",
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(path, str(error), max_pixels) from error
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise PictureError(f"cannot read {path}: {error.strerror}", reason="unreadable") from error
        if any(word in str(error).lower() for word in _CUT_SHORT) or ends_early(handle):
            raise _cut_short(path, str(error)) from error
        raise PictureError(
            f"{path} is damaged ({error}); copy or export the picture again", reason="damaged"
        ) from error


def _refuse_unclear(picture: ImageFile.ImageFile, path: Path) -> None:
    """Refuse several frames in one file, and pixels without a plain 8-bit RGB."""
    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format != "MPO":
        raise PictureError(
            f"{path} holds {frames} pictures (an animation or pages); save the one you mean as its own file",
            reason="animated",
        )
    if picture.mode not in _MODES:
        raise PictureError(
            f"{path} has pixels of the kind {picture.mode!r}, which have no agreed 8-bit colours; "
            f"save it as 8-bit grey or RGB with the brightness range you want",
            reason="unsupported_pixels",
        )


def _orientation(picture: ImageFile.ImageFile, handle: BinaryIO, path: Path) -> int:
    if picture.format == "PNG" and _png_tells_late(handle):
        picture.load()  # there is no other way to have Pillow read what follows the pixels
    for key in ("xmp", "XML:com.adobe.xmp"):  # else Pillow takes an orientation from there
        picture.info.pop(key, None)
    # Not `picture.getexif`: for a PNG it decodes the pixels, in case metadata follows them.
    orientation = Image.Image.getexif(picture).get(_ORIENTATION_TAG, 1)
    if orientation not in range(1, 9):
        logger.warning("%s: EXIF orientation %r does not exist (1 to 8 do); taken as upright", path, orientation)
        return 1
    return int(orientation)


def _png_tells_late(handle: BinaryIO) -> bool:
    """Whether a PNG has metadata after its first pixels (ISO/IEC 15948, 5.6); the handle stays where it was."""
    before = handle.tell()
    handle.seek(8)
    pixels = late = False
    while len(head := handle.read(8)) == 8 and not late:
        length, kind = struct.unpack(">I4s", head)
        pixels = pixels or kind == b"IDAT"
        late = pixels and kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
        handle.seek(length + 4, os.SEEK_CUR)
    handle.seek(before)
    return late


def _shrink_jpeg(picture: ImageFile.ImageFile, at_least_hw: tuple[int, int], orientation: int) -> int:
    """Have a JPEG decoded at the smallest part of its size that is large enough; gives the divisor, 1 for others."""
    if picture.format not in ("JPEG", "MPO"):
        return 1
    rows, columns = at_least_hw[::-1] if orientation >= 5 else at_least_hw
    fits = min(picture.height // rows, picture.width // columns)
    divisor = next((n for n in (8, 4, 2) if n <= fits), 1)
    # Pillow takes the largest divisor that leaves so many pixels.
    if divisor == 1 or picture.draft(None, (picture.width // divisor, picture.height // divisor)) is None:
        return 1
    return divisor


def _frame(stored_hw: tuple[int, int], orientation: int, divisor: int) -> Frame:
    """The upright picture on the stored raster. A pixel of a shrunk JPEG shows divisor x divisor stored pixels.

    The last row and column may reach beyond the raster: libjpeg rounds the sides up.
    """
    small = tuple(ceil_to_multiple(n, divisor) // divisor for n in stored_hw)
    shrunk = Frame.whole(stored_hw).crop((0, 0), [n * divisor for n in small]).resize(small)
    return Frame.from_exif(small, orientation).then(shrunk)


def _as_rgb(picture: Image.Image) -> Image.Image:
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture.convert("RGB")


def _digest(handle: BinaryIO) -> str:
    handle.seek(0)
    return hashlib.file_digest(handle, "sha256").hexdigest()  # type: ignore[arg-type]


def _cut_short(path: Path, detail: str) -> PictureError:
    return PictureError(f"{path} is cut short ({detail}); copy or export the picture again", reason="truncated")


def _too_large(path: Path, found: str, max_pixels: int) -> PictureError:
    return PictureError(
        f"{path} is too large: {found}, allowed are {max_pixels}; scale it down first, or raise max_pixels "
        "(--max-pixels) if you trust it",
        reason="too_large",
    )
