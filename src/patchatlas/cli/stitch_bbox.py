"""Compare the lit box of IMAGE with the box that the positions of a scan predict; exit code 4 when they differ.

IMAGE has one pixel for each pixel of the canvas: PNG, TIFF, JPEG, NPY, NPZ, HDF5 or canvas.zarr. A PNG alone
is enough to show a collapse.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from patchatlas.cli.console import emit
from patchatlas.cli.scan_options import PositionOptions
from patchatlas.errors import FormatError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from patchatlas.stitch.diagnosis.box import Box


class Config(PositionOptions):
    """What `patchatlas stitch bbox` is asked to do."""

    image: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IMAGE")]
    """The picture or array of the whole canvas, without axes, margins or scaling."""
    image_key: str | None = None
    """Name of the array in an NPZ or HDF5 file, where there are several and none is called object."""
    scan: Path
    """The scan, in any form that `patchatlas stitch run` reads."""
    tile: str | None = None
    """Size of a tile as it was placed, N or HxW, such as 20 where only the middle was; the scan's frames without it."""
    coverage: Path | None = None
    """NPY of the coverage, which then says what is lit, as that in stitch.h5 and canvas.zarr does; without any, what
    differs from the colour of the rim is."""
    origin: tuple[float, float] | None = None
    """Object coordinate X Y of the image's corner, if known: then places are compared, not only sizes."""


def run(config: Config) -> int:
    """Measure, tell, and return 0 if the boxes agree, 4 if not.

    Raises:
        UsageError: a tile size that is none, or none known.
        InputError: scan, image or coverage cannot be used.
    """
    import torch

    from patchatlas.cli.main import BAD_INPUT, OK
    from patchatlas.io.scans.read import read_scan
    from patchatlas.stitch.positions import corners

    scan = read_scan(config.scan, config.declared())
    whole = scan.frame_hw if scan.tiles is None else (scan.tiles.shape[-2], scan.tiles.shape[-1])
    tile = parse_tile(config.tile) or whole
    if tile is None:
        raise UsageError(f"{config.scan} does not say how large a tile is; pass --tile N or HxW")
    whole = whole or tile
    positions = corners(scan, whole)
    # A middle part of a tile begins further in.
    positions = positions + torch.tensor([whole[1] // 2 - tile[1] // 2, whole[0] // 2 - tile[0] // 2])
    box = (_box_on_disk if config.image.is_dir() else _box)(config, positions, tile)
    fault = box.fault
    data = {
        "image": config.image.name,
        "scan": config.scan.name,
        "verdict": fault.verdict if fault else "ok",
        "predicted": list(box.predicted),
        "lit": None if box.lit is None else list(box.lit),
        "ratio": box.ratio,
        "origin_known": box.origin_known,
        "from_coverage": box.from_coverage,
        "tile": list(box.tile),
        "tiles": box.tiles,
        "size": list(box.size),
        "sentence": fault.sentence if fault else describe(box),
        "advice": fault.advice if fault else "",
    }
    lines = [f"{data['verdict']}: {data['sentence']}"]
    if fault:
        lines += [describe(box), f"what to do: {fault.advice}"]
    emit(config, human="\n".join(lines), data=data)
    return BAD_INPUT if fault else OK


def _box(config: Config, positions: "Tensor", tile: tuple[int, int]) -> "Box":
    """Of a picture or array in a file.

    Raises:
        InputError, UsageError: see `read_saved`; a coverage that is not that of the image.
    """
    import torch

    from patchatlas.io.scans.archive import load_npy
    from patchatlas.io.scans.saved import read_saved
    from patchatlas.stitch.diagnosis.box import bounding_box

    saved = read_saved(config.image, key=config.image_key)
    coverage, size = saved.coverage, saved.values.shape[1:]
    if config.coverage is not None:
        coverage = load_npy(config.coverage)
        if coverage.shape != size or coverage.dtype.kind not in "biuf":
            raise FormatError(
                f"{config.coverage} is {coverage.dtype} {coverage.shape}; coverage is real, one a pixel of the image, "
                f"{size}"
            )
    return bounding_box(
        torch.from_numpy(saved.values),
        positions,
        tile,
        origin=config.origin,
        coverage=None if coverage is None else torch.from_numpy(coverage).float(),
    )


def _box_on_disk(config: Config, positions: "Tensor", tile: tuple[int, int]) -> "Box":
    """Of a canvas.zarr, which says its coverage and origin itself, and may be larger than memory.

    Raises:
        UsageError: these are given all the same.
        FormatError: another kind of folder.
    """
    from patchatlas.stitch.large import survey

    if config.coverage is not None or config.origin is not None or config.image_key is not None:
        raise UsageError(f"{config.image} holds its own coverage and origin; leave --coverage, --origin and keys out")
    return survey(config.image, positions, tile).box


def describe(box: "Box") -> str:
    """Both boxes in words."""
    predicted, lit = (" x ".join(f"{side:g}" for side in sides) for sides in (box.predicted_size, box.lit_size))
    whole = " x ".join(map(str, box.size))
    return f"lit {lit} px of {whole}, predicted {predicted} px (lit over predicted area: {100 * box.ratio:.1f} %)"


def parse_tile(text: str | None) -> tuple[int, int] | None:
    """`N` or `HxW` as rows and columns.

    Raises:
        UsageError: it is neither.
    """
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"--tile {text!r} is no size; write 64, or height x width as 64x48")
    return int(parts[0]), int(parts[-1])
