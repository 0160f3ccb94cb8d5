"""A small volume that no flip or turn leaves as it is, and files of it in every format that is read."""

import io
import json
import plistlib
import tarfile
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SPACING_ZYX = (3.0, 2.0, 1.0)
SIZE_ZYX = (5, 6, 7)


def example() -> np.ndarray:
    """HU, axes growing to Superior, Anterior and Right: a ramp, so that every voxel is told from all others."""
    ramp = np.arange(np.prod(SIZE_ZYX), dtype=np.int16).reshape(SIZE_ZYX) * 6 - 600
    ramp[0, 0, 0] = -1000
    return ramp


def affine_ras(spacing_zyx=SPACING_ZYX) -> np.ndarray:
    """The NIfTI affine, centres at whole numbers, of an array (x, y, z) in RAS."""
    affine = np.diag([*spacing_zyx[::-1], 1.0])
    affine[:3, 3] = (10.0, 20.0, 30.0)
    return affine


def write_nifti(path: Path, values: np.ndarray | None = None, *, turned: str = "RAS", slope=None, inter=None) -> Path:
    """NIfTI of values (z, y, x), stored with its axes in the order and direction `turned`."""
    values = example() if values is None else values
    image = nibabel.Nifti1Image(np.ascontiguousarray(values.transpose(2, 1, 0)), affine_ras())
    if slope is not None:
        image.header.set_slope_inter(slope, inter)
    start = nibabel.orientations.io_orientation(image.affine)
    end = nibabel.orientations.axcodes2ornt(tuple(turned))
    image = image.as_reoriented(nibabel.orientations.ornt_transform(start, end))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path


def write_inv3(path: Path, values: np.ndarray | None = None, **changed: object) -> Path:
    """An InVesalius project of values (z, y, x): columns grow to the left there."""
    stored = (example() if values is None else values)[:, :, ::-1]
    told = {
        "modality": "CT",
        "spacing": list(SPACING_ZYX[::-1]),
        "matrix": {"dtype": str(stored.dtype), "filename": "matrix.dat", "shape": list(stored.shape)},
        **changed,
    }
    with tarfile.open(path, "w:gz") as project:
        for name, content in (("main.plist", plistlib.dumps(told)), ("matrix.dat", stored.tobytes())):
            member = tarfile.TarInfo(f"tmp/{name}")
            member.size = len(content)
            project.addfile(member, io.BytesIO(content))
    return path


def write_sidecar(path: Path, *, axes: str | None = None) -> None:
    """The JSON file of an array file."""
    told = {"spacing": list(SPACING_ZYX)} | ({"axes": axes} if axes else {})
    path.with_suffix(".json").write_text(json.dumps(told))


def write_series(
    folder: Path,
    values: np.ndarray | None = None,
    *,
    series: str = "1.2.3",
    spacing_zyx=SPACING_ZYX,
    slope: float = 1.0,
    intercept: float = -1024.0,
    names: str = "{:03d}.dcm",
    shuffle: int = 0,
    **tags: object,
) -> list[Path]:
    """One CT series of values (z, y, x) as scanners write it: rows grow to Posterior, columns to Left; files are named
    in an order of their own. Returns the files from Inferior to Superior."""
    folder.mkdir(parents=True, exist_ok=True)
    values = example() if values is None else values
    order = np.random.default_rng(shuffle).permutation(len(values))
    paths = []
    for z, section in enumerate(values):
        path = folder / names.format(order[z])
        write_slice(
            path,
            section[::-1, ::-1],
            series=series,
            position=(-10.0, -20.0, 30.0 + z * spacing_zyx[0]),
            spacing_hw=spacing_zyx[1:],
            number=z,
            slope=slope,
            intercept=intercept,
            **tags,
        )
        paths.append(path)
    return paths


def write_slice(
    path: Path,
    hu: np.ndarray,
    *,
    series: str,
    position: tuple[float, float, float],
    spacing_hw=(2.0, 1.0),
    number: int = 0,
    slope: float = 1.0,
    intercept: float = -1024.0,
    orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    **tags: object,
) -> None:
    """One CT picture."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series, str(number), str(position)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    picture = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    picture.SOPClassUID, picture.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    picture.SeriesInstanceUID, picture.StudyInstanceUID = series, "1.2"
    picture.Modality, picture.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    picture.PatientName, picture.InstanceNumber = "Somebody^Real", str(number)
    picture.Rows, picture.Columns = hu.shape
    picture.PixelSpacing = [str(step) for step in spacing_hw]
    picture.ImagePositionPatient = [f"{at:.6f}" for at in position]
    picture.ImageOrientationPatient = [str(c) for c in orientation]
    picture.RescaleSlope, picture.RescaleIntercept = str(slope), str(intercept)
    picture.SamplesPerPixel, picture.PhotometricInterpretation = 1, "MONOCHROME2"
    picture.BitsAllocated, picture.BitsStored, picture.HighBit, picture.PixelRepresentation = 16, 16, 15, 1
    picture.PixelData = np.rint((hu.astype(np.float64) - intercept) / slope).astype(np.int16).tobytes()
    for name, value in tags.items():
        if value is None:
            delattr(picture, name)
        else:
            setattr(picture, name, value)
    pydicom.dcmwrite(path, picture, enforce_file_format=True)
