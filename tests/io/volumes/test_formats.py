"""NIfTI, NPY, NPZ, b2nd and InVesalius give the same volume, and each of their faults its reason."""

import gzip
import io
import os
import tarfile
from pathlib import Path

import blosc2
import nibabel
import numpy as np
import pytest

from patchatlas.errors import InputError
from patchatlas.io.volumes.b2nd import write_b2nd
from patchatlas.io.volumes.reasons import VolumeError
from patchatlas.io.volumes.sources import read_volume
from patchatlas.io.volumes.volume import Declared
from tests.io.volumes.volume_files import SPACING_ZYX, affine_ras, example, write_inv3, write_nifti, write_sidecar

SPACED = Declared(spacing_zyx=SPACING_ZYX)


def reason_of(path, declared: Declared | None = None) -> str:
    with pytest.raises(VolumeError) as raised:
        read_volume(path, declared)
    assert str(path) in str(raised.value)
    return raised.value.reason


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.NII.GZ"])
@pytest.mark.parametrize("turned", ["RAS", "LPS", "SAR", "PIR"])
def test_nifti(tmp_path, name, turned):
    volume = read_volume(write_nifti(tmp_path / name, turned=turned))
    np.testing.assert_array_equal(volume.values, example())
    assert volume.values.flags.c_contiguous
    assert volume.spacing_zyx == SPACING_ZYX
    np.testing.assert_allclose(volume.affine @ (0.5, 0.5, 0.5, 1), (10, 20, 30, 1), atol=1e-5)


def test_nifti_with_slope_and_intercept(tmp_path):
    path = write_nifti(tmp_path / "a.nii", example() + 1024, slope=1.0, inter=-1024.0)
    np.testing.assert_array_equal(read_volume(path).values, example())
    path = write_nifti(tmp_path / "b.nii", (example() + 1000) // 2, slope=2.0, inter=-1000.0)
    np.testing.assert_array_equal(read_volume(path).values, example())


def test_nifti_in_metres(tmp_path):
    affine = affine_ras() / 1000
    affine[3, 3] = 1
    image = nibabel.Nifti1Image(np.ascontiguousarray(example().transpose(2, 1, 0)), affine)
    image.header.set_xyzt_units("meter")
    nibabel.save(image, tmp_path / "a.nii")
    assert read_volume(tmp_path / "a.nii").spacing_zyx == pytest.approx(SPACING_ZYX)


def test_nifti_faults(tmp_path):
    noise = np.random.default_rng(0).integers(-1000, 1000, (20, 20, 20)).astype(np.int16)
    whole = write_nifti(tmp_path / "a.nii.gz", noise).read_bytes()
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes(whole[:-60])
    assert reason_of(cut) == "truncated"
    plain = tmp_path / "cut.nii"
    plain.write_bytes(gzip.decompress(whole)[:-20])
    assert reason_of(plain) == "truncated"
    other = tmp_path / "other.nii"
    other.write_bytes(np.random.default_rng(0).bytes(4000))
    assert reason_of(other) == "damaged"
    nothing = tmp_path / "nothing.nii"
    nothing.touch()
    assert reason_of(nothing) == "empty"


def header_with(path, at: int, content: bytes):
    """Write bytes into the header of a NIfTI file, whose fields lie where nifti1.h says."""
    raw = bytearray(path.read_bytes())
    raw[at : at + len(content)] = content
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("at", "content", "reason"),
    [
        (123, bytes([5]), "damaged"),  # xyzt_units
        (108, np.float32(np.nan).tobytes(), "damaged"),  # vox_offset
        (108, np.float32(np.inf).tobytes(), "damaged"),
        (42, np.int16(-30).tobytes(), "damaged"),  # dim[1]
        (42, np.int16(0).tobytes(), "damaged"),
        (42, np.full(3, 32767, np.int16).tobytes(), "truncated"),
        (70, np.int16(9999).tobytes(), "damaged"),  # datatype
    ],
    ids=["unit", "offset nan", "offset inf", "side below 0", "side 0", "32767 cubed", "type"],
)
@pytest.mark.parametrize("packed", [False, True])
def test_nifti_headers_that_make_no_sense(tmp_path, at, content, reason, packed):
    path = header_with(write_nifti(tmp_path / "a.nii"), at, content)
    if packed:
        path = tmp_path / "a.nii.gz"
        path.write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes()))
    assert reason_of(path) == reason


WRITERS = {
    "a.nii": write_nifti,
    "a.nii.gz": write_nifti,
    "a.npy": lambda path: np.save(path, example()),
    "a.npz": lambda path: np.savez(path, a=example()),
    "a.b2nd": lambda path: write_b2nd(path, example()),
    "a.inv3": write_inv3,
}


@pytest.mark.parametrize("name", WRITERS)
def test_whatever_is_damaged_is_told(tmp_path, name):
    """Any byte among the first of a file: it is read, or refused with a reason; nothing else is raised."""
    path = tmp_path / name
    WRITERS[name](path)
    packed = path.suffix in (".gz", ".inv3")
    raw = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    rng = np.random.default_rng(0)
    told = 0
    for _ in range(60):
        content = bytearray(raw)
        content[rng.integers(min(len(raw), 600))] = rng.choice([0, 127, 128, 255, rng.integers(256)])
        path.write_bytes(gzip.compress(content, 1) if packed else content)
        try:
            read_volume(path, SPACED)
        except VolumeError:
            told += 1
    assert told


def test_a_damaged_gzip_is_not_read(tmp_path):
    noise = np.random.default_rng(0).integers(-1000, 1000, (20, 20, 20)).astype(np.int16)
    path = write_nifti(tmp_path / "a.nii.gz", noise)
    whole = path.read_bytes()
    for at in (-8, -4, len(whole) // 2):  # checksum, length, and what they are of: one bit
        content = bytearray(whole)
        content[at] ^= 1
        path.write_bytes(content)
        assert reason_of(path) == "damaged"
    path.write_bytes(whole[:-8])
    assert reason_of(path) == "truncated"
    path.write_bytes(whole)
    np.testing.assert_array_equal(read_volume(path).values, noise)


def test_nifti_of_several_volumes_or_unknown_orientation(tmp_path):
    values = np.stack([example().transpose(2, 1, 0)] * 2, axis=-1)
    nibabel.save(nibabel.Nifti1Image(values, affine_ras()), tmp_path / "two.nii")
    assert reason_of(tmp_path / "two.nii") == "not_a_volume"
    image = nibabel.Nifti1Image(np.ascontiguousarray(values[..., 0]), affine_ras())
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    nibabel.save(image, tmp_path / "lost.nii")
    assert reason_of(tmp_path / "lost.nii") == "no_orientation"
    nibabel.save(nibabel.Nifti1Image(values[:1, ..., 0], affine_ras()), tmp_path / "flat.nii")
    assert reason_of(tmp_path / "flat.nii") == "too_small"


@pytest.mark.parametrize("side", [1e6, 101.0, 0.0009, 1e-9])
def test_voxels_of_no_size_that_is_believed(tmp_path, side):
    path = tmp_path / "a.npy"
    np.save(path, example())
    with pytest.raises(VolumeError, match=r"read are 0\.001 to 100") as raised:
        read_volume(path, Declared(spacing_zyx=(2.0, side, 1.0)))
    assert raised.value.reason == "no_spacing"


@pytest.mark.parametrize("side", [100.0, 0.001])
def test_voxels_that_are_believed(tmp_path, side):
    path = tmp_path / "a.npy"
    np.save(path, example())
    assert read_volume(path, Declared(spacing_zyx=(2.0, side, 1.0))).spacing_zyx == (2.0, side, 1.0)


def test_npy(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, example().astype(np.float32))
    np.testing.assert_array_equal(read_volume(path, SPACED).values, example())
    assert reason_of(path) == "no_spacing"
    np.save(path, example()[:, ::-1, ::-1])
    write_sidecar(path, axes="SPL")
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.values, example())
    assert volume.spacing_zyx == SPACING_ZYX


def test_npz(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, data=example()[None], spacing=np.array(SPACING_ZYX))
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.values, example())
    assert volume.spacing_zyx == SPACING_ZYX
    np.savez(path, data=example(), spacing=np.array(["3 mm", "2 mm", "1 mm"]))
    assert reason_of(path) == "damaged"
    np.savez(path, a=example(), b=example())
    assert reason_of(path, SPACED) == "not_a_volume"


def test_pickles_are_never_opened(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.array([[[print]]], dtype=object), allow_pickle=True)
    assert reason_of(path, SPACED) == "damaged"
    (tmp_path / "b.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    write_b2nd(tmp_path / "b.b2nd", example())
    np.testing.assert_array_equal(read_volume(tmp_path / "b.b2nd", SPACED).values, example())


def test_npy_faults(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, example())
    path.write_bytes(path.read_bytes()[:-10])
    assert reason_of(path, SPACED) == "damaged"
    np.save(path, example())
    path.write_bytes(path.read_bytes().replace(b"7)", b"7 ", 1))  # of the shape in its header
    assert reason_of(path, SPACED) == "damaged"
    np.save(path, example()[0])
    assert reason_of(path, SPACED) == "not_a_volume"
    np.save(path, example())
    path.with_suffix(".json").write_text('{"spacings": [1, 1, 1]}')
    assert reason_of(path, SPACED) == "damaged"


def test_b2nd_with_a_channel(tmp_path):
    path = tmp_path / "a.b2nd"
    blosc2.asarray(example()[None].astype(np.float32), urlpath=str(path), mode="w")
    write_sidecar(path)
    np.testing.assert_array_equal(read_volume(path).values, example())


def test_b2nd_of_nnunet_is_zscored_and_so_refused(tmp_path):
    path = tmp_path / "a.b2nd"
    values = (example()[None].astype(np.float32) - 50) / 300
    blosc2.asarray(values, urlpath=str(path), mode="w")
    assert reason_of(path, SPACED) == "wrong_units"


def test_b2nd_with_a_name_that_is_not_utf8(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xfc.b2nd"))
    write_b2nd(path, example())
    with pytest.raises(VolumeError, match="rename it") as raised:
        read_volume(path, SPACED)
    assert raised.value.reason == "unreadable"


def test_b2nd_faults(tmp_path):
    path = tmp_path / "a.b2nd"
    write_b2nd(path, example())
    path.write_bytes(path.read_bytes()[:60])
    assert reason_of(path, SPACED) == "damaged"


def test_inv3(tmp_path):
    volume = read_volume(write_inv3(tmp_path / "a.inv3"))
    np.testing.assert_array_equal(volume.values, example())
    assert volume.spacing_zyx == SPACING_ZYX


def test_inv3_faults(tmp_path):
    path = write_inv3(tmp_path / "a.inv3")
    path.write_bytes(path.read_bytes()[:200])
    assert reason_of(path) == "truncated"
    assert reason_of(write_inv3(tmp_path / "b.inv3", modality="MRI")) == "not_ct"
    assert reason_of(write_inv3(tmp_path / "c.inv3", spacing=[1.0])) == "no_spacing"
    wrong = {"dtype": "int16", "filename": "matrix.dat", "shape": [5, 6, 8]}
    assert reason_of(write_inv3(tmp_path / "d.inv3", matrix=wrong)) == "truncated"
    for change in ({"shape": [-5, -6, 7]}, {"dtype": "object", "shape": [5, 3, 7]}):
        assert reason_of(write_inv3(tmp_path / "d.inv3", matrix=wrong | change)) == "damaged"
    with tarfile.open(tmp_path / "e.inv3", "w:gz") as project:
        project.addfile(tarfile.TarInfo("other"), io.BytesIO())
    assert reason_of(tmp_path / "e.inv3") == "not_a_volume"


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="there is no"):
        read_volume(tmp_path / "none.nii")
    assert reason_of(tmp_path) == "not_a_volume"
