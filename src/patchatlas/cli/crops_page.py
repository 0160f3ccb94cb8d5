"""The page that `patchatlas pretrain crops` writes: samples with their boxes and crops, a table each, and histograms.

Pictures are PNG files beside the page, named relative to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import torch

from patchatlas.arrays import ImageU8
from patchatlas.io.disk import disk_errors
from patchatlas.io.images import read_image, write_image
from patchatlas.pretrain.cache import VolumeRecord
from patchatlas.pretrain.crops.config import CropConfig, PhotoCropConfig
from patchatlas.pretrain.crops.photos import PhotoViews
from patchatlas.pretrain.crops.records import CropRecord
from patchatlas.pretrain.crops.summary import CropSummary
from patchatlas.pretrain.crops.views import Views
from patchatlas.pretrain.window import normalise
from patchatlas.viz import crops as viz
from patchatlas.viz.html import document

STYLE = """
.plot { display: inline-block; width: 27rem; max-width: 100%; margin: 1rem 1.5rem 0 0; }
.plot svg { width: 100%; font-size: 12px; fill: currentColor; }
.plot .bar { fill: rgb(70, 130, 200); } .plot .axis { stroke: currentColor; }
.plot .mark { stroke: rgb(215, 120, 0); stroke-width: 2; stroke-dasharray: 5 3; }
figure { margin: 1rem 0; } img { max-width: 100%; width: auto; }
"""


@dataclass(frozen=True)
class Drawn:
    """One sample that was drawn.

    Attributes:
        volume: its volume or photograph.
        records: its crops, global ones first.
        n_globals: how many of them are global.
        place: file name of the picture of their places.
        crops: file name of the picture of the crops.
    """

    volume: str
    records: tuple[CropRecord, ...]
    n_globals: int
    place: str
    crops: str


def draw_sample(views: Views[VolumeRecord] | PhotoViews, index: int, epoch: int, *, folder: Path, side: int) -> Drawn:
    """Draw one sample into a folder.

    Args:
        views: where it comes from.
        index: which sample.
        epoch: of which epoch.
        folder: for two PNG files.
        side: pixels of the longer side of a slice.

    Raises:
        ResourceError: the folder may not be written, or the disk is full.
    """
    sample, config = views.sample(index, epoch), views.config
    n = config.globals.count
    outlines = [_outline(k, record, n) for k, record in enumerate(sample.records)]
    planes = _slices(views, sample.records[0])
    pictures = [viz.draw(plane, side, outlines[::-1]) for plane in planes]
    drawn = Drawn(sample.records[0].volume, sample.records, n, f"sample-{index}-place.png", f"sample-{index}-crops.png")
    names = viz.PLANES if len(planes) == 3 else ("photograph",)
    with disk_errors(folder / drawn.place):
        write_image(folder / drawn.place, viz.beside(pictures, labels=names))
    scale = side / 2 / max(config.globals.size)
    crops = [
        viz.draw_crop(pixels, record.voxel_mm, round(scale * max(record.frame.size)))
        for pixels, record in zip([*sample.globals, *sample.locals], sample.records, strict=True)
    ]
    labels = [_label(k, record, n) for k, record in enumerate(sample.records)]
    sheets = [viz.sheet(crops[:n], labels[:n], columns=2)]
    if len(crops) > n:
        sheets.append(viz.sheet(crops[n:], labels[n:], columns=4))
    with disk_errors(folder / drawn.crops):
        write_image(folder / drawn.crops, _stacked(sheets))
    return drawn


def page(drawn: Sequence[Drawn], summary: CropSummary, config: CropConfig | PhotoCropConfig) -> str:
    """The page as HTML.

    Args:
        drawn: samples with their pictures.
        summary: of many samples.
        config: what they were made with.
    """
    return document(
        "\n".join([_lead(summary, config), *(_section(k, one) for k, one in enumerate(drawn))]),
        title="patchatlas pretrain crops",
        colours={},
        style=STYLE,
    )


def _slices(views: Views[VolumeRecord] | PhotoViews, record: CropRecord) -> list[viz.Slice]:
    """The three slices through the middle of a crop, with the foreground's edge, or the photograph."""
    if isinstance(views, PhotoViews):
        path = next(photo.path for photo in views.photos.records if photo.id == record.volume)
        pixels = torch.from_numpy(read_image(path)).permute(2, 0, 1) / 255
        return [viz.Slice(pixels, (0, 1), None, (1.0, 1.0))]
    volume = next(volume for volume in views.volumes.records if volume.id == record.volume)
    table = views.ground(volume).tables[record.threshold]
    shares = table.counts() / np.prod(table.cell)
    planes = []
    for axis in range(3):
        at = record.start_zyx[axis] + record.size_zyx[axis] // 2
        at = min(at, volume.size_zyx[axis] - 1)
        start, size = [0, 0, 0], list(volume.size_zyx)
        start[axis], size[axis] = at, 1
        shown = normalise(views.volumes.read(volume, start, size), views.config.window_hu)
        down, across = (a for a in range(3) if a != axis)
        planes.append(
            viz.Slice(
                torch.from_numpy(shown.squeeze(axis))[None],
                (down, across),
                (axis, at),
                (volume.spacing_zyx[down], volume.spacing_zyx[across]),
                foreground=np.moveaxis(shares, axis, 0)[at // table.cell[axis]],
                cell=(table.cell[down], table.cell[across]),
            )
        )
    return planes


def _outline(number: int, record: CropRecord, n_globals: int) -> viz.Outline:
    family = number if number < n_globals else record.parent
    colour = viz.COLOURS[family % len(viz.COLOURS)] if family >= 0 else viz.LOOSE
    width = 3 if number < n_globals else 1
    return viz.Outline(record.start_zyx, record.size_zyx, _name(number, n_globals), colour, width)


def _name(number: int, n_globals: int) -> str:
    return f"G{number + 1}" if number < n_globals else f"L{number - n_globals + 1}"


def _label(number: int, record: CropRecord, n_globals: int) -> str:
    of = f" in G{record.parent + 1}" if record.parent >= 0 else ""
    return f"{_name(number, n_globals)}{of}  {record.fg_ratio:.2f} {record.flag}"


def _stacked(sheets: Sequence[ImageU8]) -> ImageU8:
    return viz.sheet(sheets, ["global crops, as the network sees them", "local crops"][: len(sheets)], columns=1)


def _lead(summary: CropSummary, config: CropConfig | PhotoCropConfig) -> str:
    flags = "".join(
        f'<tr><td>{flag}</td><td class="number">{times}</td><td class="number">{times / summary.crops:.1%}</td></tr>'
        for flag, times in summary.flags.items()
    )
    plots = []
    if isinstance(config, CropConfig):
        least = [(scale.min_foreground_ratio, "least") for scale in (config.globals, config.locals)]
        plots += [
            viz.histogram(summary.global_ratios, caption="foreground ratio of global crops", marks=least[:1]),
            viz.histogram(summary.local_ratios, caption="foreground ratio of local crops", marks=least[1:]),
        ]
        low, high = config.window_hu
        told = f"Window {low:g} to {high:g} HU; foreground: {config.globals.foreground}."
        overlap = config.globals.min_overlap
    else:
        told, overlap = "Photographs: everything is foreground.", config.min_overlap
    if summary.overlaps:
        marks = [(overlap, "least")]
        plots.append(viz.histogram(summary.overlaps, caption="overlap of pairs of global crops", marks=marks))
    return f"""<h1>Crops</h1>
<p>{summary.crops} crops of {summary.samples} samples were placed; {summary.below_min} miss the least foreground \
ratio of their scale, and {summary.disjoint:.1%} of the pairs of global crops share nothing. {escape(told)}</p>
<div>{"".join(plots)}</div>
<div class="wide facts"><table><thead><tr><th>flag</th><th class="number">crops</th><th class="number">share</th></tr>\
</thead><tbody>{flags}</tbody></table></div>"""


def _section(number: int, drawn: Drawn) -> str:
    rows = "".join(_row(k, record, drawn.n_globals) for k, record in enumerate(drawn.records))
    heads = "".join(
        f"<th>{head}</th>"
        for head in (
            "crop",
            "part of",
            "first voxel",
            "voxels",
            "mm a voxel",
            "foreground",
            "drawn from",
            "flips",
            "flags",
        )
    )
    where = ""
    if drawn.records[0].frame.ndim == 3:
        where = (
            "Slices through the middle of G1; the blue line is the edge of the foreground, by cells. Head up, the "
            "right of the body on the left."
        )
    return f"""<section id="sample-{number}">
<h2>Sample {number}: <code>{escape(drawn.volume)}</code></h2>
<figure><img src="{drawn.place}" alt="Where the crops lie"><figcaption>{where} Thick: global crops; \
thin: local crops, in the colour of the global crop that they are part of.</figcaption></figure>
<figure><img src="{drawn.crops}" alt="The crops"><figcaption>What the network sees, varied and flipped; of \
volumes the middle slices. The number is the foreground ratio.</figcaption></figure>
<div class="wide facts"><table><thead><tr>{heads}</tr></thead><tbody>
{rows}
</tbody></table></div>
</section>"""


def _row(number: int, record: CropRecord, n_globals: int) -> str:
    axes = ("head-foot", "front-back", "left-right") if record.frame.ndim == 3 else ("up-down", "left-right")
    cells = (
        _name(number, n_globals),
        f"G{record.parent + 1}" if record.parent >= 0 else "",
        ", ".join(map(str, record.start_zyx)),
        " x ".join(map(str, record.size_zyx)),
        " x ".join(f"{mm:.3g}" for mm in record.voxel_mm),
        f"{record.fg_ratio:.3f}",
        f"{record.n_valid} places",
        ", ".join(axes[axis] for axis in record.flips),
        record.flag,
    )
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
