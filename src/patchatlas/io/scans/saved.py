"""A canvas that some program has saved, as plain numbers: a picture, NPY, one array of an NPZ or of an HDF5 file.

Axes: c channels, h w pixels.
"""

from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Shaped
from numpy import ndarray

from patchatlas.errors import UsageError
from patchatlas.io.rasters import channels_first, read_raster
from patchatlas.io.scans import hdf5
from patchatlas.io.scans.archive import archive

OWN, OWN_COVERAGE = "object", "coverage"
"""Names of the canvas and its coverage in docs/formats/stitch-v1.md; a canvas of the first name is meant unless a key
says otherwise."""


@dataclass(frozen=True, eq=False)
class Saved:
    """What a file holds.

    Attributes:
        values: of any number type.
        coverage: that our own files hold beside them; `None` in others.
    """

    values: Shaped[ndarray, "c h w"]
    coverage: Shaped[ndarray, "h w"] | None = None


def read_saved(path: str | Path, *, key: str | None = None) -> Saved:
    """Read one.

    Args:
        path: a picture, NPY, NPZ (also .npz.bz2) or HDF5 file.
        key: name of the array in an NPZ or HDF5 file; needed only where there are several of two or three axes and none
            is called `object`.

    Raises:
        InputError: no such file.
        FormatError: no picture or array, a damaged one, or no numbers.
        UsageError: several arrays could be meant, no such array, or a key for a file that has none.
        MissingExtraError: an HDF5 file, and h5py is not installed.
    """
    path = Path(path)
    start = b""
    if path.is_file():
        with path.open("rb") as handle:
            start = handle.read(16)
    if hdf5.is_hdf5(path, start) and path.is_file():
        with hdf5.opened(path) as file:
            shapes = hdf5.shapes(file)
            name = _chosen(path, shapes, key)
            coverage = hdf5.values(file[OWN_COVERAGE]) if _has_coverage(shapes, name) else None
            return Saved(channels_first(hdf5.values(file[name]), f"{path}: {name}"), coverage)
    if start.startswith((b"PK", b"BZh")):
        with archive(path) as members:
            shapes = {name: members.shape(name) for name in members.names}
            name = _chosen(path, shapes, key)
            coverage = members.load(OWN_COVERAGE) if _has_coverage(shapes, name) else None
            return Saved(channels_first(members.load(name), f"{path}: {name}"), coverage)
    if key is not None:
        raise UsageError(f"{path} is one picture or array and has no key {key!r}; leave --image-key out")
    return Saved(read_raster(path))


def _has_coverage(shapes: dict[str, tuple[int, ...]], name: str) -> bool:
    return name == OWN and shapes.get(OWN_COVERAGE) == shapes[name][-2:]


def _chosen(path: Path, shapes: dict[str, tuple[int, ...]], key: str | None) -> str:
    fitting = [name for name, shape in shapes.items() if len(shape) in (2, 3)]
    wanted = OWN if key is None and OWN in fitting else key
    if wanted is not None and wanted in shapes:
        return wanted
    listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "nothing"
    if wanted is not None:
        raise UsageError(f"{path} has no array {key!r}; it has {listed}")
    if len(fitting) != 1:
        raise UsageError(
            f"{path} has {len(fitting)} arrays that could be the canvas; name one with --image-key: {listed}"
        )
    return fitting[0]
