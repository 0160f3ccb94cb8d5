"""Turn CT volumes into a cache for pretraining: one orientation, HU, compressed so that one crop can be read alone.

Reads NIfTI, DICOM series, NPY, NPZ, Blosc2 and InVesalius projects. Foreground is counted once, in cells, so that crops
with enough of it can be drawn without reading any voxel. What cannot be used is listed with its reason; run again to go
on after a stop.
"""

from pathlib import Path
from typing import Annotated

import tyro

from patchatlas.cli.console import Output, emit, progress
from patchatlas.io.volumes.hounsfield import Units


class Config(Output):
    """What `patchatlas pretrain index` is asked to do."""

    sources: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="SRC ...")]
    """Folders that are searched for volumes, or single files."""
    out: Annotated[Path, tyro.conf.arg(metavar="CACHE")]
    """Folder of the cache; one that is there is brought up to date."""
    spacing_zyx: Annotated[tuple[float, float, float] | None, tyro.conf.arg(metavar="Z Y X")] = None
    """Resample to so many mm between voxels; left as they are without it."""
    cell_zyx: Annotated[tuple[int, int, int], tyro.conf.arg(metavar="Z Y X")] = (8, 8, 8)
    """Voxels in a cell in which foreground is counted; the patch of the network, or a divisor of it."""
    thresholds: Annotated[tuple[float, ...], tyro.conf.arg(metavar="HU")] = (-500.0,)
    """Count the voxels above each of these HU."""
    body: bool = True
    """Also count the voxels of the body: the largest part above --body-threshold, lungs filled, table cut off."""
    body_threshold: Annotated[float, tyro.conf.arg(metavar="HU")] = -500.0
    """The body is above it."""
    detach_mm: Annotated[float, tyro.conf.arg(metavar="MM")] = 4.0
    """Bridges between body and table up to so thick are cut."""
    units: Units = "hounsfield"
    """`any` takes values that are no Hounsfield units as they are."""
    assume_spacing_zyx: Annotated[tuple[float, float, float] | None, tyro.conf.arg(metavar="Z Y X")] = None
    """mm between voxels of arrays that do not tell."""
    assume_axes: Annotated[str, tyro.conf.arg(metavar="LETTERS")] = "SAR"
    """Where the axes of such arrays grow to: one of S or I, of A or P, of R or L."""
    workers: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Processes; each needs about five times the bytes of its volume as int16, seven with --spacing-zyx."""


def run(config: Config) -> int:
    """Index, print what came of it; 3 if a volume was left out.

    Raises:
        UsageError: settings that make no sense.
        InputError: a source that is not there, or no volume in any.
        ResourceError: memory or disk.
    """
    from pydantic import ValidationError

    from patchatlas.cli.main import OK, SKIPPED
    from patchatlas.errors import InputError, UsageError
    from patchatlas.pretrain.index import index_volumes
    from patchatlas.pretrain.index_settings import Counting, Drawing, IndexSettings

    if not config.sources:
        raise UsageError("give at least one folder or file with volumes")
    if config.workers < 1:
        raise UsageError(f"--workers {config.workers} is none; give 1 or more")
    try:
        settings = IndexSettings(
            drawing=Drawing(
                spacing_zyx=config.spacing_zyx,
                assume_spacing_zyx=config.assume_spacing_zyx,
                assume_axes=config.assume_axes,
                units=config.units,
            ),
            counting=Counting(
                cell_zyx=config.cell_zyx,
                thresholds=config.thresholds,
                body=config.body,
                body_threshold=config.body_threshold,
                detach_mm=config.detach_mm,
            ),
        )
    except ValidationError as error:
        first = error.errors()[0]
        option = next((f"--{part}".replace("_", "-") for part in first["loc"][:1]), "settings")
        raise UsageError(f"{option}: {first['msg']}, given {first['input']!r}") from error
    with progress() as bar:
        task = bar.add_task("indexing", total=None)
        report = index_volumes(
            config.sources,
            config.out,
            settings,
            workers=config.workers,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if not report.cache.records and not report.skipped:
        raise InputError(
            f"there is no volume in {', '.join(map(str, config.sources))}; read are NIfTI, DICOM, NPY, NPZ, b2nd, inv3"
        )
    emit(config, human="\n".join(report.lines()), data=report.to_json())
    return SKIPPED if report.skipped else OK
