"""Draw the crops that a pretraining run would learn from: boxes on the volume, what the network sees, ratios, flags.

Writes index.html with its pictures, and crops.json with the record of every crop drawn. Look at them before a run: a
wrong window or threshold is seen at once. DATA may also be a folder of photographs, with crops of kind photos.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from pydantic import Field

from patchatlas.cli.console import Output, emit, progress

if TYPE_CHECKING:
    from patchatlas.pretrain.crops.summary import CropSummary

_PICTURE = re.compile(r"sample-\d+-(place|crops)\.png")


class Config(Output):
    """What `patchatlas pretrain crops` is asked to do."""

    data: tyro.conf.Positional[Path]
    """Cache that `pretrain index` made, or folder of photographs."""
    config: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """YAML of a run, whose `crops` are drawn; `data` is taken from the command."""
    output: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder for the page and its pictures; made if it is not there."""
    set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="a.b=c")] = ()
    """Settings to change, such as crops.globals.min_overlap=0.2."""
    samples: Annotated[int, Field(gt=0)] = 4
    """Samples that are drawn, one a volume in turn."""
    draws: Annotated[int, Field(gt=0)] = 1000
    """Samples that are placed for the histograms; no voxel is read for them."""
    epoch: Annotated[int, Field(ge=0)] = 0
    """Which epoch."""
    side: Annotated[int, Field(ge=64)] = 420
    """Pixels of the longer side of a slice."""


def run(config: Config) -> int:
    """Draw, write the page, and print the summary; 3 if a photograph was left out.

    Raises:
        UsageError: settings that make no sense, or an output folder that holds other files.
        InputError: no such cache or folder, or a strict config that a volume cannot meet.
        ResourceError: the folder of the output may not be written, or the disk is full.
    """
    from patchatlas.cli.crops_page import draw_sample, page
    from patchatlas.cli.main import OK, SKIPPED
    from patchatlas.files import write_text
    from patchatlas.io.disk import disk_errors
    from patchatlas.pretrain.cache import VolumeRecord, open_cache
    from patchatlas.pretrain.config import read_config
    from patchatlas.pretrain.crops.config import CropConfig
    from patchatlas.pretrain.crops.photos import PhotoViews, open_photos
    from patchatlas.pretrain.crops.summary import summarise
    from patchatlas.pretrain.crops.views import Views

    _require_own(config.output)
    settings = read_config(config.config, [f"data={json.dumps(str(config.data))}", *config.set])
    crops, seed = settings.crops, settings.train.seed
    views: Views[VolumeRecord] | PhotoViews
    if isinstance(crops, CropConfig):
        views = Views(open_cache(config.data), crops, seed=seed)
    else:
        keep_bytes = settings.train.photo_mib * 2**20  # as the run would
        views = PhotoViews(open_photos(config.data), crops, seed=seed, keep_bytes=keep_bytes)
    skipped = () if isinstance(views, Views) else views.photos.skipped
    with disk_errors(config.output):
        config.output.mkdir(parents=True, exist_ok=True)
    drawn = []
    with progress() as bar:
        for index in bar.track(range(config.samples), description="drawing"):
            drawn.append(draw_sample(views, index, config.epoch, folder=config.output, side=config.side))
        placed = bar.track(range(config.draws), description="placing")
        summary = summarise((views.plan(index, config.epoch) for index in placed), crops)
    told = summary.to_json()
    samples = [[record.to_json() for record in one.records] for one in drawn]
    with disk_errors(config.output):
        write_text(config.output / "crops.json", json.dumps({"summary": told, "samples": samples}, indent=1))
        write_text(config.output / "index.html", page(drawn, summary, crops))
    lines = [describe(summary, config.output), *(f"skipped {name}: {why}" for name, why in skipped)]
    listed = [{"name": name, "why": why} for name, why in skipped]
    page_at = str(config.output / "index.html")
    emit(config, human="\n".join(lines), data=told | {"page": page_at, "skipped": listed})
    return SKIPPED if skipped else OK


def _require_own(folder: Path) -> None:
    """Leave alone a folder that holds other files than those of a former page.

    Raises:
        UsageError: it does.
    """
    from patchatlas.files import holds_others

    if not folder.is_dir() or (folder / "crops.json").is_file():
        return
    others = sorted(p.name for p in folder.iterdir() if not p.name.startswith(".") and not _PICTURE.fullmatch(p.name))
    if others:
        raise holds_others(folder, "crops", some=others)


def describe(summary: "CropSummary", folder: Path) -> str:
    """The summary in lines for people."""
    told = summary.to_json()
    lines = [f"{summary.crops} crops of {summary.samples} samples; {summary.below_min} miss their least ratio"]
    for name, what in (
        ("mean_global_ratio", "mean foreground of global crops"),
        ("mean_local_ratio", "mean foreground of local crops"),
        ("mean_overlap", "mean overlap of global pairs"),
    ):
        if told[name] is not None:
            lines.append(f"{what:<33} {told[name]:.3f}")
    lines.append(f"{'pairs that share nothing':<33} {100 * summary.disjoint:.1f} %")
    lines += [f"flag {flag:<28} {times}" for flag, times in summary.flags.items() if times]
    return "\n".join([*lines, f"pictures: {folder / 'index.html'}"])
