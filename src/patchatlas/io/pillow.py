"""Pillow's limit and its warnings belong to the whole process; here they are held only while pictures are read."""

import ctypes
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, _imaging

_LIMIT = threading.Lock()
_WARNINGS = threading.Lock()
_IGNORED = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_PILLOW_LOG = logging.getLogger("PIL")
_NOWHERE = (
    logging.NullHandler()
)  # without any handler Python prints errors that are logged; with the user's, it does not
_readers = 0
_tiff_before: int | None = None


@contextmanager
def pillow_ready(max_pixels: int, usual: int) -> Iterator[None]:
    """Keep Pillow's warnings quiet, and its limit out of the way of ours.

    Whatever Pillow warns of (a picture that unpacks into much memory, damaged metadata) is checked here or does not
    touch the pixels; printed in the middle of a batch, without a file name, it helps nobody.

    Args:
        max_pixels: what the caller allows.
        usual: above it Pillow's own limit is lifted, by one reader at a time.
    """
    with _quiet():
        if max_pixels <= usual:
            yield
            return
        with _LIMIT:
            before = Image.MAX_IMAGE_PIXELS
            Image.MAX_IMAGE_PIXELS = max_pixels
            try:
                yield
            finally:
                Image.MAX_IMAGE_PIXELS = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Hush Pillow's warnings and log, and the libtiff below it, from the first reader's start to the last one's end.

    `warnings.catch_warnings` would put back, in one thread, the filters that another thread has just changed.
    """
    global _readers, _tiff_before
    with _WARNINGS:
        _readers += 1
        # Put in front again by every reader, for other threads may have put back the filters of before.
        warnings.filterwarnings("ignore", module=_IGNORED[3].pattern)
        if _readers == 1:
            _tiff_before = _set_tiff_error_handler(None)
            _PILLOW_LOG.addHandler(_NOWHERE)
    try:
        yield
    finally:
        with _WARNINGS:
            _readers -= 1
            if not _readers:
                _set_tiff_error_handler(_tiff_before)
                _PILLOW_LOG.removeHandler(_NOWHERE)
                if _IGNORED in warnings.filters:
                    warnings.filters.remove(_IGNORED)  # type: ignore[attr-defined]


def _set_tiff_error_handler(handler: int | None) -> int | None:
    """Set what libtiff calls to print an error (None: nothing) and give what it was; TIFFError(3tiff).

    Without it libtiff writes to stderr itself. Where Pillow hides its libtiff, as on Windows, nothing is changed.
    """
    library = ctypes.CDLL(_imaging.__file__)
    if not hasattr(library, "TIFFSetErrorHandler"):
        return None
    library.TIFFSetErrorHandler.restype = ctypes.c_void_p
    library.TIFFSetErrorHandler.argtypes = [ctypes.c_void_p]
    before: int | None = library.TIFFSetErrorHandler(handler)
    return before
