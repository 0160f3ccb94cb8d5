"""Where a record's patches lie in its picture: exact rectangles, both ways.

A chain of frames: stored raster - upright picture - scaled to cover the bucket - the bucket cut from its centre -
scaled to whole patches. Every link is exact, so the encoder's pixels are drawn from the source in one resample and a
patch is a rectangle of fractions. Rectangles and points run x first, cells are (row, col).
"""

import math
from dataclasses import replace
from fractions import Fraction
from typing import Literal

from patchatlas.errors import FormatError, ShapeError
from patchatlas.geometry.buckets import BucketRule, Hw, bucket_name, cover, cover_sizes, nearest_bucket, to_patches
from patchatlas.geometry.frame import Frame
from patchatlas.io.manifest import MIGRATE, Record

Plane = Literal["upright", "stored"]
"""What the source of a frame is: the picture as it is seen, or the raster as it lies in the file."""

Number = Fraction | float | int

Rectangle = tuple[Fraction, Fraction, Fraction, Fraction]


def place(record: Record, table: tuple[Hw, ...], *, rule: BucketRule = "log") -> Record:
    """The record with its bucket, and where the bucket lies in the picture.

    Args:
        record: one whose width and height are known.
        table: buckets (h, w) to choose from.
        rule: see `nearest_bucket`.
    """
    if record.width is None or record.height is None:
        raise FormatError(f"{record.image_path}: width and height are not known; {MIGRATE}")
    size = (record.height, record.width)
    bucket = nearest_bucket(size, table, rule=rule)
    scaled, (y, x) = cover_sizes(size, bucket)
    return replace(
        record,
        aspect_bucket=bucket,
        resized=(scaled[1], scaled[0]),
        crop=(x, y, bucket[1], bucket[0]),
        crop_source=_rectangle(cover(size, bucket), (0, 0), bucket),
    )


def require_bucket(record: Record, table: tuple[Hw, ...], *, rule: BucketRule = "log") -> None:
    """Refuse a record whose bucket is not the one that the table and the rule give.

    Raises:
        FormatError: it says what the record has and what it should have.
    """
    found = bucket_frame(record)
    wanted = bucket_frame(place(record, table, rule=rule))
    if found != wanted:
        has, should = (bucket_name((frame.size[0], frame.size[1])) for frame in (found, wanted))
        raise FormatError(
            f"{record.image_path} lies in bucket {has}, the table and the {rule} rule give {should}; {MIGRATE}, or "
            "give the table and rule that the manifest was made with"
        )


def bucket_frame(record: Record, *, plane: Plane = "upright") -> Frame:
    """The pixels of the bucket, as the record says they lie in its picture.

    Raises:
        FormatError: the record has no bucket, or its numbers contradict each other.
    """
    if record.aspect_bucket is None or record.resized is None or record.crop is None:
        raise FormatError(f"aspect_bucket not found for {record.image_path!r}; {MIGRATE}")
    if record.width is None or record.height is None:
        raise FormatError(f"width and height not found for {record.image_path!r}; {MIGRATE}")
    x, y, w, h = record.crop
    resized = (record.resized[1], record.resized[0])
    if record.aspect_bucket != (h, w) or x + w > resized[1] or y + h > resized[0]:
        raise FormatError(
            f"{record.image_path}: crop {list(record.crop)} of {list(record.resized)} is not a bucket of "
            f"{bucket_name(record.aspect_bucket)}; {MIGRATE}"
        )
    frame = Frame.whole((record.height, record.width)).resize(resized).crop((y, x), (h, w))
    if record.crop_source is not None and record.crop_source != _rectangle(frame, (0, 0), frame.size):
        raise FormatError(f"{record.image_path}: crop_source is not where crop and resized put it; {MIGRATE}")
    return frame if plane == "upright" else frame.then(upright_frame(record))


def upright_frame(record: Record) -> Frame:
    """The upright picture, with the raster as it lies in the file as its source.

    Raises:
        FormatError: size or orientation are not known.
    """
    if record.width is None or record.height is None or record.exif_orientation is None:
        raise FormatError(f"{record.image_path}: size or exif_orientation are not known; {MIGRATE}")
    upright = (record.height, record.width)
    turned = record.exif_orientation >= 5  # these swap rows and columns
    return Frame.from_exif(upright[::-1] if turned else upright, record.exif_orientation)


def encoder_frame(record: Record, patch: tuple[int, int], *, plane: Plane = "upright") -> Frame:
    """What the encoder sees: the whole bucket at the size rounded half-up to whole patches (h, w), nothing cut."""
    return to_patches(bucket_frame(record, plane=plane), patch)


def patch_box(record: Record, patch: tuple[int, int], row: int, col: int, *, plane: Plane = "upright") -> Rectangle:
    """The rectangle (x0, y0, x1, y1) of the picture that patch (row, col) shows, exact.

    Raises:
        ShapeError: there is no such patch.
    """
    frame = encoder_frame(record, patch, plane=plane)
    rows, cols = _grid(frame, patch)
    if not (0 <= row < rows and 0 <= col < cols):
        raise ShapeError(f"there is no patch ({row}, {col}) in {rows} rows x {cols} columns")
    return _rectangle(frame, (row * patch[0], col * patch[1]), patch)


def cell_at(
    record: Record, patch: tuple[int, int], x: Number, y: Number, *, plane: Plane = "upright"
) -> tuple[int, int]:
    """The (row, col) of the patch that shows a point of the picture, exact.

    Of two patches that touch in the point it is the one that begins there, seen upright.

    Raises:
        ShapeError: the point was cut away with the rest outside the bucket.
    """
    frame = encoder_frame(record, patch, plane=plane)
    source = (Fraction(y), Fraction(x))
    at = [(source[a] - t) / s for a, t, s in zip(frame.axes, frame.shift, frame.scale, strict=True)]
    if not all(0 <= f < n for f, n in zip(at, frame.size, strict=True)):
        seen = ", ".join(str(edge) for edge in _rectangle(frame, (0, 0), frame.size))
        raise ShapeError(f"no patch shows the point x {x}, y {y}: the bucket was cut from x0, y0, x1, y1 = {seen}")
    return math.floor(at[0] / patch[0]), math.floor(at[1] / patch[1])


def _grid(frame: Frame, patch: tuple[int, int]) -> tuple[int, int]:
    return frame.size[0] // patch[0], frame.size[1] // patch[1]


def _rectangle(frame: Frame, start: tuple[int, ...], size: tuple[int, ...]) -> Rectangle:
    """A rectangle of frame pixels (row, column first) as (x0, y0, x1, y1) of the source, ordered."""
    low, high = [Fraction(0)] * 2, [Fraction(0)] * 2
    for k in range(2):
        ends = [frame.scale[k] * f + frame.shift[k] for f in (start[k], start[k] + size[k])]
        low[frame.axes[k]], high[frame.axes[k]] = min(ends), max(ends)
    return low[1], low[0], high[1], high[0]
