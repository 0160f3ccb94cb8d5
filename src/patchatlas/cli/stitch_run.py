"""Put the tiles of SCAN together on one canvas, check it, and write arrays, pictures and a report.

The folder holds object.npy, coverage.npy, residual.npy, pictures of each, orientation.png and report.json.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from patchatlas import __version__
from patchatlas.cli.console import emit
from patchatlas.cli.scan_options import TileOptions, load
from patchatlas.cli.threads import one_thread
from patchatlas.errors import InputError, UsageError

if TYPE_CHECKING:
    from numpy import ndarray
    from torch import Tensor

    from patchatlas.canvas.taps import Interpolation
    from patchatlas.io.scans.scan import Scan
    from patchatlas.stamp import Stamp
    from patchatlas.stitch.diagnosis.report import StitchReport
    from patchatlas.stitch.run import Stitched

logger = logging.getLogger(__name__)

WINDOWS = ("uniform", "hann", "hann3", "gaussian", "probe")
"""Names of windows; anything else is a file."""


class Config(TileOptions):
    """What `patchatlas stitch run` is asked to do."""

    output: Path
    """Folder to write to; made if it is not there. A former result in it is replaced, nothing else ever is."""
    interp: Literal["nearest", "linear", "bilinear", "cubic", "fourier"] = "linear"
    """How tiles are moved by parts of a pixel; bilinear is another word for linear."""
    window: str | None = None
    """Weight of a tile's pixels: uniform (the default), hann, hann3 (its cube; the default with --interp fourier, which
    rings without), gaussian, probe (its intensity, from SCAN), or an NPY file (h, w)."""
    compat: Literal["ptychopinn"] | None = None
    """Give the numbers of PtychoPINN's reassemble_position: square canvas about the mean position."""
    crop: Annotated[int, Field(gt=0)] = 20
    """With --compat: pixels of the middle of each tile that count (PtychoPINN's M)."""
    diagnose: Literal["warn", "error", "off"] = "warn"
    """Where the check finds something: say so, or write nothing and exit with 4, or do not check."""
    trace: Path | None = None
    """Append a line of JSON at each step to this file: shape, type, range, distinct rows, hash."""
    hdf5: bool = False
    """Also write all arrays into stitch.h5."""
    zarr: bool = False
    """For a canvas larger than memory: write canvas.zarr, band by band, in place of NPY arrays and full pictures."""
    memory: Annotated[int, Field(gt=0)] = 256
    """With --zarr: MiB that a band of the canvas and its tiles may take."""
    backend: Literal["auto", "torch", "numba"] = "auto"
    """What places tiles: compiled code (the numba extra), torch, or (auto) the former where it is there and can."""
    threads: Annotated[int, Field(gt=0)] = 1
    """Threads that place tiles, for canvases of many megapixels on idle cores; the result does not depend on it."""


def run(config: Config) -> int:
    """Read, place, check, draw, write.

    Raises:
        UsageError: options that do not go together, or facts of the scan that stay open.
        InputError: scan, tiles, window or output folder cannot be used.
    """
    from patchatlas.cli.main import BAD_INPUT, OK
    from patchatlas.cli.stitch_pictures import draw_maps, draw_orientations
    from patchatlas.cli.stitch_zarr import run_zarr
    from patchatlas.stitch.output import check_replaceable, write_stitch
    from patchatlas.stitch.positions import corners
    from patchatlas.stitch.run import check_compat, oriented_views, stitch, stitch_like_ptychopinn
    from patchatlas.stitch.trace import start_trace

    one_thread()
    interpolation = "linear" if config.interp == "bilinear" else config.interp
    weighting = config.window or ("hann3" if interpolation == "fourier" else "uniform")
    check_compat(config.compat, interpolation=interpolation, window=weighting)
    if config.zarr and (config.compat or config.hdf5):
        raise UsageError("--zarr goes with neither --compat nor --hdf5, which need the whole canvas in memory")
    if config.compat and (config.backend != "auto" or config.threads > 1):
        raise UsageError(f"--compat {config.compat} chooses its own way of summing; leave --backend and --threads out")
    check_replaceable(config.output.absolute())
    scan, tiles, files = load(config)
    size = (tiles.shape[2], tiles.shape[3])
    window, window_facts = load_window(weighting, scan, size)
    trace = start_trace(config.trace)
    positions = corners(scan, size)
    trace("stored positions", scan.positions, **{name: fact["value"] for name, fact in scan.facts().items()})
    trace("tiles", tiles)
    trace("corners", positions, order="xy", unit="px", anchor="corner")
    files |= window_facts
    stamp = stamp_of(config, scan, files, interpolation=interpolation, window=weighting)
    if config.zarr:
        return run_zarr(
            config,
            scan,
            tiles,
            positions,
            files,
            interpolation=interpolation,
            window=window,
            stamp=stamp,
            trace=trace,
        )
    if config.compat:
        stitched = stitch_like_ptychopinn(tiles, positions, crop=config.crop)
    else:
        stitched = stitch(
            tiles,
            positions,
            interpolation=interpolation,
            window=window,
            backend=config.backend,
            threads=config.threads,
        )
    trace("placed tiles", stitched.tiles, interpolation=interpolation, window=weighting, compat=config.compat)
    trace("placed corners", stitched.positions)
    trace("coverage", stitched.coverage, origin_xy=list(stitched.origin_xy))
    trace("canvas", stitched.values, origin_xy=list(stitched.origin_xy))
    found = None if config.diagnose == "off" else check(stitched, interpolation)
    report = describe(config, scan, files, stitched, stamp, found)
    lines = summarise(scan, stitched.tiles, tuple(stitched.coverage.shape), stitched.origin_xy, found)
    if found is not None and not found.ok and config.diagnose == "error":
        lines.append(f"nothing was written; --diagnose warn writes {config.output} all the same, to look at")
        emit(config, human="\n".join(lines), data={**report, "output": None})
        return BAD_INPUT
    pictures = draw_maps(
        stitched.values, stitched.coverage, stitched.covered, residual=stitched.misfit.map, lines=lines[:1]
    )
    pictures["orientation"] = draw_orientations(oriented_views(stitched.tiles, stitched.positions))
    report["pictures"] = [f"{name}.png" for name in pictures]
    write_stitch(config.output, arrays=arrays_of(stitched), pictures=pictures, report=report, with_hdf5=config.hdf5)
    if found is not None and not found.ok:
        logger.warning("%s: %s. %s", found.verdict, found.sentence, found.advice)
    touched, held = int((stitched.coverage > 0).sum()), int(stitched.covered.sum())
    if held < touched:
        lines.append(
            f"{touched - held} of {touched} pixels that tiles touch have no value ({config.interp} trusts a pixel only "
            "under strong windows): the rim, and holes where tiles lie far apart; see covered.npy, or take --interp "
            "linear"
        )
    lines.append(f"look at {config.output / 'overview.png'} and {config.output / 'orientation.png'}")
    emit(config, human="\n".join(lines), data={**report, "output": str(config.output)})
    return OK


def check(stitched: "Stitched", interpolation: "Interpolation") -> "StitchReport":
    """The diagnosis of tiles, positions and canvas."""
    from patchatlas.stitch.diagnosis.diagnose import diagnose
    from patchatlas.stitch.diagnosis.picture import Picture

    picture = Picture(
        values=stitched.values,
        coverage=stitched.coverage,
        origin=stitched.origin_xy,
        interpolation=interpolation,
        placed=len(stitched.tiles),
        window=stitched.window,
    )
    return diagnose(stitched.tiles, stitched.positions, picture)


def load_window(name: str, scan: "Scan", tile_hw: tuple[int, int]) -> "tuple[Tensor | None, dict[str, str]]":
    """The weights of a tile's pixels, and the SHA-256 of their file if there is one.

    Raises:
        UsageError: no such window, or the scan has no probe of the tiles' size.
        InputError: a file that is no map of the tiles' size, or holds weights that are negative, not finite or all 0.
    """
    import numpy as np
    import torch

    from patchatlas.canvas import windows
    from patchatlas.io.scans.archive import load_npy
    from patchatlas.io.scans.read import fingerprint

    if name == "uniform":
        return None, {}
    if name in ("hann", "hann3"):
        return windows.hann(tile_hw, power=3 if name == "hann3" else 1), {}
    if name == "gaussian":
        return windows.gaussian(tile_hw), {}
    if name == "probe":
        if scan.probe is None or scan.probe.shape[1:] != tile_hw:
            found = "none" if scan.probe is None else f"one of {scan.probe.shape[1:]}"
            raise UsageError(f"--window probe needs a probe of the tiles' size {tile_hw}; {scan.path} has {found}")
        # Modes do not interfere: the light on a pixel is the sum of their intensities.
        light = torch.from_numpy(np.square(np.abs(scan.probe), dtype=np.float64).sum(axis=0))
        return windows.probe_intensity(light.sqrt()).float(), {}
    path = Path(name)
    if path.suffix.lower() != ".npy":
        raise UsageError(f"there is no window {name!r}; windows are {', '.join(WINDOWS)}, or name an .npy file")
    _, digest = fingerprint(path)
    weights = load_npy(path)
    if weights.shape != tile_hw or weights.dtype.kind not in "fiu":
        raise InputError(f"{path} is {weights.dtype} {weights.shape}; a window is real, of the tiles' size {tile_hw}")
    window = torch.from_numpy(weights).float()
    if not (bool(((window >= 0) & window.isfinite()).all()) and bool((window > 0).any())):
        raise InputError(
            f"{path}: the weights of a window must be finite and not negative, and some above 0; they run from "
            f"{window.min():g} to {window.max():g}"
        )
    return window, {"window_sha256": digest}


def stamp_of(
    config: Config, scan: "Scan", files: dict[str, str], *, interpolation: "Interpolation", window: str
) -> "Stamp":
    """Everything that changes the numbers."""
    from patchatlas.stamp import Stamp, StampValue

    facts: dict[str, StampValue] = {
        **{name: value for name, value in files.items() if name.endswith("sha256")},
        "unit": scan.unit,
        "order": scan.order,
        "sign": scan.sign,
        "anchor": scan.anchor,
        "pixel_size": scan.pixel_size or (),
        "origin_px": scan.origin_px,
        "interpolation": interpolation,
        "window": "file" if "window_sha256" in files else window,
        "compat": config.compat or "none",
    }
    if config.compat:
        facts["crop"] = config.crop
    # Which numbers of the files were read, and how.
    columns = None if config.columns is None else ",".join(config.columns)
    said = {"columns": columns, "tiles_key": config.tiles_key, "channels_axis": config.channels_axis}
    facts |= {name: value for name, value in said.items() if value is not None}
    return Stamp(tuple(sorted(facts.items())))


def describe(
    config: Config,
    scan: "Scan",
    files: dict[str, str],
    stitched: "Stitched",
    stamp: "Stamp",
    found: "StitchReport | None",
) -> dict[str, Any]:
    """What goes into report.json."""
    held = stitched.coverage[stitched.covered]
    held = held if len(held) else held.new_zeros(1)  # a window so steep that cubic kernels leave no value anywhere
    return {
        "package": __version__,
        **describe_input(scan, files, stitched.tiles),
        "canvas": {"size_hw": list(stitched.coverage.shape), "origin_xy": list(stitched.origin_xy)},
        "coverage": {
            "covered_part": float(stitched.covered.float().mean()),
            "least": float(held.min()),
            "median": float(held.median()),
            "most": float(held.max()),
        },
        "arrays": {name: [array.dtype.name, list(array.shape)] for name, array in arrays_of(stitched).items()},
        "config": config.model_dump(mode="json", exclude={"format", "verbose", "threads"}),
        "stamp": {"facts": dict(stamp.facts), "digest": stamp.digest},
        "diagnosis": None if found is None else found.to_json(),
    }


def describe_input(scan: "Scan", files: dict[str, str], tiles: "Tensor") -> dict[str, Any]:
    """The part of report.json that is about what was read."""
    return {
        "scan": {"format": scan.format, "files": files, "facts": scan.facts(), "notes": list(scan.notes)},
        "tiles": {
            "count": len(tiles),
            "channels": tiles.shape[1],
            "size_hw": list(tiles.shape[2:]),
            "dtype": str(tiles.dtype).removeprefix("torch."),
        },
    }


def arrays_of(stitched: "Stitched") -> "dict[str, ndarray]":
    """The arrays that are written: one channel loses its axis."""
    values = stitched.values
    return {
        "object": (values[0] if len(values) == 1 else values).numpy(),
        "coverage": stitched.coverage.float().numpy(),
        "covered": stitched.covered.numpy(),
        "residual": stitched.misfit.map.float().numpy(),
        "positions": stitched.positions.numpy(),
    }


def summarise(
    scan: "Scan",
    tiles: "Tensor",
    canvas_hw: tuple[int, ...],
    origin_xy: tuple[float, float],
    found: "StitchReport | None",
) -> list[str]:
    """The result in lines for people."""
    h, w = canvas_hw
    x, y = origin_xy
    tile_h, tile_w = tiles.shape[2:]
    facts = ", ".join(f"{name} {getattr(scan, name)}" for name in ("unit", "order", "sign", "anchor"))
    lines = [
        f"{len(tiles)} {'tile' if len(tiles) == 1 else 'tiles'} of {tile_h} x {tile_w} on a canvas of {h} x {w} "
        f"(rows x columns) whose corner is object x {x:g}, y {y:g}",
        f"positions of {scan.path.name} ({scan.format}): {facts}",
        *(f"note: {note}" for note in scan.notes),
    ]
    if found is None:
        return [*lines, "not diagnosed"]
    lines.append(f"{found.verdict}: {found.sentence}")
    return [*lines, f"what to do: {found.advice}"] if found.advice else lines
