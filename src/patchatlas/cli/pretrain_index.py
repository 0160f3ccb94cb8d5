"""Turn CT volumes into a cache for pretraining: one orientation, HU, compressed so that one crop can be read alone.

Reads NIfTI, DICOM series, NPY, NPZ, Blosc2, zarr and InVesalius projects. Foreground is counted once, in cells, so that
crops with enough of it can be drawn without reading any voxel. What cannot be used is listed with its reason; run again
to go on after a stop, or to add volumes: options that are not given are then those of the cache.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from patchatlas.cli.console import Output, emit, progress
from patchatlas.io.volumes.hounsfield import Units

if TYPE_CHECKING:
    from patchatlas.pretrain.index_settings import Counting, Drawing


class Config(Output):
    """What `patchatlas pretrain index` is asked to do."""

    sources: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="SRC ...")]
    """Folders that are searched for volumes, or single files."""
    out: Annotated[Path, tyro.conf.arg(metavar="CACHE")]
    """Folder of the cache; one that is there is brought up to date."""
    spacing_zyx: Annotated[tuple[float, float, float] | None, tyro.conf.arg(metavar="Z Y X")] = None
    """Resample to so many mm between voxels; a new cache leaves them as they are without it."""
    cell_zyx: Annotated[tuple[int, int, int] | None, tyro.conf.arg(metavar="Z Y X")] = None
    """Voxels in a cell in which foreground is counted; the patch of the network, or a divisor of it. 8 8 8 for a new
    cache."""
    thresholds: Annotated[tuple[float, ...] | None, tyro.conf.arg(metavar="HU [HU ...]")] = None
    """Count the voxels above each of these HU, and no others. -500 for a new cache."""
    body: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Also count the voxels of the body: the largest part above --body-threshold, lungs filled, table cut off. So it is
    for a new cache."""
    no_body: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Do not count them."""
    body_threshold: Annotated[float | None, tyro.conf.arg(metavar="HU")] = None
    """The body is above it. -500 for a new cache."""
    detach_mm: Annotated[float | None, tyro.conf.arg(metavar="MM")] = None
    """Bridges between body and table up to so thick are cut. 4 for a new cache."""
    mask: Annotated[Path | None, tyro.conf.arg(metavar="MASKS")] = None
    """Folder of masks that `body` counts in place of the body, each of the name of its volume but for the suffix, on
    the same voxels, 0 outside. A volume without one is listed and left out."""
    units: Annotated[Units | None, tyro.conf.arg(metavar="hounsfield|any")] = None
    """`any` takes values that are no Hounsfield units as they are. hounsfield for a new cache."""
    assume_spacing_zyx: Annotated[tuple[float, float, float] | None, tyro.conf.arg(metavar="Z Y X")] = None
    """mm between voxels of arrays that do not tell."""
    assume_axes: Annotated[str | None, tyro.conf.arg(metavar="LETTERS")] = None
    """Where the axes of such arrays grow to: one of S or I, of A or P, of R or L. SAR for a new cache."""
    anew: bool = False
    """Make a cache that is there as it would be made if it were not: from the options given, all others being those of
    a new cache. Needed where its values change."""
    verify: bool = False
    """Also read the values that are there, compare them with their hashes, and make again what differs."""
    workers: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Processes; each needs about five times the bytes of its volume as int16, seven with --spacing-zyx."""


def run(config: Config) -> int:
    """Index, print what came of it; 3 if a volume was left out.

    Raises:
        UsageError: settings that make no sense, or that would change the values of a cache that is there.
        InputError: a source that is not there, or no volume in any.
        ResourceError: memory or disk.
    """
    from pydantic import ValidationError

    from patchatlas.cli.main import OK, SKIPPED
    from patchatlas.errors import InputError, UsageError
    from patchatlas.pretrain.former_index import changes, continued, described, former_settings
    from patchatlas.pretrain.index import index_volumes
    from patchatlas.pretrain.index_settings import Counting, Drawing, IndexSettings

    if not config.sources:
        raise UsageError("give at least one folder or file with volumes")
    if config.workers < 1:
        raise UsageError(f"--workers {config.workers} is none; give 1 or more")
    if config.body and config.no_body:
        raise UsageError("--body and --no-body were both given; give one of them, or neither to leave it as it is")
    former = None if config.anew else former_settings(config.out)
    base = IndexSettings() if former is None else continued(config.out, former, masked=config.mask is not None)
    try:
        settings = IndexSettings(
            drawing=Drawing.model_validate(base.drawing.model_dump() | _given(config, Drawing)),
            counting=Counting.model_validate(base.counting.model_dump() | _given(config, Counting)),
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
            mask=config.mask,
            verify=config.verify,
            workers=config.workers,
            anew=config.anew,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if not report.cache.records and not report.skipped:
        raise InputError(
            f"there is no volume in {', '.join(map(str, config.sources))}; read are NIfTI, DICOM, NPY, NPZ, b2nd, "
            "zarr, inv3"
        )
    lines = report.lines()
    if former is not None:
        counted = changes(former.counting, Counting.model_validate(report.cache.settings["counting"]))
        lines += [f"counted otherwise than before: {described(counted)}"] if counted else []
    emit(config, human="\n".join(lines), data=report.to_json())
    return SKIPPED if report.skipped else OK


def _given(config: Config, group: "type[Drawing | Counting]") -> dict[str, Any]:
    """The options of a group of settings that were given."""
    given = {name: getattr(config, name) for name in group.model_fields if getattr(config, name, None) is not None}
    if group.model_fields.keys() >= {"body"}:
        del given["body"]  # where neither flag is given a cache stays as it is
        if config.no_body:
            given["body"] = False
        elif config.body or config.body_threshold is not None or config.detach_mm is not None:
            given["body"] = True
    given.pop("mask", None)  # the folder itself, of which settings keep only that it was given
    return given
