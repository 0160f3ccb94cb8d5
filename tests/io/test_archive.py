"""NumPy files that are damaged, cut, locked or lie about their size are refused with a sentence."""

import bz2
import io
import zipfile

import numpy as np
import pytest

from patchatlas.errors import FormatError
from patchatlas.io.scans.archive import archive, load_npy
from patchatlas.io.scans.read import read_scan

X = np.array([10.0, 30.5, 20.25])


def made(path):
    np.savez(path, xcoords=X, ycoords=X, diffraction=np.ones((3, 8, 8)), probeGuess=np.ones((8, 8), np.complex64))
    return path


def test_cut_npz(tmp_path):
    path = made(tmp_path / "a.npz")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FormatError, match="cut short"):
        read_scan(path)


def test_damaged_array(tmp_path):
    path = made(tmp_path / "a.npz")
    content = bytearray(path.read_bytes())
    content[150:200] = bytes(50)  # inside xcoords
    path.write_bytes(content)
    with pytest.raises(FormatError, match="cannot be read as NumPy data"):
        read_scan(path)


def test_packed_npz_cut(tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, scan=np.zeros((1, 3, 2)), data=np.zeros((1, 3, 4, 4)))
    packed = bz2.compress(buffer.getvalue())
    (tmp_path / "a.npz.bz2").write_bytes(packed)
    assert len(read_scan(tmp_path / "a.npz.bz2")) == 3
    (tmp_path / "a.npz.bz2").write_bytes(packed[:-9])
    with pytest.raises(FormatError, match="cut short"):
        read_scan(tmp_path / "a.npz.bz2")


def header(shape, kind="<f8"):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": kind, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("shape", [(10**12,), (10**12, 2), (3, 2)])
def test_a_header_that_claims_more_than_the_file_holds(tmp_path, shape, mapped):
    (tmp_path / "a.npy").write_bytes(header(shape) + bytes(40))
    with pytest.raises(FormatError, match=r"cut short|claims"):
        load_npy(tmp_path / "a.npy", mapped=mapped)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_header_in_an_npz_that_claims_more_than_the_member_holds(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as members:
        members.writestr("x.npy", header((10**12,)) + bytes(40))
    with archive(tmp_path / "a.npz") as held, pytest.raises(FormatError, match="claims 8000000000000 bytes"):
        held.load("x")


def test_an_encrypted_npz(tmp_path):
    content = bytearray(made(tmp_path / "a.npz").read_bytes())
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # bit 0 of the flags: APPNOTE.TXT 4.4.4
        begin = content.find(magic)
        while begin >= 0:
            content[begin + at] |= 1
            begin = content.find(magic, begin + 4)
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(FormatError, match="encrypted"):
        read_scan(tmp_path / "a.npz")


def test_an_unknown_compression(tmp_path):
    content = bytearray(made(tmp_path / "a.npz").read_bytes())
    for magic, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):  # method: APPNOTE.TXT 4.4.5
        begin = content.find(magic)
        while begin >= 0:
            content[begin + at] = 93  # Zstandard
            begin = content.find(magic, begin + 4)
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(FormatError, match="compression"):
        read_scan(tmp_path / "a.npz")


def test_a_cut_lzma_member(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_LZMA) as members:
        members.writestr("x.npy", header((500,)) + np.random.default_rng(0).bytes(4000))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[200:900] = bytes(700)
    (tmp_path / "a.npz").write_bytes(content)
    with archive(tmp_path / "a.npz") as held, pytest.raises(FormatError, match="cannot be read as NumPy data"):
        held.load("x")
