"""Find a point that is marked in SOURCE in TARGET: writes a heatmap picture, and the numbers as JSON.

Reads the mark UUID from SOURCE's mel file (photo.jpg.json beside photo.jpg), never TARGET's. Several SOURCEs vote:
those that agree are averaged, one that does not is named and left out. A mask beside a picture, photo.jpg.mask.png, is
heeded. Without weights at hand, `--encoder bundled:sift` or `bundled:vit-tiny16` works at once.
"""

import json
import math
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import Field

from patchatlas.cli.console import emit
from patchatlas.cli.outputs import require_free
from patchatlas.cli.search_options import SearchOptions
from patchatlas.errors import LandmarkError, UsageError
from patchatlas.files import replacing

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")


class Config(SearchOptions):
    """What `patchatlas locate` is asked to do."""

    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUTPUT")]
    """Heatmap picture to write: .jpg, .jpeg or .png. A file of that name is replaced."""
    target: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="TARGET")]
    """Picture to search."""
    uuid: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="UUID")]
    """Mark to look for, by its uuid in SOURCE's mel file; with --mark, only a label."""
    source: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="SOURCE")]
    """Picture with the mark; give several to let them vote."""
    json_file: Annotated[Path | None, tyro.conf.arg(name="json", metavar="PATH")] = None
    """Write the result as JSON here, too."""
    mark: Annotated[str | None, tyro.conf.arg(metavar="X,Y")] = None
    """The marked point itself, "x,y" in pixels of the upright SOURCE, (0.5, 0.5) being the centre of the first pixel;
    no mel file is then read."""
    max_pixels: Annotated[int | None, Field(gt=0)] = None
    """Largest picture that is read, rows times columns; 89478485 if not given. More needs more memory."""


def run(config: Config) -> int:
    """Check what can be checked at once, then encode, decide, draw, and write at the very end.

    Raises:
        UsageError: options that contradict each other, or files that must not be written.
        InputError: pictures, marks or folders that cannot be used.
        WeightsError: the encoder cannot be had.
    """
    _check_options(config)
    given = None if config.mark is None else _parse_point(config.mark)
    recipe = config.recipe()

    from patchatlas.io.images import MAX_PIXELS, read_image, write_image

    limit = config.max_pixels or MAX_PIXELS
    target, *sources = (read_image(path, max_pixels=limit) for path in (config.target, *config.source))
    points = [
        _point_in(source.shape[:2], path, config.uuid, given)
        for source, path in zip(sources, config.source, strict=True)
    ]

    from patchatlas.cli.pictures import draw
    from patchatlas.io.masks import read_mask
    from patchatlas.locate.pair import locate_pairs

    target_mask, *source_masks = (
        read_mask(path, size_hw=image.shape[:2], max_pixels=limit) if config.masks else None
        for path, image in zip((config.target, *config.source), (target, *sources), strict=True)
    )
    encoder = config.load()
    found = locate_pairs(
        sources,
        target,
        points,
        encoder,
        views=[path.name for path in config.source],
        uuid=config.uuid,
        recipe=recipe,
        source_masks=source_masks,
        target_mask=target_mask,
    )
    data = found.to_json(target=config.target.name)
    picture = draw(target, sources[found.best], found.finding)
    if config.json_file is None:
        write_image(config.output, picture)
    else:
        with replacing(config.json_file) as unnamed:  # gets its name only when the picture has got its own
            unnamed.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n", encoding="utf-8")
            write_image(config.output, picture)
    emit(config, human=_summary(config, data), data=data)
    return 0


def _check_options(config: Config) -> None:
    if config.output.suffix.lower() not in PICTURE_SUFFIXES:
        raise UsageError(f"OUTPUT {config.output} ends in {config.output.suffix!r}; use {', '.join(PICTURE_SUFFIXES)}")
    if not config.source:
        raise UsageError("no SOURCE was named; give at least one picture with the mark")
    if config.mark is not None and len(config.source) > 1:
        raise UsageError(
            f"--mark names a point of one SOURCE, {len(config.source)} were given; use mel files for several"
        )
    sources = [source.resolve() for source in config.source]
    if doubled := [source for n, source in enumerate(sources) if source in sources[:n]]:
        raise UsageError(f"SOURCE {doubled[0]} is given twice; each picture has one vote")
    for what, path in (("OUTPUT", config.output), ("--json", config.json_file)):
        if path is not None:
            require_free(what, path, inputs=(config.target, *config.source))
    if config.json_file is not None and config.json_file.resolve() == config.output.resolve():
        raise UsageError(f"--json {config.json_file} is OUTPUT itself; give the two different names")


def _parse_point(text: str) -> tuple[float, float]:
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        x = y = math.nan
    if not (math.isfinite(x) and math.isfinite(y)):
        raise UsageError(f'--mark {text!r} is no point; give two numbers, such as --mark "812.5,433.5"')
    return x, y


def _point_in(
    size_hw: tuple[int, ...], source: Path, uuid: str, given: tuple[float, float] | None
) -> tuple[float, float]:
    """The marked point of one source.

    Raises:
        LandmarkError: it is outside the source, or no mark or several have the uuid.
    """
    from patchatlas.io.landmarks import continuous_point, find_mark, marks_path, mel_point, read_marks

    rows, columns = size_hw
    if given is not None:
        mel_point(*given, size_hw=(rows, columns))
        return given
    file = marks_path(source)
    mark = find_mark(read_marks(source), uuid, path=file)
    if not (0 <= mark.x < columns and 0 <= mark.y < rows):
        raise LandmarkError(
            f"the mark {uuid!r} in {file} is at x {mark.x}, y {mark.y}, outside the picture of {columns} x "
            f"{rows} pixels; is the file that of another picture, or of one that was not turned upright?"
        )
    return continuous_point(mark.x, mark.y)


def _votes(data: dict[str, Any]) -> list[str]:
    """A line a view, if there are several."""
    if len(data["views"]) < 2:
        return []
    width = max(len(vote["view"]) for vote in data["views"])
    return [
        f"  {vote['view']:<{width}}  {vote['state']:9s}  {vote['error_px']:6.1f} px from where the others meet"
        f"{'' if vote['agrees'] else '; left out'}"
        for vote in data["views"]
    ]


def _summary(config: Config, data: dict[str, Any]) -> str:
    """The result in a few lines; `data` is what `ViewsFinding.to_json` gives."""
    x, y = data["target_xy"]
    column, row = data["mel"]
    written = [str(path) for path in (config.output, config.json_file) if path is not None]
    return "\n".join(
        [
            f"{data['state']}: {data['reason']}",
            f"{data['uuid']}: x {x:.1f}, y {y:.1f} in {config.target} (mel: {column}, {row}); "
            f"the peak is {data['spread_px']:.1f} px wide (1 sigma)",
            f"similarity {data['similarity']:.3f}, margin {data['margin']:.3f}, cycle {data['cycle_px']:.1f} px, "
            f"encoder {data['encoder']['name']}",
            *([] if data["turn"] == "upright" else [f"{data['source']} matches best turned: {data['turn']}"]),
            *_votes(data),
            f"written: {', '.join(written)}",
        ]
    )
