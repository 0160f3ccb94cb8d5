"""Check the tiles of SCAN against their positions: sign, axes, order, repeats, overlap; exit code 4 if they do not fit.

With --stitched also check a canvas that some program made of them. Without any tiles only the positions are looked at.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from patchatlas.cli.console import emit
from patchatlas.cli.scan_options import TileOptions, load
from patchatlas.cli.threads import one_thread
from patchatlas.errors import InputError, UsageError

if TYPE_CHECKING:
    from patchatlas.io.scans.scan import Scan
    from patchatlas.stitch.diagnosis.picture import Picture
    from patchatlas.stitch.diagnosis.report import StitchReport


class Config(TileOptions):
    """What `patchatlas stitch diagnose` is asked to do."""

    stitched: Path | None = None
    """A stitched canvas to check: NPY, (h, w) or (channels, h, w), one pixel an object pixel."""
    origin: tuple[float, float] | None = None
    """Object coordinate X Y of the corner of --stitched, if known."""
    coverage: Path | None = None
    """NPY of the coverage of --stitched, if there is one."""
    report: Path | None = None
    """Write the report as JSON to this file."""
    orientations: Annotated[Path | None, tyro.conf.arg(metavar="PNG")] = None
    """Draw what all signs and orders of the positions give, side by side, into this file."""


def run(config: Config) -> int:
    """Check, tell, and return 0 if nothing is wrong, 4 if something is.

    Raises:
        UsageError: options that do not go together, or facts of the scan that stay open.
        InputError: a file that cannot be used, or cannot be written.
    """
    from patchatlas.cli.main import BAD_INPUT, OK
    from patchatlas.cli.stitch_pictures import draw_orientations
    from patchatlas.files import write_text
    from patchatlas.io.images import write_image
    from patchatlas.io.scans.read import read_scan
    from patchatlas.stitch.diagnosis.diagnose import diagnose
    from patchatlas.stitch.positions import corners
    from patchatlas.stitch.run import oriented_views

    for path in (config.report, config.orientations):
        if path is not None and not path.absolute().parent.is_dir():
            raise InputError(
                f"cannot write {path}: the folder {path.absolute().parent} does not exist; create it first"
            )
    if config.stitched is None and (config.origin is not None or config.coverage is not None):
        raise UsageError("--origin and --coverage belong to a canvas; name it with --stitched")
    one_thread()
    scan = read_scan(config.scan, config.declared())
    if config.tiles is None and scan.tiles is None:
        return _positions_only(config, scan)
    scan, tiles, files = load(config)
    positions = corners(scan, (tiles.shape[2], tiles.shape[3]))
    found = diagnose(tiles, positions, _picture(config))
    data = {**files, "facts": scan.facts(), "notes": list(scan.notes), **found.to_json()}
    if config.report is not None:
        write_text(config.report, json.dumps(data, indent=2) + "\n")
    if config.orientations is not None:
        write_image(config.orientations, draw_orientations(oriented_views(tiles, positions)))
    emit(config, human="\n".join(describe(found)), data=data)
    return OK if found.ok else BAD_INPUT


def describe(found: "StitchReport") -> list[str]:
    """The report in lines for people."""
    lines = [f"{found.verdict}: {found.sentence}"]
    if found.advice:
        lines.append(f"what to do: {found.advice}")
    lines += [f"also {fault.verdict}: {fault.sentence}" for fault in found.faults[1:]]
    if found.spread is not None:
        spread = found.spread
        across, down = (high - low for low, high in zip(spread.low, spread.high, strict=True))
        lines.append(
            f"{spread.count} positions, {spread.unique} different, over {across:.1f} x {down:.1f} px; nearest "
            f"neighbours {spread.neighbour:.2f} px apart ({spread.neighbour_in_tiles:.2f} tiles)"
        )
    if found.orientation is not None and not found.orientation.indistinct:
        check = found.orientation
        lines.append(f"residual {check.given:.4f} as given, {check.shuffled:.2f} with rows shuffled")
        if len(check.by_orientation) > 1:
            lines += [f"  {name}  {value:.4f}" for name, value in check.by_orientation]
    return lines


def _positions_only(config: Config, scan: "Scan") -> int:
    """Look at positions for which there are no tiles: even ones stand in, which agree with everything."""
    import torch

    from patchatlas.cli.main import BAD_INPUT, OK
    from patchatlas.files import write_text
    from patchatlas.stitch.diagnosis.diagnose import diagnose
    from patchatlas.stitch.positions import corners

    if config.stitched is not None or config.orientations is not None:
        raise UsageError(
            f"{scan.path} holds no tiles, so a canvas cannot be compared with them; give --tiles, or compare boxes "
            f"only with `patchatlas stitch bbox`"
        )
    if scan.frame_hw is None:
        raise UsageError(f"{scan.path} holds neither tiles nor frames, so the size of a tile is unknown; give --tiles")
    stand_in = torch.zeros(1, 1, 1, 1).expand(len(scan), 1, *scan.frame_hw)
    found = diagnose(stand_in, corners(scan, scan.frame_hw))
    sentence = (
        "positions only: there are no tiles, so sign, axes and order were not checked" if found.ok else found.sentence
    )
    data = {
        "facts": scan.facts(),
        "notes": list(scan.notes),
        **found.to_json(),
        "sentence": sentence,
        "orientation": None,
    }
    if config.report is not None:
        write_text(config.report, json.dumps(data, indent=2) + "\n")
    lines = describe(found)
    lines[0] = f"{found.verdict}: {sentence}"
    emit(config, human="\n".join(lines), data=data)
    return OK if found.ok else BAD_INPUT


def _picture(config: Config) -> "Picture | None":
    if config.stitched is None:
        return None

    import torch

    from patchatlas.io.rasters import read_raster
    from patchatlas.io.scans.archive import load_npy
    from patchatlas.stitch.diagnosis.picture import Picture

    values = torch.from_numpy(read_raster(config.stitched))
    if not (values.is_complex() or values.is_floating_point()):
        values = values.float()
    coverage = None if config.coverage is None else torch.from_numpy(load_npy(config.coverage)).float()
    return Picture(values=values, coverage=coverage, origin=config.origin)
