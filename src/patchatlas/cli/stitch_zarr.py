"""`stitch run --zarr`: the same job for a canvas that memory does not hold."""

import logging
from typing import TYPE_CHECKING, Any

from patchatlas import __version__
from patchatlas.cli.console import emit, progress

if TYPE_CHECKING:
    from torch import Tensor

    from patchatlas.canvas.taps import Interpolation
    from patchatlas.cli.stitch_run import Config
    from patchatlas.io.scans.scan import Scan
    from patchatlas.stamp import Stamp
    from patchatlas.stitch.diagnosis.report import StitchReport
    from patchatlas.stitch.large import Survey
    from patchatlas.stitch.trace import Trace

logger = logging.getLogger(__name__)

CANVAS = "canvas.zarr"


class _Refused(Exception):
    """The diagnosis found something and --diagnose is `error`: leave the folder, so that nothing stays."""


def run_zarr(
    config: "Config",
    scan: "Scan",
    tiles: "Tensor",
    positions: "Tensor",
    files: dict[str, str],
    *,
    interpolation: "Interpolation",
    window: "Tensor | None",
    stamp: "Stamp",
    trace: "Trace",
) -> int:
    """Place on disk, check, draw what is reduced, write.

    Raises:
        ResourceError: --memory does not hold one row and one tile.
        MissingExtraError: zarr is not installed.
    """
    from patchatlas.cli.main import BAD_INPUT, OK
    from patchatlas.cli.stitch_pictures import draw_maps, draw_orientations
    from patchatlas.cli.stitch_run import summarise
    from patchatlas.stitch.diagnosis.diagnose import diagnose
    from patchatlas.stitch.large import stitch_to_zarr, survey
    from patchatlas.stitch.output import fill_folder, replacing_result
    from patchatlas.stitch.run import oriented_views

    size = (tiles.shape[2], tiles.shape[3])
    try:
        with replacing_result(config.output) as folder:
            with progress() as bar:
                task = bar.add_task("placing", total=None)
                plan = stitch_to_zarr(
                    folder / CANVAS,
                    tiles,
                    positions,
                    interpolation=interpolation,
                    window=window,
                    stamp=stamp,
                    memory=config.memory << 20,
                    backend=config.backend,
                    threads=config.threads,
                    progress=lambda done, of: bar.update(task, completed=done, total=of),
                )
            seen = survey(folder / CANVAS, positions, size, interpolation=interpolation, window=window)
            origin = [float(plan.origin[1]), float(plan.origin[0])]
            trace("coverage, reduced", seen.coverage, origin_xy=origin, step=seen.step)
            trace("canvas, reduced", seen.values, origin_xy=origin, step=seen.step)
            found = None if config.diagnose == "off" else diagnose(tiles, positions, seen.part, box=seen.box)
            report = describe(config, scan, files, tiles, seen, stamp, found)
            lines = summarise(scan, tiles, plan.size, (origin[0], origin[1]), found)
            if found is not None and not found.ok and config.diagnose == "error":
                lines.append(f"nothing was written; --diagnose warn writes {config.output} all the same, to look at")
                raise _Refused
            shown = draw_maps(
                seen.values, seen.coverage, seen.covered, residual=None, lines=[*lines[:1], reduced(seen)]
            )
            pictures = {
                "overview": shown["overview"],
                "orientation": draw_orientations(oriented_views(tiles, positions)),
            }
            report["pictures"] = [f"{name}.png" for name in pictures]
            fill_folder(folder, arrays={"positions": positions.numpy()}, pictures=pictures, report=report)
    except _Refused:
        emit(config, human="\n".join(lines), data={**report, "output": None})
        return BAD_INPUT
    if found is not None and not found.ok:
        logger.warning("%s: %s. %s", found.verdict, found.sentence, found.advice)
    lines.append(f"look at {config.output / 'overview.png'} and {config.output / 'orientation.png'}")
    emit(config, human="\n".join(lines), data={**report, "output": str(config.output)})
    return OK


def reduced(seen: "Survey") -> str:
    """How much smaller the overview is."""
    return "every pixel is drawn" if seen.step == 1 else f"one pixel in {seen.step} is drawn along each axis"


def describe(
    config: "Config",
    scan: "Scan",
    files: dict[str, str],
    tiles: "Tensor",
    seen: "Survey",
    stamp: "Stamp",
    found: "StitchReport | None",
) -> dict[str, Any]:
    """What goes into report.json."""
    from patchatlas.cli.stitch_run import describe_input

    held = seen.coverage[seen.covered]
    return {
        "package": __version__,
        **describe_input(scan, files, tiles),
        "canvas": {"size_hw": list(seen.plan.size), "origin_xy": list(map(float, seen.plan.origin[::-1]))},
        "coverage": {
            "covered_part": seen.covered_part,
            "least": seen.least,
            "median": float(held.median()) if len(held) else 0.0,  # of the reduced canvas
            "most": seen.most,
        },
        "arrays": {"positions": ["float64", [len(tiles), 2]]},
        "zarr": CANVAS,
        "config": config.model_dump(mode="json", exclude={"format", "verbose", "threads"}),
        "stamp": {"facts": dict(stamp.facts), "digest": stamp.digest},
        "diagnosis": None if found is None else found.to_json(),
    }
