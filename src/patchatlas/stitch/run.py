"""The job: tiles and corners in; canvas, coverage, origin, misfit and the eight orientations out.

Axes: n tiles, c channels, h w pixels of a tile, rows cols pixels of the canvas. Positions are (x, y) of tile corners in
object pixels.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Complex, Float, Float64
from torch import Tensor

from patchatlas.canvas.canvas import Tiles
from patchatlas.canvas.compiled import Backend
from patchatlas.canvas.place import place
from patchatlas.canvas.plan import CanvasPlan, plan_canvas
from patchatlas.canvas.taps import Interpolation
from patchatlas.errors import ShapeError, UsageError
from patchatlas.stitch.compat import reassemble
from patchatlas.stitch.diagnosis.clusters import clusters
from patchatlas.stitch.diagnosis.orientation import Orientation, orientations
from patchatlas.stitch.diagnosis.overlap import overlap_residual
from patchatlas.stitch.misfit import Misfit, misfit
from patchatlas.stitch.threads import torch_threads

COMPARED = 128
"""Tiles whose overlaps are measured in each orientation, in four clusters; half a second for tiles of 64 x 64."""

SHOWN_PIXELS = 1 << 22
"""Pixels of tiles, and of the canvas, that are drawn in each orientation at most."""


@dataclass(frozen=True, eq=False)
class Stitched:
    """Tiles on one canvas.

    Attributes:
        values: real or complex; 0 where there is none.
        coverage: sum of the weights on each pixel.
        covered: pixels that have a value; not all where the parts of cubic and Fourier kernels cancel.
        misfit: how far tiles are from the canvas.
        origin_xy: object coordinate of the canvas's corner; whole unless PtychoPINN's frame was asked for.
        tiles: the part of the tiles that was placed.
        positions: their corners in the object.
        window: weight of each pixel of a tile.
    """

    values: Float[Tensor, "c rows cols"] | Complex[Tensor, "c rows cols"]
    coverage: Float[Tensor, "rows cols"]
    covered: Bool[Tensor, "rows cols"]
    misfit: Misfit
    origin_xy: tuple[float, float]
    tiles: Tiles
    positions: Float64[Tensor, "n 2"]
    window: Float[Tensor, "h w"] | None = None


@dataclass(frozen=True, eq=False)
class OrientedView:
    """What one orientation of the positions gives.

    Attributes:
        orientation: how positions were read.
        residual: disagreement of tiles where they overlap; NaN where none do.
        values: the canvas.
        covered: where tiles lie.
    """

    orientation: Orientation
    residual: float
    values: Float[Tensor, "c rows cols"] | Complex[Tensor, "c rows cols"]
    covered: Bool[Tensor, "rows cols"]


def stitch(
    tiles: Tiles,
    positions: Float64[Tensor, "n 2"],
    *,
    interpolation: Interpolation = "linear",
    window: Float[Tensor, "h w"] | None = None,
    backend: Backend = "auto",
    threads: int = 1,
) -> Stitched:
    """Place tiles on the smallest rectangle of whole object pixels that holds them.

    Args:
        tiles: real or complex.
        positions: of their corners.
        interpolation: how tiles are moved by parts of a pixel.
        window: weight of each pixel of a tile.
        backend: what does the work, see `patchatlas.canvas.canvas.Canvas`.
        threads: that place; the bits of the result do not depend on it.

    Raises:
        ShapeError: counts or sizes that do not fit.
        InputError: no tiles, or positions that are not finite.
        ResourceError: the canvas does not fit into memory.
    """
    plan = plan_canvas(positions, tiles.shape[2:], interpolation=interpolation)
    with torch_threads(threads):
        canvas = place(tiles, positions, interpolation=interpolation, window=window, plan=plan, backend=backend)
        values = canvas.value()
    row, column = plan.origin
    return Stitched(
        values=values,
        coverage=canvas.coverage,
        covered=canvas.covered,
        misfit=misfit(tiles, positions, canvas, window=window),
        origin_xy=(float(column), float(row)),
        tiles=tiles,
        positions=positions,
        window=window,
    )


def stitch_like_ptychopinn(tiles: Tiles, positions: Float64[Tensor, "n 2"], *, crop: int = 20) -> Stitched:
    """Place tiles as PtychoPINN's `reassemble_position` does, see `patchatlas.stitch.compat`.

    Args:
        tiles: square, one channel.
        positions: of the corners of the whole tiles.
        crop: M, how much of the middle of each tile counts.

    Raises:
        ShapeError: several channels, tiles that are not square, or a crop that does not fit.
    """
    if tiles.shape[1] != 1:
        raise ShapeError(
            f"PtychoPINN's frame has one channel, the tiles have {tiles.shape[1]}; stitch without --compat"
        )
    side = tiles.shape[-1]
    made = reassemble(tiles[:, 0].to(torch.complex64), positions + side // 2, crop=crop)
    start = side // 2 - crop // 2
    middle = tiles[:, :, start : start + crop, start : start + crop].to(torch.complex64)
    corners = positions + start
    in_canvas = corners - torch.tensor(made.origin_xy, dtype=torch.float64)
    size = (made.value.shape[0], made.value.shape[1])
    canvas = place(middle, in_canvas, plan=CanvasPlan((0, 0), size), crop=True)
    return Stitched(
        values=made.value[None],
        coverage=made.ones,
        covered=made.ones > 0,
        misfit=misfit(middle, in_canvas, canvas),
        origin_xy=made.origin_xy,
        tiles=middle,
        positions=corners,
    )


def oriented_views(tiles: Tiles, positions: Float64[Tensor, "n 2"]) -> list[OrientedView]:
    """The canvas and the residual of all eight orientations, as given first.

    Residuals are measured on clusters of neighbours, canvases drawn of all tiles or, of many, of every k-th. Of a large
    canvas the neighbours in its middle are drawn.
    """
    groups = clusters(positions, tiles.shape[2:], limit=COMPARED, count=4)
    many = tiles.shape[0] * tiles.shape[2] * tiles.shape[3]
    shown = torch.arange(0, len(tiles), max(1, -(-many // SHOWN_PIXELS)))
    if plan_canvas(positions, tiles.shape[2:]).pixels > SHOWN_PIXELS:
        shown = groups[0]
    views = []
    for way in orientations(2):
        turned = way(positions)
        canvas = place(tiles[shown, :1], turned[shown])
        views.append(OrientedView(way, overlap_residual(tiles, turned, groups), canvas.value(), canvas.covered))
    return views


def check_compat(name: str | None, *, interpolation: Interpolation, window: str) -> None:
    """Refuse options that PtychoPINN's frame does not have.

    Raises:
        UsageError: it comes with another interpolation or a window.
    """
    if name is not None and (interpolation != "linear" or window != "uniform"):
        raise UsageError(
            f"--compat {name} is linear and uniform by its rule; given --interp {interpolation} and --window {window}"
        )
