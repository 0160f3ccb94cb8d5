"""Find seven landmarks of one shipped photograph in another and write pictures, results and a page about them.

Needs no network and no weights: the default encoder is bundled:sift. The true places are known, so the page says how
far off each answer is.
"""

import json
import math
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from pydantic import Field

from patchatlas import __version__
from patchatlas.cli.console import Output, emit, progress
from patchatlas.cli.page import Entry, page
from patchatlas.errors import InputError
from patchatlas.files import write_text

if TYPE_CHECKING:
    from patchatlas.locate.result import Finding

FORMAT = "patchatlas.demo"
VERSION = 1

LICENCE_NOTE = (
    "The photographs and the true disparity are the scene Motorcycle of the Middlebury Stereo Datasets 2014 "
    "(D. Scharstein, H. Hirschmüller, Y. Kitajima, G. Krathwohl, N. Nesic, X. Wang, and P. Westling. High-resolution "
    "stereo datasets with subpixel-accurate ground truth. GCPR 2014), used and published by permission of its authors, "
    "scaled down by scikit-image and stored as JPEG. They are not under the licence of patchatlas."
)
TRUTH_NOTE = (
    "The pair is rectified, so a mark at (x, y) of the left photo is at (x - disparity, y) of the right one. Errors "
    "and positions are in pixels of the 741 x 500 photos; pixel centres lie at +0.5."
)


class Config(Output):
    """What `patchatlas demo` is asked to do."""

    output: tyro.conf.Positional[Path] = Path("demo-output")
    """Folder to write to; made if it is not there, and files of a former run in it are replaced."""
    encoder: str = "bundled:sift"
    """Weights file or folder, hub id, catalogue name, bundled:sift or bundled:vit-tiny16."""
    image_size: Annotated[int, Field(gt=0)] = 896
    """Long side of both pictures as the encoder sees them, a multiple of its patch."""
    uuid: str | None = None
    """Look for this one of the marks only."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the encoder; auto takes bf16 where the hardware has it."""


@dataclass(frozen=True)
class Known:
    """A shipped mark and what is known of it.

    Attributes:
        number: its place among the marks, from 1.
        uuid: its identity.
        name: what it is, in words.
        source_xy: the mark.
        target_xy: where it truly is in the target; `None` where it is hidden there.
    """

    number: int
    uuid: str
    name: str
    source_xy: tuple[float, float]
    target_xy: tuple[float, float] | None

    def error_px(self, finding: "Finding") -> float | None:
        """Target pixels between the answer and the truth; `None` where the truth is that it is hidden."""
        return None if self.target_xy is None else math.dist(self.target_xy, finding.target_xy)

    def compared(self, finding: "Finding") -> str:
        """The same in words."""
        error = self.error_px(finding)
        if error is not None:
            return f"{error:.1f} px from the true place"
        return f"hidden in the target; {'a false find' if finding.state == 'found' else 'rightly not found'}"


def run(config: Config) -> int:
    """Encode, find each mark, draw, write.

    Raises:
        InputError: OUTPUT is a file, or no mark has the uuid.
        WeightsError: the encoder cannot be had.
        ShapeError: the image size does not suit the encoder.
    """
    if config.output.exists() and not config.output.is_dir():
        raise InputError(f"OUTPUT {config.output} is a file; name a folder")

    import torch

    from patchatlas.cli.pictures import draw
    from patchatlas.dense import encode
    from patchatlas.encoders.loading import load_encoder
    from patchatlas.io.images import read_image, write_image
    from patchatlas.locate.pair import centred_frame
    from patchatlas.locate.search import locate_points
    from patchatlas.viz.finding import draw_mark
    from patchatlas.viz.panel import STATE_COLOURS

    data_folder = resources.files("patchatlas") / "demo_data"
    with resources.as_file(data_folder) as folder:
        truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
        source_name, target_name = truth["source"], truth["target"]
        known = _chosen(folder / source_name, truth["landmarks"], config.uuid)
        source, target = read_image(folder / source_name), read_image(folder / target_name)
    encoder = load_encoder(config.encoder, device=config.device, dtype=config.dtype)

    entries: list[Entry] = []
    items: list[dict[str, Any]] = []
    target_map = encode(target, encoder, size=config.image_size)
    config.output.mkdir(parents=True, exist_ok=True)
    with progress() as bar:
        for mark in bar.track(known, description="locating"):
            # The mark is in the middle of a patch of its own encoding; the target is encoded once for all marks.
            frame = centred_frame(
                source.shape[:2], mark.source_xy, image_size=config.image_size, patch=encoder.spec.patch
            )
            source_map = encode(source, encoder, frame=frame)
            point = torch.tensor([mark.source_xy], dtype=torch.float64)
            (finding,) = locate_points(source_map, target_map, point, uuids=[mark.uuid], image_size=config.image_size)
            files = {part: f"{mark.number}-{part}" for part in ("source.jpg", "heatmap.jpg", "result.json")}
            write_image(config.output / files["source.jpg"], draw_mark(source, mark.source_xy))
            write_image(config.output / files["heatmap.jpg"], draw(target, source, finding))
            result = finding.to_json(source=source_name, target=target_name)
            write_text(config.output / files["result.json"], json.dumps(result, indent=2) + "\n")
            entries.append(_entry(mark, finding, files))
            items.append(_item(mark, finding, files))

    summary = {
        "format": FORMAT,
        "version": VERSION,
        "package": __version__,
        "encoder": encoder.spec.name,
        "image_size": config.image_size,
        "landmarks": items,
    }
    write_text(config.output / "demo.json", json.dumps(summary, indent=2) + "\n")
    lead = (
        f"Marks on one photograph, looked for in another by {encoder.spec.name} (licence: {encoder.spec.licence}), "
        f"with a long side of {config.image_size} pixels. {_tally(items)}"
    )
    html = page(entries, lead=lead, notes=[TRUTH_NOTE, LICENCE_NOTE], colours=STATE_COLOURS)
    write_text(config.output / "index.html", html)
    emit(config, human=_report(config.output, entries, items), data={**summary, "output": str(config.output)})
    return 0


def _chosen(picture: Path, truths: list[dict[str, Any]], uuid: str | None) -> list[Known]:
    from patchatlas.io.landmarks import find_mark, marks_path, read_marks

    marks = read_marks(picture)
    if uuid is not None:
        find_mark(marks, uuid, path=marks_path(picture).name)
    known = []
    for number, truth in enumerate(truths, start=1):
        mark = find_mark(marks, truth["uuid"], path=marks_path(picture).name)
        place = truth["target_xy"]
        known.append(Known(number, truth["uuid"], truth["name"], mark.point, None if place is None else tuple(place)))
    return [mark for mark in known if uuid in (None, mark.uuid)]


def _entry(mark: Known, finding: "Finding", files: dict[str, str]) -> Entry:
    (x, y), (column, row) = finding.target_xy, finding.mel
    truth = "hidden" if mark.target_xy is None else "x {:.1f}, y {:.1f}".format(*mark.target_xy)
    facts = [
        ("place", f"x {x:.1f}, y {y:.1f} (pixel {column}, {row})"),
        ("truth", f"{truth}; {mark.compared(finding)}" if mark.target_xy else mark.compared(finding)),
        ("cosine", f"{finding.similarity:.3f}"),
        ("margin to the next best", f"{finding.margin:.3f}"),
        ("matches back to within", f"{finding.cycle_px:.1f} px"),
        ("spread", f"{finding.spread_px:.1f} px"),
    ]
    return Entry(
        number=mark.number,
        name=mark.name,
        uuid=mark.uuid,
        state=finding.state,
        reason=finding.reason,
        compared=mark.compared(finding),
        facts=facts,
        source_picture=files["source.jpg"],
        heatmap=files["heatmap.jpg"],
        result=files["result.json"],
    )


def _item(mark: Known, finding: "Finding", files: dict[str, str]) -> dict[str, Any]:
    return {
        "uuid": mark.uuid,
        "name": mark.name,
        "state": finding.state,
        "reason": finding.reason,
        "target_xy": list(finding.target_xy),
        "truth_xy": None if mark.target_xy is None else list(mark.target_xy),
        "error_px": mark.error_px(finding),
        "files": files,
    }


def _tally(items: list[dict[str, Any]]) -> str:
    """How many states are right and how far off the found places are, in one or two sentences."""
    errors = sorted(item["error_px"] for item in items if item["error_px"] is not None and item["state"] == "found")
    shown = sum(item["truth_xy"] is not None for item in items)
    hidden = [item["state"] for item in items if item["truth_xy"] is None]
    parts = []
    if shown:
        parts.append(f"{len(errors)} of {shown} visible landmarks found")
        if errors:
            parts[-1] += f", at most {errors[-1]:.1f} px from the true place"
    if hidden:
        parts.append(f"the hidden one is {', '.join(hidden)}")
    return f"{'; '.join(parts)}."


def _report(output: Path, entries: list[Entry], items: list[dict[str, Any]]) -> str:
    widest = max(len(entry.name) for entry in entries)
    lines = [
        f"{entry.number}  {entry.name:<{widest}}  {entry.state:<9}  {entry.compared}  {output / entry.heatmap}"
        for entry in entries
    ]
    return "\n".join([*lines, "", _tally(items), f"page: {output / 'index.html'}", f"results: {output / 'demo.json'}"])
