"""Picture files of every awkward kind, each with what reading it must give: exact pixels, or the reason of its refusal.

The files are written byte by byte or by Pillow from known pixels, so no answer comes from the reader that is tested.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms


@dataclass(frozen=True, kw_only=True)
class Case:
    """A file and what reading it must give.

    Attributes:
        name: file name, unique among the cases.
        content: its bytes.
        pixels: upright RGB that it must give; None if it must be refused.
        reasons: of these the refusal must have one.
        orientation: EXIF orientation that it must report.
        tolerance: grey levels that a lossy format may be off.
    """

    name: str
    content: bytes
    pixels: np.ndarray | None = None
    reasons: tuple[str, ...] = ()
    orientation: int = 1
    tolerance: int = 0


NOISE = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
"""Pixels that no format packs well, so a file is mostly pixel data."""

BLOCKS = (
    np.array([[[250, 10, 10], [10, 250, 10], [10, 10, 250]], [[250, 250, 10], [120, 120, 120], [10, 10, 10]]])
    .repeat(16, axis=0)
    .repeat(16, axis=1)
    .astype(np.uint8)
)
"""32 x 48 pixels, no two 16-pixel blocks alike, so that JPEG keeps them apart."""

LOSSLESS: dict[str, dict[str, object]] = {
    "png": {"format": "PNG"},
    "webp": {"format": "WEBP", "lossless": True},
    "raw.tif": {"format": "TIFF"},
    "lzw.tif": {"format": "TIFF", "compression": "tiff_lzw"},
    "zip.tif": {"format": "TIFF", "compression": "tiff_deflate"},
    "bmp": {"format": "BMP"},
    "ppm": {"format": "PPM"},
}
LOSSY: dict[str, dict[str, object]] = {
    "jpg": {"format": "JPEG", "quality": 100, "subsampling": 0},
    "progressive.jpg": {"format": "JPEG", "quality": 100, "subsampling": 0, "progressive": True},
    "lossy.webp": {"format": "WEBP", "quality": 100, "exact": True},
    "jpeg.tif": {"format": "TIFF", "compression": "jpeg", "quality": 100},
}
KINDS = LOSSLESS | LOSSY
TOLERANCE = {"jpg": 6, "progressive.jpg": 6, "jpeg.tif": 12, "lossy.webp": 130}  # WebP has colour at half resolution
WITH_EXIF = ("png", "webp", "raw.tif", "lzw.tif", "jpg", "progressive.jpg")


def every_case() -> list[Case]:
    """All cases; the names differ."""
    return [case for make in MAKERS for case in make()]


# -- readable --------------------------------------------------------------------------------------------------------


def plain() -> Iterator[Case]:
    """Every kind, and every kind under a name of another."""
    for n, (kind, options) in enumerate(KINDS.items()):
        wrong = list(KINDS)[n - 1].rsplit(".", 1)[-1]
        content = saved(Image.fromarray(BLOCKS), **options)
        tolerance = TOLERANCE.get(kind, 0)
        yield Case(name=f"plain.{kind}", content=content, pixels=BLOCKS, tolerance=tolerance)
        yield Case(name=f"misnamed-{kind}.{wrong}", content=content, pixels=BLOCKS, tolerance=tolerance)
        yield Case(name=f"trailing.{kind}", content=content + b"\0" * 9, pixels=BLOCKS, tolerance=tolerance)


def turned() -> Iterator[Case]:
    """EXIF orientations 1 to 8, and two that do not exist."""
    for kind in WITH_EXIF:
        tolerance = TOLERANCE.get(kind, 0)
        absurd = () if kind == "lzw.tif" else (0, 9)  # libtiff does not write them
        for orientation in (*range(1, 9), *absurd):
            stored = as_stored(BLOCKS, orientation) if 1 <= orientation <= 8 else BLOCKS
            content = saved(Image.fromarray(stored), exif=exif(orientation), **KINDS[kind])
            yield Case(
                name=f"exif-{orientation}.{kind}",
                content=content,
                pixels=BLOCKS,
                orientation=orientation if 1 <= orientation <= 8 else 1,
                tolerance=tolerance,
            )


def tiny() -> Iterator[Case]:
    """One pixel, one row, one column."""
    for kind, options in KINDS.items():
        for h, w in ((1, 1), (1, 7), (7, 1)):
            grey = np.full((h, w, 3), 90, np.uint8)
            tolerance = 3 if kind in LOSSY else 0
            content = saved(Image.fromarray(grey), **options)
            yield Case(name=f"tiny-{w}x{h}.{kind}", content=content, pixels=grey, tolerance=tolerance)


def modes() -> Iterator[Case]:
    """Kinds of pixels: depths, palettes, transparency, inks. Expected colours are worked by hand."""

    def one(name: str, content: bytes, *rgb: int, tolerance: int = 0) -> Case:
        return Case(name=name, content=content, pixels=np.array([[rgb]], np.uint8), tolerance=tolerance)

    # PNG (ISO/IEC 15948, 11.2.2): depth, colour type (0 grey, 2 RGB, 3 palette, 4 grey + alpha, 6 RGBA), one pixel.
    for depth, level in ((1, 1), (2, 2), (4, 7), (8, 99)):
        byte = level << (8 - depth)
        grey = level * 255 // (2**depth - 1)
        yield one(f"grey{depth}.png", png(1, 1, depth, 0, bytes([0, byte])), grey, grey, grey)
        entries = [(n, 255 - n, 7) for n in range(2**depth)]
        plte = chunk(b"PLTE", bytes(v for entry in entries for v in entry))
        yield one(f"palette{depth}.png", png(1, 1, depth, 3, bytes([0, byte]), plte), *entries[level])
        clear = chunk(b"tRNS", bytes(0 if n == level else 255 for n in range(2**depth)))
        yield one(f"palette-clear{depth}.png", png(1, 1, depth, 3, bytes([0, byte]), plte + clear), 255, 255, 255)
    # Alpha 51 is a fifth: 0.2 * 100 + 0.8 * 255 = 224, 0.2 * 0 + 0.8 * 255 = 204.
    yield one("rgb8.png", png(1, 1, 8, 2, bytes([0, 1, 2, 3])), 1, 2, 3)
    yield one("rgb16.png", png(1, 1, 16, 2, struct.pack(">B3H", 0, 0x12FF, 0xFF00, 0x0080)), 0x12, 0xFF, 0x00)
    yield one("rgba8.png", png(1, 1, 8, 6, bytes([0, 100, 0, 0, 51])), 224, 204, 204)
    yield one("rgba16.png", png(1, 1, 16, 6, struct.pack(">B4H", 0, 25600, 0, 0, 51 << 8)), 224, 204, 204)
    yield one("la8.png", png(1, 1, 8, 4, bytes([0, 100, 51])), 224, 224, 224)
    key = chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))
    yield one("rgb-key.png", png(1, 1, 8, 2, bytes([0, 1, 2, 3]), key), 255, 255, 255)
    yield one(
        "rgba.webp", saved(Image.new("RGBA", (1, 1), (100, 0, 0, 0)), format="WEBP", lossless=True), 255, 255, 255
    )
    # Pillow's plain formula for inks: each of red, green, blue is (255 - ink) less black.
    for inks, rgb in (((0, 0, 0, 0), (255, 255, 255)), ((255, 0, 0, 0), (0, 255, 255)), ((0, 0, 0, 255), (0, 0, 0))):
        name = "-".join(map(str, inks))
        cmyk = Image.new("CMYK", (16, 16), inks)
        pixels = np.full((16, 16, 3), rgb, np.uint8)
        yield Case(name=f"cmyk-{name}.tif", content=saved(cmyk, format="TIFF"), pixels=pixels)
        yield Case(name=f"cmyk-{name}.jpg", content=saved(cmyk, format="JPEG", quality=100), pixels=pixels, tolerance=3)
    yield Case(
        name="grey.jpg", content=saved(Image.new("L", (8, 8), 77), format="JPEG"), pixels=flat(8, 8, 77), tolerance=2
    )
    yield Case(name="bilevel.tif", content=saved(Image.new("1", (8, 8), 1), format="TIFF"), pixels=flat(8, 8, 255))
    yield Case(
        name="fax.tif",
        content=saved(Image.new("1", (8, 8), 1), format="TIFF", compression="group4"),
        pixels=flat(8, 8, 255),
    )
    yield Case(
        name="ycbcr.tif",
        content=saved(Image.new("YCbCr", (8, 8), (90, 128, 128)), format="TIFF"),
        pixels=flat(8, 8, 90),
    )
    yield Case(
        name="palette.bmp", content=saved(Image.new("L", (8, 8), 33).convert("P"), format="BMP"), pixels=flat(8, 8, 33)
    )
    yield Case(name="la.tif", content=saved(Image.new("LA", (8, 8), (100, 51)), format="TIFF"), pixels=flat(8, 8, 224))
    yield Case(name="bits.pbm", content=b"P1 2 1\n1 0\n", pixels=np.array([[[0] * 3, [255] * 3]], np.uint8))
    yield Case(name="text.pgm", content=b"P2 2 1 255\n7 9\n", pixels=np.array([[[7] * 3, [9] * 3]], np.uint8))
    yield Case(name="text.ppm", content=b"P3 1 1 255\n7 8 9\n", pixels=np.array([[[7, 8, 9]]], np.uint8))
    pair = [Image.new("RGB", (16, 16), colour) for colour in ((250, 5, 5), (5, 250, 5))]
    content = saved(pair[0], format="MPO", save_all=True, append_images=pair[1:], quality=100, subsampling=0)
    yield Case(name="stereo.mpo", content=content, pixels=np.full((16, 16, 3), (250, 5, 5), np.uint8), tolerance=3)


# -- refused ---------------------------------------------------------------------------------------------------------


def cut() -> Iterator[Case]:
    """Every kind cut at many places: `truncated` from where its kind can be told."""
    for kind, options in KINDS.items():
        content = saved(Image.fromarray(NOISE), **options)
        yield Case(name=f"cut-1.{kind}", content=content[:1], reasons=("not_a_picture",))
        told = 16  # bytes
        for n in np.linspace(told, len(content) * 9 // 10, 14).astype(int):
            yield Case(name=f"cut-{n}.{kind}", content=content[:n], reasons=("truncated",))

    jpeg = saved(Image.fromarray(NOISE), **KINDS["jpg"])
    yield Case(name="cut-at-scan.jpg", content=jpeg[: jpeg.index(b"\xff\xda")], reasons=("truncated",))
    for kind in ("lzw.tif", "jpeg.tif"):  # the directory is whole, what it points to is not
        tiff = saved(Image.fromarray(NOISE), **KINDS[kind])
        start = struct.unpack("<I", tiff[4:8])[0]
        end = start + 2 + 12 * struct.unpack("<H", tiff[start : start + 2])[0] + 4
        for n in (end, end + 3):
            yield Case(name=f"cut-after-directory-{n - end}.{kind}", content=tiff[:n], reasons=("truncated",))


def damaged() -> Iterator[Case]:
    """Bytes overwritten where the format can notice it: magic numbers, checksums, packed data."""
    for kind, options in KINDS.items():
        content = bytearray(saved(Image.fromarray(NOISE), **options))
        content[:4] = b"\xa5" * 4
        yield Case(name=f"no-magic.{kind}", content=bytes(content), reasons=("not_a_picture",))
    content = saved(Image.fromarray(NOISE), format="PNG")
    for n in range(60, len(content) - 20, len(content) // 24):  # within IDAT, which a checksum guards
        yield Case(name=f"flip-{n}.png", content=flipped(content, n), reasons=("damaged",))
    yield Case(name="flip-size.png", content=flipped(content, 17), reasons=("not_a_picture",))
    content = saved(Image.fromarray(NOISE), format="TIFF", compression="tiff_deflate")
    for n in range(10, 200, 24):
        yield Case(name=f"flip-{n}.zip.tif", content=flipped(content, n), reasons=("damaged",))
    content = saved(Image.fromarray(NOISE), **KINDS["jpeg.tif"])
    at = content.index(b"\xff\xd8")  # of its tables or strip; libtiff says so on stderr unless it is hushed
    yield Case(name="no-start.jpeg.tif", content=content[:at] + b"\0\0" + content[at + 2 :], reasons=("damaged",))
    content = saved(Image.fromarray(NOISE), format="JPEG")
    start = content.index(b"\xff\xda")  # SOS; without tables nothing can be decoded
    yield Case(name="no-tables.jpg", content=content[:20] + content[start:], reasons=("damaged", "not_a_picture"))
    yield Case(name="no-size.jpg", content=content[:2] + b"\xff\xd9", reasons=("not_a_picture", "damaged"))
    yield Case(name="zero-wide.png", content=png(0, 5, 8, 0, b"\0"), reasons=("not_a_picture", "damaged"))
    yield Case(name="no-rows.png", content=png(5, 5, 8, 0, b""), reasons=("truncated", "damaged"))
    yield Case(name="bad-level.pgm", content=b"P2 1 1 9\n12\n", reasons=("damaged",))
    yield Case(name="no-number.ppm", content=b"P6 a b 255\n", reasons=("damaged",))


def strange() -> Iterator[Case]:
    """No pictures, or of kinds that are not read, under the names of pictures; and empty files."""
    foreign = {
        "text": b"hello, this is text\n" * 9,
        "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "json": b'{"uuid": "47eaa099", "x": 1, "y": 2}',
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "zeros": b"\0" * 400,
        "pdf": b"%PDF-1.7\n" + b"x" * 99,
        "zip": b"PK\3\4" + b"\0" * 99,
        "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 99,
        "avif": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1" + b"\0" * 99,
        "psd": b"8BPS\0\1" + b"\0" * 99,
        "jxl": b"\xff\x0a" + b"\0" * 99,
        "gif": saved(Image.new("L", (4, 4)), format="GIF"),
        "ico": saved(Image.new("RGB", (16, 16)), format="ICO"),
        "tga": saved(Image.new("RGB", (16, 16)), format="TGA"),
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
    }
    for kind, content in foreign.items():
        yield Case(name=f"{kind}.jpg", content=content, reasons=("not_a_picture",))
        yield Case(name=f"{kind}.png", content=content, reasons=("not_a_picture",))
    for suffix in ("jpg", "png", "webp", "tif", "bmp", "ppm"):
        yield Case(name=f"empty.{suffix}", content=b"", reasons=("empty",))
        yield Case(name=f"newline.{suffix}", content=b"\n", reasons=("not_a_picture",))


def unclear() -> Iterator[Case]:
    """Pixels without an agreed 8-bit RGB, and several pictures in one file."""
    lab = ImageCms.profileToProfile(
        Image.new("RGB", (2, 2), "red"), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    deep = {
        "grey16.png": png(1, 1, 16, 0, b"\0\x12\x34"),
        "grey16.pgm": b"P5 1 1 65535\n\x12\x34",
        "grey16.tif": saved(Image.fromarray(np.full((2, 2), 3000, np.uint16)), format="TIFF"),
        "int32.tif": saved(Image.fromarray(np.full((2, 2), 70_000, np.int32)), format="TIFF"),
        "float.tif": saved(Image.fromarray(np.full((2, 2), 0.5, np.float32)), format="TIFF"),
        "lab.tif": saved(lab, format="TIFF"),
        "float.pfm": b"Pf\n1 1\n-1.0\n" + struct.pack("<f", 0.5),
    }
    for name, content in deep.items():
        yield Case(name=name, content=content, reasons=("unsupported_pixels",))
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "green", "blue")]
    for kind in ("png", "webp", "raw.tif", "lzw.tif"):
        for count in (2, 3):
            content = saved(frames[0], save_all=True, append_images=frames[1:count], **KINDS[kind])
            yield Case(name=f"animated-{count}.{kind}", content=content, reasons=("animated",))


def bombs() -> Iterator[Case]:
    """Small files that say they are huge: above our limit, above Pillow's, above every integer."""
    jpeg = saved(Image.new("L", (8, 8)), format="JPEG")
    frame = jpeg.index(b"\xff\xc0") + 5  # SOF0: length, precision, then rows and columns (ITU T.81, B.2.2)
    bmp = saved(Image.new("L", (8, 8)), format="BMP")
    tiff = saved(Image.new("L", (8, 8)), format="TIFF")
    webp = b"VP8X" + struct.pack("<I", 10) + b"\0" * 4
    for side in (9_460, 10_000, 16_000, 40_000, 65_000):
        short = {"reasons": ("too_large",)}
        yield Case(name=f"bomb-{side}.png", content=png(side, side, 8, 0, b"\0"), **short)
        yield Case(name=f"bomb-{side}.ppm", content=f"P6 {side} {side} 255\n".encode(), **short)
        yield Case(
            name=f"bomb-{side}.jpg", content=jpeg[:frame] + struct.pack(">HH", side, side) + jpeg[frame + 4 :], **short
        )
        yield Case(name=f"bomb-{side}.bmp", content=bmp[:18] + struct.pack("<ii", side, side) + bmp[26:], **short)
        yield Case(name=f"bomb-{side}.tif", content=resized_tiff(tiff, side), **short)
    side = 16_384  # the most that WebP holds
    chunks = webp + (side - 1).to_bytes(3, "little") * 2 + b"VP8L" + struct.pack("<I", 5) + b"\x2f\xff\xff\xff\x0f\0"
    riff = b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks
    yield Case(name="bomb.webp", content=riff, reasons=("too_large", "damaged"))
    yield Case(name="bomb-long.png", content=png(2**31 - 1, 1, 8, 0, b"\0"), reasons=("too_large",))
    yield Case(name="bomb-high.png", content=png(1, 2**31 - 1, 8, 0, b"\0"), reasons=("too_large",))
    yield Case(name="bomb-most.png", content=png(2**31 - 1, 2**31 - 1, 8, 0, b"\0"), reasons=("too_large",))
    yield Case(name="bomb-text.png", content=inflating_text(), reasons=("damaged", "truncated", "not_a_picture"))


MAKERS = (plain, turned, tiny, modes, cut, damaged, strange, unclear, bombs)


# -- writing ---------------------------------------------------------------------------------------------------------


def saved(picture: Image.Image, **options: object) -> bytes:
    """A picture as Pillow writes it."""
    content = io.BytesIO()
    picture.save(content, **options)
    return content.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def flat(h: int, w: int, level: int) -> np.ndarray:
    return np.full((h, w, 3), level, np.uint8)


def flipped(content: bytes, at: int) -> bytes:
    """The bytes with all bits of one turned over."""
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, before: bytes = b"") -> bytes:
    """A PNG of these rows (each begins with its filter byte), with more chunks before the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def inflating_text() -> bytes:
    """A PNG whose compressed text unpacks to 80 MB."""
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"\0" * 80_000_000, 9))
    return png(1, 1, 8, 0, b"\0\7", text)


def resized_tiff(content: bytes, side: int) -> bytes:
    """A little-endian TIFF whose directory says another width (256) and height (257)."""
    start = struct.unpack("<I", content[4:8])[0]
    out = bytearray(content)
    for n in range(struct.unpack("<H", content[start : start + 2])[0]):
        entry = start + 2 + 12 * n
        if struct.unpack("<H", content[entry : entry + 2])[0] in (256, 257):
            out[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, side)
    return bytes(out)


# Side of the upright picture where row 0 and column 0 of the stored raster lie (EXIF 2.32, tag 0x0112).
_ROW0_COLUMN0 = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def as_stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """The raster that an orientation turns into this upright picture."""
    row0, column0 = _ROW0_COLUMN0[orientation]
    if row0 in ("left", "right"):  # rows of the raster are columns of the picture
        stored = upright.swapaxes(0, 1)
    else:
        stored = upright
    if row0 in ("bottom", "right"):
        stored = stored[::-1]
    if column0 in ("bottom", "right"):
        stored = stored[:, ::-1]
    return np.ascontiguousarray(stored)
