"""Pictures: every kind of file to the same upright RGB, and refusals that say why."""

import hashlib
import io
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from patchatlas.errors import FormatError, InputError, UsageError
from patchatlas.geometry.frame import Frame
from patchatlas.io import images
from patchatlas.io.images import read_header, read_image, read_picture, write_image
from patchatlas.io.reasons import PictureError

# Where row 0 and column 0 of the stored raster appear when the picture is upright (EXIF 2.32, tag 0x0112).
ROW0_COLUMN0 = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def upright_place(row: int, column: int, sides: tuple[str, str], upright_hw: tuple[int, int]) -> tuple[int, int]:
    """Row and column of the upright picture where a stored pixel is seen."""
    rows, columns = upright_hw
    place = {}
    for n, side in ((row, sides[0]), (column, sides[1])):
        if side in ("top", "bottom"):
            place["row"] = n if side == "top" else rows - 1 - n
        else:
            place["column"] = n if side == "left" else columns - 1 - n
    return place["row"], place["column"]


def as_stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    sides = ROW0_COLUMN0[orientation]
    rows, columns = upright.shape[:2]
    turned = sides[0] in ("left", "right")
    stored = np.empty((columns, rows, 3) if turned else (rows, columns, 3), np.uint8)
    for r in range(stored.shape[0]):
        for c in range(stored.shape[1]):
            stored[r, c] = upright[upright_place(r, c, sides, (rows, columns))]
    return stored


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.fixture
def upright() -> np.ndarray:
    """32 x 48 pixels, no two 16-pixel blocks alike, so that JPEG keeps them apart."""
    blocks = np.array([[[250, 10, 10], [10, 250, 10], [10, 10, 250]], [[250, 250, 10], [120, 120, 120], [10, 10, 10]]])
    return blocks.repeat(16, axis=0).repeat(16, axis=1).astype(np.uint8)


SAVE = {
    "a.png": {},
    "a.webp": {"lossless": True},
    "raw.tif": {},
    "packed.tif": {"compression": "tiff_lzw"},
    "a.jpg": {"quality": 100, "subsampling": 0},
}


@pytest.mark.parametrize("name", SAVE)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_reads_as_one_upright_picture(name, orientation, upright, tmp_path):
    stored = as_stored(upright, orientation)
    Image.fromarray(stored).save(tmp_path / name, exif=exif(orientation), **SAVE[name])
    picture = read_picture(tmp_path / name)

    assert picture.size_hw == (32, 48)
    assert np.abs(picture.pixels.astype(int) - upright).max() <= (6 if name.endswith("jpg") else 0)
    assert picture.frame == Frame.from_exif(stored.shape[:2], orientation)
    for row, column in ((0, 0), (3, stored.shape[1] - 1), (stored.shape[0] - 1, 5)):
        r, c = upright_place(row, column, ROW0_COLUMN0[orientation], (32, 48))
        seen = torch.tensor([[c + 0.5, r + 0.5]], dtype=torch.float64)
        lies = torch.tensor([[column + 0.5, row + 0.5]], dtype=torch.float64)
        assert torch.equal(picture.frame.to_source(seen), lies)
        assert torch.equal(picture.frame.from_source(lies), seen)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpegs_stand_as_opencv_and_so_mel_sees_them(orientation, upright, tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(as_stored(upright, orientation)).save(path, exif=exif(orientation), quality=95)
    theirs = cv2.imread(str(path))[:, :, ::-1]
    assert np.abs(read_image(path).astype(int) - theirs).max() <= 2


@pytest.mark.parametrize("orientation", [0, 9])
def test_an_orientation_that_does_not_exist_is_upright_with_a_warning(orientation, upright, tmp_path, caplog):
    path = tmp_path / "a.png"
    Image.fromarray(upright).save(path, exif=exif(orientation))
    np.testing.assert_array_equal(read_image(path), upright)
    assert f"EXIF orientation {orientation} does not exist" in caplog.text


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "raw.tif", "packed.tif"])
def test_an_orientation_only_in_xmp_is_not_obeyed(name, upright, tmp_path):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    content = io.BytesIO()
    path = tmp_path / name
    picture = Image.fromarray(upright)
    if name.endswith("png"):
        picture.save(content, "PNG")
        text = b"XML:com.adobe.xmp\0\0\0\0\0" + xmp
        path.write_bytes(content.getvalue()[:33] + chunk(b"iTXt", text) + content.getvalue()[33:])
    elif name.endswith("tif"):
        picture.save(path, tiffinfo={700: xmp}, **SAVE[name])
    else:
        picture.save(path, xmp=xmp)
    with Image.open(path) as opened:
        assert opened.getexif().get(0x0112) == 6  # Pillow itself would turn it
    assert read_picture(path).frame == Frame.whole((32, 48))


def test_a_plain_picture(upright, tmp_path):
    path = tmp_path / "a.png"
    write_image(path, upright)
    picture = read_picture(path)
    np.testing.assert_array_equal(picture.pixels, upright)
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.flags.writeable
    assert picture.pixels.flags.c_contiguous
    assert picture.frame == Frame.whole((32, 48))
    assert picture.path == path
    assert picture.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    np.testing.assert_array_equal(read_image(str(path)), upright)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG by hand: `rows` with their filter bytes (PNG specification, 3rd edition, section 11)."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def pixel_of(path: Path) -> list[int]:
    return read_image(path)[0, 0].tolist()


def test_other_modes_become_rgb(tmp_path):
    cases = {
        "grey.png": (Image.new("L", (2, 2), 77), [77, 77, 77]),
        "bit.png": (Image.new("1", (2, 2), 1), [255, 255, 255]),
        "palette.png": (Image.new("RGB", (2, 2), (9, 8, 7)).quantize(4), [9, 8, 7]),
        "cmyk.jpg": (Image.new("CMYK", (16, 16), (0, 255, 255, 0)), [255, 0, 0]),
        "cmyk.tif": (Image.new("CMYK", (2, 2), (0, 255, 255, 0)), [255, 0, 0]),
        "grey.bmp": (Image.new("L", (2, 2), 5), [5, 5, 5]),
        "rgb.ppm": (Image.new("RGB", (2, 2), (1, 2, 3)), [1, 2, 3]),
    }
    for name, (made, expected) in cases.items():
        made.save(tmp_path / name)
        np.testing.assert_allclose(
            pixel_of(tmp_path / name), expected, atol=2 if name.endswith("jpg") else 0, err_msg=name
        )


def test_transparency_is_laid_on_white(tmp_path):
    """A fifth of the colour and four fifths of white: 0.2 * 100 + 0.8 * 255 = 224."""
    for name, made, expected in (
        ("rgba.png", Image.new("RGBA", (1, 1), (100, 0, 0, 51)), [224, 204, 204]),
        ("rgba.webp", Image.new("RGBA", (1, 1), (100, 0, 0, 0)), [255, 255, 255]),
        ("la.png", Image.new("LA", (1, 1), (100, 51)), [224, 224, 224]),
        ("opaque.png", Image.new("RGBA", (1, 1), (100, 7, 3, 255)), [100, 7, 3]),
    ):
        made.save(tmp_path / name, lossless=True)
        assert pixel_of(tmp_path / name) == expected, name
    Image.new("P", (1, 1), 0).save(tmp_path / "clear.png", transparency=0)
    assert pixel_of(tmp_path / "clear.png") == [255, 255, 255]
    Image.new("RGB", (1, 1), (4, 5, 6)).save(tmp_path / "key.png", transparency=(4, 5, 6))
    assert pixel_of(tmp_path / "key.png") == [255, 255, 255]


def test_16_bit_colour_keeps_its_upper_byte(tmp_path):
    (tmp_path / "a.png").write_bytes(png(1, 1, 16, 2, b"\0" + struct.pack(">3H", 0x12FF, 0xFF00, 0x0080)))
    assert pixel_of(tmp_path / "a.png") == [0x12, 0xFF, 0x00]


def test_pixels_without_an_agreed_rgb_are_refused(tmp_path):
    (tmp_path / "a16.png").write_bytes(png(1, 1, 16, 0, b"\0\x12\x34"))
    Image.fromarray(np.full((2, 2), 3000, np.uint16)).save(tmp_path / "b16.tif")
    Image.fromarray(np.full((2, 2), 0.5, np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(np.full((2, 2), 70_000, np.int32)).save(tmp_path / "int.tif")
    lab = ImageCms.profileToProfile(
        Image.new("RGB", (2, 2), "red"), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    lab.save(tmp_path / "lab.tif")
    (tmp_path / "deep.pgm").write_bytes(b"P5 1 1 65535\n\x12\x34")
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 6
    for path in paths:
        with pytest.raises(FormatError, match=rf"{path.name} has pixels of the kind .* 8-bit"):
            read_image(path)


def test_animations_and_pages_are_refused(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "green")]
    for name in ("a.png", "a.webp", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.raises(FormatError, match="holds 2 pictures"):
            read_image(tmp_path / name)


def test_a_multi_picture_jpeg_gives_its_first(tmp_path):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "green")]
    frames[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(pixel_of(tmp_path / "a.jpg"), [255, 0, 0], atol=3)


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(InputError, match=r"no picture file .*gone\.jpg"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(InputError, match="is a folder"):
        read_image(tmp_path)


def test_a_file_that_may_not_be_opened(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(b"x")

    def refuse(*_args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"cannot open .*a\.jpg: Permission denied"):
        read_image(tmp_path / "a.jpg")


def test_files_that_are_no_pictures(tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(FormatError, match=r"empty\.jpg is empty"):
        read_image(tmp_path / "empty.jpg")
    (tmp_path / "text.jpg").write_bytes(b"hello, this is text")
    with pytest.raises(FormatError, match="no picture that can be read: not JPEG, PNG"):
        read_image(tmp_path / "text.jpg")
    Image.new("L", (2, 2)).save(tmp_path / "a.gif")  # a real picture, but not on the list
    with pytest.raises(FormatError, match="no picture that can be read"):
        read_image(tmp_path / "a.gif")


def test_the_content_decides_not_the_name(upright, tmp_path):
    write_image(tmp_path / "a.png", upright)
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), upright)


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", [*SAVE, "a.bmp", "a.ppm"])
def test_a_file_cut_short_is_refused(name, noise, tmp_path):
    path = tmp_path / name
    Image.fromarray(noise).save(path, **SAVE.get(name, {}))
    content = path.read_bytes()
    for kept in range(1, len(content) * 9 // 10, 7):
        path.write_bytes(content[:kept])
        with pytest.raises(FormatError, match=rf"{name} is"):
            read_image(path)


@pytest.mark.parametrize("name", [*SAVE, "a.bmp", "a.ppm"])
def test_damaged_bytes_give_a_picture_or_our_error(name, noise, tmp_path):
    path = tmp_path / name
    Image.fromarray(noise[:8, :8]).save(path, exif=exif(6), **SAVE.get(name, {}))
    content = np.frombuffer(path.read_bytes(), np.uint8)
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(150):
        damaged = content.copy()
        damaged[rng.integers(0, len(content), 3)] = rng.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        try:
            read_image(path, max_pixels=10_000)
        except FormatError:
            refused += 1
    assert refused > 0


def test_a_picture_above_the_limit_is_refused_before_it_is_decoded(tmp_path, upright):
    write_image(tmp_path / "a.png", upright)
    assert read_image(tmp_path / "a.png", max_pixels=32 * 48).shape == (32, 48, 3)
    with pytest.raises(FormatError, match=r"48 x 32 = 1536 pixels, allowed are 1535; .* max_pixels"):
        read_image(tmp_path / "a.png", max_pixels=1535)


def test_a_header_says_what_reading_finds(upright, tmp_path):
    for name, options in SAVE.items():
        for orientation in (1, 6):
            path = tmp_path / name
            Image.fromarray(as_stored(upright, orientation)).save(path, exif=exif(orientation), **options)
            header, picture = read_header(path), read_picture(path)
            assert header.frame == picture.frame
            assert header.size_hw == picture.size_hw == (32, 48)
            assert header.orientation == picture.orientation == orientation
            assert header.sha256 == picture.sha256


def test_a_header_is_read_without_the_pixels(tmp_path, monkeypatch, upright):
    write_image(tmp_path / "a.png", upright)

    def never(*_args):
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    assert read_header(tmp_path / "a.png").size_hw == (32, 48)
    with pytest.raises(AssertionError, match="decoded"):
        read_picture(tmp_path / "a.png")
    with pytest.raises(PictureError, match="too large") as refused:
        read_header(tmp_path / "a.png", max_pixels=1535)
    assert refused.value.reason == "too_large"


@pytest.mark.parametrize("kind", ["eXIf", "XMP"])
def test_metadata_after_the_pixels_of_a_png(kind, upright, tmp_path):
    content = io.BytesIO()
    Image.fromarray(as_stored(upright, 6)).save(content, "PNG")
    xmp = b'XML:com.adobe.xmp\0\0\0\0\0<rdf:Description tiff:Orientation="6"/>'
    late = chunk(b"eXIf", exif(6).tobytes().removeprefix(b"Exif\0\0")) if kind == "eXIf" else chunk(b"iTXt", xmp)
    end = content.getvalue().index(b"IEND") - 4
    (tmp_path / "a.png").write_bytes(content.getvalue()[:end] + late + content.getvalue()[end:])
    header, picture = read_header(tmp_path / "a.png"), read_picture(tmp_path / "a.png")
    assert header.orientation == picture.orientation == (6 if kind == "eXIf" else 1)
    assert picture.pixels.shape == ((32, 48, 3) if kind == "eXIf" else (48, 32, 3))


@pytest.mark.parametrize(
    ("at_least_hw", "size_hw", "divisor"),
    [
        ((301, 403), (301, 403), 1),
        ((151, 201), (301, 403), 1),
        ((150, 201), (151, 202), 2),
        ((75, 100), (76, 101), 4),
        ((37, 50), (38, 51), 8),
        ((1, 1), (38, 51), 8),
        ((900, 900), (301, 403), 1),
    ],
)
@pytest.mark.parametrize("orientation", [1, 3, 5, 6])
def test_a_jpeg_may_be_read_smaller_and_its_frame_says_so(at_least_hw, size_hw, divisor, orientation, tmp_path):
    smooth = np.add.outer(np.arange(301) * 0.4, np.arange(403) * 0.3).astype(np.uint8)
    whole = np.stack([smooth, smooth, smooth], axis=2)
    Image.fromarray(as_stored(whole, orientation)).save(tmp_path / "a.jpg", exif=exif(orientation), quality=100)
    picture = read_picture(tmp_path / "a.jpg", at_least_hw=at_least_hw)
    assert picture.size_hw == size_hw
    # Each pixel shows divisor x divisor pixels of the whole, exactly; the last ones reach beyond it.
    upright = Frame.from_exif(picture.frame.source_size, orientation)
    assert upright.size == (301, 403)
    corner = torch.tensor([[0.0, 0.0], [1.0, 2.0]], dtype=torch.float64)
    on_whole = upright.from_source(picture.frame.to_source(corner))
    surplus = [n * divisor - full for n, full in zip(size_hw, (301, 403), strict=True)]
    # The surplus is at the end of the stored raster, which some orientations turn to the beginning.
    shift = {1: (0, 0), 3: surplus, 5: (0, 0), 6: (0, surplus[1])}[orientation]
    assert torch.equal(on_whole, corner * divisor - torch.tensor(shift[::-1], dtype=torch.float64))
    block = picture.pixels[10, 20].astype(float)
    r, c = 10 * divisor - shift[0], 20 * divisor - shift[1]
    np.testing.assert_allclose(block, whole[r : r + divisor, c : c + divisor].mean((0, 1)), atol=1.5)


def test_only_jpegs_are_read_smaller(upright, tmp_path):
    write_image(tmp_path / "a.png", upright)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", at_least_hw=(4, 4)).pixels, upright)


def test_nothing_is_printed_whatever_pillow_warns_of(tmp_path):
    """In a process of its own, where warnings are printed and nothing is logged, as for a user."""
    (tmp_path / "warned.png").write_bytes(png(10_000, 10_000, 8, 0, b"\0"))
    tiff = io.BytesIO()
    Image.new("RGB", (40, 40)).save(tiff, "TIFF", compression="tiff_lzw")
    (tmp_path / "damaged.tif").write_bytes(tiff.getvalue()[:9] + b"\xff" * 40 + tiff.getvalue()[49:])
    jpeg = io.BytesIO()
    Image.new("RGB", (8, 8)).save(jpeg, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\1" * 30)
    (tmp_path / "exif.jpg").write_bytes(jpeg.getvalue())
    code = """
import sys, threading, warnings
from pathlib import Path
from PIL import Image
from patchatlas.io.images import read_picture
from patchatlas.io.rasters import read_raster
from patchatlas.io.reasons import PictureError
from patchatlas.errors import FormatError
filters = list(warnings.filters)
def read(path):
    try:
        read_picture(path)
    except PictureError as error:
        sys.stdout.write(error.reason + "\\n")
paths = sorted(Path(sys.argv[1]).iterdir()) * 5
threads = [threading.Thread(target=read, args=(path,)) for path in paths]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert warnings.filters == filters
try:
    read_raster(sys.argv[1] + "/warned.png")
except FormatError as error:
    assert "10000 x 10000" in str(error)
try:
    Image.open(sys.argv[1] + "/warned.png")
except OSError:
    pass
"""
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert sorted(ran.stdout.split()) == ["damaged"] * 5 + ["too_large"] * 5
    # Other readers of the process are warned as before.
    assert ran.stderr.count("Warning") == ran.stderr.count("DecompressionBombWarning") == 1


@pytest.mark.parametrize("size", [(10_000, 10_000), (60_000, 60_000)], ids=["warned of", "refused by Pillow"])
def test_a_bomb_is_refused(size, tmp_path):
    (tmp_path / "bomb.png").write_bytes(png(*size, 8, 0, b"\0"))
    with pytest.raises(FormatError, match=rf"too large: .*{size[0] * size[1]} pixels.* allowed are 89478485"):
        read_image(tmp_path / "bomb.png")


def test_max_pixels_lifts_pillows_limit_and_puts_it_back(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    monkeypatch.setattr(images, "MAX_PIXELS", 50)
    for name in ("a.png", "raw.tif", "a.webp"):
        Image.new("RGB", (20, 20), "white").save(tmp_path / name)
        with pytest.raises(FormatError, match="too large"):
            read_image(tmp_path / name, max_pixels=50)
        assert read_image(tmp_path / name, max_pixels=400).shape == (20, 20, 3)
        assert Image.MAX_IMAGE_PIXELS == 50


def test_large_pictures_read_in_threads_leave_the_limit_as_it_was(tmp_path):
    Image.new("RGB", (20, 20), "white").save(tmp_path / "a.png")
    before = Image.MAX_IMAGE_PIXELS
    readers = [
        threading.Thread(target=read_image, args=(tmp_path / "a.png",), kwargs={"max_pixels": 10**9 + n})
        for n in range(8)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG"])
def test_jpegs_are_written_with_full_colour(name, upright, tmp_path):
    write_image(tmp_path / name, upright)
    with Image.open(tmp_path / name) as written:
        assert written.format == "JPEG"
        assert [layer[1:3] for layer in written.layer] == [(1, 1)] * 3
    assert np.abs(read_image(tmp_path / name).astype(int) - upright).max() <= 6


def test_the_suffix_decides_and_others_are_refused(upright, tmp_path):
    write_image(tmp_path / "a.PNG", upright)
    assert (tmp_path / "a.PNG").read_bytes().startswith(b"\x89PNG")
    for name in ("a.gif", "a", "a.tif"):
        with pytest.raises(UsageError, match=r"use \.jpg, \.jpeg or \.png"):
            write_image(tmp_path / name, upright)
    assert [p.name for p in tmp_path.iterdir()] == ["a.PNG"]


def test_writing_needs_the_folder(upright, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        write_image(tmp_path / "no" / "a.png", upright)


def test_a_picture_too_long_for_jpeg_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"65536 x 1 pixels.* use \.png"):
        write_image(tmp_path / "a.jpg", np.zeros((1, 65_536, 3), np.uint8))
    assert not list(tmp_path.iterdir())
