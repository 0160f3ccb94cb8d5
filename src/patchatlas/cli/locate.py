"""Find a point that is marked in SOURCE in TARGET: writes a heatmap picture, and the numbers as JSON.

Reads the mark UUID from SOURCE's mel file (photo.jpg.json beside photo.jpg), never TARGET's. Several SOURCEs vote:
those that agree are averaged, one that does not is named and left out. Without weights at hand,
`--encoder bundled:sift` works at once.
"""

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from pydantic import Field

from patchatlas.cli.console import Output, emit
from patchatlas.errors import InputError, LandmarkError, UsageError
from patchatlas.files import replacing

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")


class Config(Output):
    """What `patchatlas locate` is asked to do."""

    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUTPUT")]
    """Heatmap picture to write: .jpg, .jpeg or .png. A file of that name is replaced."""
    target: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="TARGET")]
    """Picture to search."""
    uuid: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="UUID")]
    """Mark to look for, by its uuid in SOURCE's mel file; with --mark, only a label."""
    source: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="SOURCE")]
    """Picture with the mark; give several to let them vote."""
    encoder: Annotated[str | None, tyro.conf.arg(metavar="NAME|PATH")] = None
    """Weights file or folder, hub id, catalogue name or bundled:sift."""
    dino_size: Literal["small", "base", "large"] | None = None
    """DINOv3 of that size from the catalogue, in place of --encoder; base if neither is given."""
    image_size: Annotated[int, Field(gt=0)] = 896
    """Long side of both pictures as the encoder sees them, a multiple of its patch."""
    json_file: Annotated[Path | None, tyro.conf.arg(name="json", metavar="PATH")] = None
    """Write the result as JSON here, too."""
    mark: Annotated[str | None, tyro.conf.arg(metavar="X,Y")] = None
    """The marked point itself, "x,y" in pixels of the upright SOURCE, (0.5, 0.5) being the centre of the first pixel;
    no mel file is then read."""
    max_pixels: Annotated[int | None, Field(gt=0)] = None
    """Largest picture that is read, rows times columns; 89478485 if not given. More needs more memory."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the encoder; auto takes bf16 where the hardware has it."""


def run(config: Config) -> int:
    """Check what can be checked at once, then encode, decide, draw, and write at the very end.

    Raises:
        UsageError: options that contradict each other, or files that must not be written.
        InputError: pictures, marks or folders that cannot be used.
        WeightsError: the encoder cannot be had.
    """
    _check_options(config)
    given = None if config.mark is None else _parse_point(config.mark)

    from patchatlas.io.images import MAX_PIXELS, read_image, write_image

    limit = config.max_pixels or MAX_PIXELS
    target, *sources = (read_image(path, max_pixels=limit) for path in (config.target, *config.source))
    points = [
        _point_in(source.shape[:2], path, config.uuid, given)
        for source, path in zip(sources, config.source, strict=True)
    ]

    from patchatlas.cli.pictures import draw
    from patchatlas.encoders.catalogue import DINO_SIZES
    from patchatlas.encoders.loading import load_encoder
    from patchatlas.locate.pair import locate_pairs

    name = config.encoder or DINO_SIZES[config.dino_size or "base"]
    encoder = load_encoder(name, device=config.device, dtype=config.dtype)
    views = [path.name for path in config.source]
    found = locate_pairs(sources, target, points, encoder, views=views, uuid=config.uuid, image_size=config.image_size)
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
    if config.encoder is not None and config.dino_size is not None:
        raise UsageError("give either --encoder or --dino-size, not both")
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
    pictures = [config.target.resolve(), *sources]
    for what, path in (("OUTPUT", config.output), ("--json", config.json_file)):
        if path is None:
            continue
        named = path.resolve()
        beside = [p for p in pictures if named.parent == p.parent and named.name.startswith(f"{p.name}.")]
        if named in pictures or (beside and named.suffix == ".json"):  # photo.jpg.json, photo.jpg.STEM.json
            raise UsageError(f"{what} {path} would overwrite a picture or its marks; choose another name")
        if not path.parent.is_dir():
            raise InputError(f"cannot write {what} {path}: the folder {path.parent} does not exist; create it first")
        if path.is_dir():
            raise InputError(f"cannot write {what} {path}: it is a folder; name a file")
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
            *_votes(data),
            f"written: {', '.join(written)}",
        ]
    )
