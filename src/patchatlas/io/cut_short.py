"""Tell a file that ends too early from one that is damaged, by what its own headers say of its length.

JPEG: ITU T.81, annex B (the last marker is EOI). WebP: RFC 9649, 2.3 (a RIFF chunk states its length). BMP: Microsoft,
BITMAPFILEHEADER (bfSize). TIFF 6.0, section 2 (a directory states where values and strips lie).
"""

import struct
from typing import BinaryIO

_TIFF_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_OFFSETS_AND_COUNTS = ((273, 279), (324, 325))  # strips, tiles
_LONGEST_TAIL = 65_536  # cameras may append that much after the last marker


def ends_early(handle: BinaryIO) -> bool:
    """Whether a picture file that could not be read has fewer bytes than its headers promise, if they promise any."""
    size = handle.seek(0, 2)
    handle.seek(0)
    start = handle.read(12)
    if start[:2] == b"\xff\xd8":
        handle.seek(max(0, size - _LONGEST_TAIL))
        return b"\xff\xd9" not in handle.read()
    if start[:4] == b"RIFF" and start[8:] == b"WEBP":
        return int(struct.unpack("<I", start[4:8])[0]) + 8 > size
    if start[:2] == b"BM":
        return int(struct.unpack("<I", start[2:6].ljust(4, b"\0"))[0]) > size
    if start[:4] in (b"II*\0", b"MM\0*"):
        return _tiff_ends_early(handle, size, "<" if start[:2] == b"II" else ">")
    return False


def _tiff_ends_early(handle: BinaryIO, size: int, order: str) -> bool:
    """Whether the first directory of a TIFF, a value of it, or a strip or tile reaches beyond the end."""
    handle.seek(4)
    at = _numbers(handle.read(4), order, 4)
    if not at or at[0] + 2 > size:
        return True
    handle.seek(at[0])
    entries = _numbers(handle.read(2), order, 2)[0]
    table = handle.read(12 * entries)
    if len(table) < 12 * entries:
        return True
    values: dict[int, list[int]] = {}
    for first in range(0, len(table), 12):
        tag, kind, count, where = struct.unpack(f"{order}HHII", table[first : first + 12])
        length = _TIFF_TYPE_BYTES.get(kind, 0) * count
        if length > 4 and where + length > size:
            return True
        if tag in (273, 279, 324, 325) and kind in (3, 4):
            handle.seek(where)
            content = table[first + 8 : first + 12] if length <= 4 else handle.read(length)
            values[tag] = _numbers(content[:length], order, _TIFF_TYPE_BYTES[kind])
    return any(
        offset + count > size
        for offsets, counts in _OFFSETS_AND_COUNTS
        for offset, count in zip(values.get(offsets, []), values.get(counts, []), strict=False)
    )


def _numbers(content: bytes, order: str, width: int) -> list[int]:
    """As many unsigned numbers of `width` bytes as there are whole ones."""
    count = len(content) // width
    return list(struct.unpack(f"{order}{count}{'H' if width == 2 else 'I'}", content[: count * width]))
