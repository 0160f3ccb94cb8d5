"""The job for canvases that memory does not hold: placed band by band on disk, and looked at in parts.

Axes: n tiles, c channels, h w pixels of a tile, rows cols pixels of what is looked at. Positions are (x, y) of tile
corners in object pixels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float, Float64
from torch import Tensor

from patchatlas.canvas.canvas import Tiles
from patchatlas.canvas.compiled import Backend
from patchatlas.canvas.outofcore import place_to_zarr
from patchatlas.canvas.plan import CanvasPlan
from patchatlas.canvas.store import open_zarr
from patchatlas.canvas.taps import Interpolation
from patchatlas.errors import FormatError
from patchatlas.stamp import Stamp
from patchatlas.stitch.diagnosis.box import Box, compare_boxes
from patchatlas.stitch.diagnosis.picture import Picture
from patchatlas.stitch.threads import torch_threads

SHOWN_SIDE = 1024
"""Pixels along a side of the reduced canvas and of the part that is compared with its tiles, at most."""


@dataclass(frozen=True, eq=False)
class Survey:
    """What reading a canvas on disk once gives.

    Attributes:
        plan: where it lies in the object.
        box: the lit box of all of it beside the one that positions predict.
        part: a window about the middle of the scan in full resolution.
        values: every `step`-th pixel of the canvas.
        coverage: of these pixels.
        covered: which of these pixels have a value, see `patchatlas.canvas.canvas.Canvas.covered`.
        step: see `values`.
        least: smallest coverage of a covered pixel, of all pixels.
        most: largest.
        covered_part: covered pixels over all.
    """

    plan: CanvasPlan
    box: Box
    part: Picture
    values: Float[Tensor, "c rows cols"] | Complex[Tensor, "c rows cols"]
    coverage: Float[Tensor, "rows cols"]
    covered: Bool[Tensor, "rows cols"]
    step: int
    least: float
    most: float
    covered_part: float


def stitch_to_zarr(
    path: Path,
    tiles: Tiles,
    positions: Float64[Tensor, "n 2"],
    *,
    interpolation: Interpolation = "linear",
    window: Float[Tensor, "h w"] | None = None,
    stamp: Stamp,
    memory: int,
    backend: Backend = "auto",
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> CanvasPlan:
    """Place tiles as `patchatlas.stitch.run.stitch` does, on a canvas in a zarr group that carries its stamp.

    Args:
        path: the group to make; see `patchatlas.canvas.store` for what is in it.
        tiles: real or complex; may be mapped from a file, of which then only what a band needs is read.
        positions: of their corners.
        interpolation: how tiles are moved by parts of a pixel.
        window: weight of each pixel of a tile.
        stamp: of the job; that of the group has its facts and more.
        memory: bytes that a band and its tiles may take.
        backend: what does the work, see `patchatlas.canvas.canvas.Canvas`.
        threads: that place; the bits of the result do not depend on it.
        progress: called with the number of bands done and of all after each.

    Raises:
        ResourceError: `memory` does not hold one row and one tile.
        MissingExtraError: zarr is not installed.
    """
    real = torch.float64 if tiles.dtype in (torch.float64, torch.complex128) else torch.float32
    with torch_threads(threads):
        return place_to_zarr(
            path,
            tiles.__getitem__,
            positions,
            tiles.shape[2:],
            channels=tiles.shape[1],
            dtype=real.to_complex() if tiles.is_complex() else real,
            interpolation=interpolation,
            window=window,
            memory=memory,
            backend=backend,
            stamp=stamp,
            progress=progress,
        )


def survey(
    path: Path,
    positions: Float64[Tensor, "n 2"],
    tile_hw: tuple[int, int],
    *,
    interpolation: Interpolation = "linear",
    window: Float[Tensor, "h w"] | None = None,
) -> Survey:
    """Read a canvas on disk once, a row of chunks at a time.

    Args:
        path: the group.
        positions: of the tiles' corners.
        tile_hw: rows and columns of a tile.
        interpolation: how they were placed.
        window: with which they were placed.

    Raises:
        FormatError: a group that does not say which pixels have a value.
    """
    group, plan, _ = open_zarr(path)
    if "covered" not in group:
        raise FormatError(f"{path} has no array `covered`; stitch it again with this version")
    values, coverage, has_value = group["value"], group["coverage"], group["covered"]
    rows, columns = plan.size
    step = max(1, math.ceil(max(plan.size) / SHOWN_SIDE))
    thin, thin_coverage, thin_covered = [], [], []
    lit_rows, lit_columns = np.zeros(rows, dtype=bool), np.zeros(columns, dtype=bool)
    least, most, covered = math.inf, 0.0, 0
    for top in range(0, rows, coverage.chunks[0]):
        bottom = min(top + coverage.chunks[0], rows)
        band, with_value = coverage[top:bottom], has_value[top:bottom]
        lit = band > 0
        lit_rows[top:bottom], lit_columns = lit.any(axis=1), lit_columns | lit.any(axis=0)
        if with_value.any():
            held = band[with_value]
            least, most = min(least, float(held.min())), max(most, float(held.max()))
            covered += held.size
        first = -top % step
        # Copies: a view would keep the whole band.
        thin_coverage.append(band[first::step, ::step].copy())
        thin_covered.append(with_value[first::step, ::step].copy())
        thin.append(values[:, top:bottom][:, first::step, ::step].copy())
    lit_box = None
    if lit_rows.any():
        y, x = np.flatnonzero(lit_rows), np.flatnonzero(lit_columns)
        lit_box = (int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1)
    origin = (float(plan.origin[1]), float(plan.origin[0]))
    low_row, low_column = (
        int(min(max(0, middle - SHOWN_SIDE // 2), max(0, side - SHOWN_SIDE)))
        for middle, side in zip(
            (positions.median(dim=0).values - torch.tensor(origin, dtype=torch.float64)).flip(0).tolist(),
            plan.size,
            strict=True,
        )
    )
    shown = slice(low_row, low_row + SHOWN_SIDE), slice(low_column, low_column + SHOWN_SIDE)
    return Survey(
        plan=plan,
        box=compare_boxes(
            lit_box, positions, tile_hw, size=(columns, rows), origin=origin, from_coverage=True, limits=None
        ),
        part=Picture(
            values=torch.from_numpy(values[:, *shown]),
            coverage=torch.from_numpy(coverage[shown]),
            origin=(origin[0] + low_column, origin[1] + low_row),
            interpolation=interpolation,
            window=window,
        ),
        values=torch.from_numpy(np.concatenate(thin, axis=1)),
        coverage=torch.from_numpy(np.concatenate(thin_coverage)),
        covered=torch.from_numpy(np.concatenate(thin_covered)),
        step=step,
        least=least if covered else 0.0,
        most=most,
        covered_part=covered / plan.pixels,
    )
