"""The door for scans: recognises the format by what is in the file, reads it and settles what its positions mean."""

import hashlib
from pathlib import Path

from patchatlas.errors import FormatError, InputError
from patchatlas.io.scans import hdf5
from patchatlas.io.scans.archive import archive
from patchatlas.io.scans.cxi import is_cxi, read_cxi
from patchatlas.io.scans.ptychodus import is_product, read_product_hdf5, read_product_npz
from patchatlas.io.scans.ptychopinn import is_ptychopinn, read_ptychopinn
from patchatlas.io.scans.ptyd import is_ptyd, read_ptyd
from patchatlas.io.scans.scan import Content, Declared, Scan, settle
from patchatlas.io.scans.table import read_array_table, read_mapped_npz, read_text_table
from patchatlas.io.scans.tike import is_tike, read_tike

_NPY_MAGIC = b"\x93NUMPY"
_ZIP_MAGIC = b"PK"


def read_scan(path: str | Path, declared: Declared | None = None, *, frames: bool = False) -> Scan:
    """Read a scan: PtychoPINN NPZ, tike NPZ (also .npz.bz2), ptychodus product, CXI, PtyPy .ptyd, or a plain table.

    Args:
        path: the file; its content decides, not its name.
        declared: what the caller says of it; goes before what the file says.
        frames: also load the diffraction frames.

    Raises:
        InputError: no such file.
        FormatError: a file of no known kind, a damaged one, one with Python objects where numbers are needed, no
            positions, positions that are not finite, or counts that differ.
        UsageError: a fact that neither file nor caller settles; the message names the flag.
        MissingExtraError: an HDF5 file, and h5py is not installed.
    """
    path, declared = Path(path), declared or Declared()
    start, digest = fingerprint(path)
    return settle(_content(path, start, declared, frames=frames), declared, path=path, sha256=digest)


def fingerprint(path: Path) -> tuple[bytes, str]:
    """The first bytes of a file and its SHA-256 in hex.

    Raises:
        InputError: there is no such file.
        FormatError: it is empty.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}; check the name")
    with path.open("rb") as handle:
        start = handle.read(16)
        handle.seek(0)
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    if not start:
        raise FormatError(f"{path} is empty (0 bytes); copy or export it again")
    return start, digest


def _content(path: Path, start: bytes, declared: Declared, *, frames: bool) -> Content:
    if hdf5.is_hdf5(path, start):
        return _from_hdf5(path, frames=frames)
    if start.startswith(_NPY_MAGIC):
        return read_array_table(path, declared.columns)
    if start.startswith((_ZIP_MAGIC, b"BZh")) or path.suffix.lower() in (".npz", ".bz2"):
        return _from_npz(path, declared, frames=frames)
    return read_text_table(path, declared.columns)


def _from_hdf5(path: Path, *, frames: bool) -> Content:
    with hdf5.opened(path) as file:
        names = tuple(file)
        if is_product(names):
            return read_product_hdf5(file)
        if is_ptyd(file):
            return read_ptyd(file, frames=frames)
        if is_cxi(file):
            return read_cxi(file, frames=frames)
    raise FormatError(
        f"{path} is HDF5 of no known layout: it has {', '.join(names) or 'nothing'} at its root. Read are CXI "
        f"(entry_1), PtyPy .ptyd (chunks) and ptychodus products (probe_position_x_m); else export the positions as CSV"
    )


def _from_npz(path: Path, declared: Declared, *, frames: bool) -> Content:
    with archive(path) as members:
        if declared.columns is not None:
            return read_mapped_npz(members, declared.columns)
        if is_product(members.names):
            return read_product_npz(members)
        if is_ptychopinn(members.names):
            return read_ptychopinn(members, declared, frames=frames)
        if is_tike(members.names):
            return read_tike(members, frames=frames)
        if "coords_offsets" in members:
            raise FormatError(
                f"{path} is a grouped PtychoPINN file (coords_offsets): its offsets are relative to groups, and their "
                f"sign and order changed between versions; read the file that it was made from"
            )
        raise FormatError(
            f"{path} is an NPZ of no known layout: it has {', '.join(members.names) or 'no arrays'}. Read are "
            f"PtychoPINN (xcoords, ycoords), tike (scan, data), ptychodus products (probe_position_x_m); or name the "
            f"arrays that hold x and y with --columns X Y"
        )
