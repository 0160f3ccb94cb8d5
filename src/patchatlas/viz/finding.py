"""The picture of one landmark found (or not) in another photo: heatmap, cross, ellipse, rings, panel.

All points are in pixels of the photo that their name says; the drawing may be larger or smaller than the photo.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageDraw
from torch import Tensor

from patchatlas.arrays import ImageU8
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.grid import PatchGrid
from patchatlas.viz import marks
from patchatlas.viz.heatmap import Scale, draw_photo, overlay, view_of
from patchatlas.viz.panel import BACKGROUND, NARROWEST, STATE_COLOURS, CloseUp, font_of, panel, text_size

Point = tuple[float, float]
Covariance = tuple[tuple[float, float], tuple[float, float]]

SIGMAS = 2
"""Standard deviations that the ellipse encloses."""


def draw_finding(
    target: ImageU8,
    source: ImageU8,
    *,
    similarity_map: Float[Tensor, "rows cols"],
    grid: PatchGrid,
    scored: Bool[Tensor, "rows cols"] | None = None,
    source_xy: Point,
    target_xy: Point,
    covariance: Covariance,
    runners_up: Sequence[Point] = (),
    state: str,
    title: str,
    lines: Sequence[str],
    scale: Scale,
    scale_caption: str,
) -> ImageU8:
    """The target in grey under red, a green cross at the best place, an ellipse about it, rings at the others.

    Args:
        target: the photo that was searched.
        source: the photo with the mark.
        similarity_map: cosine of each patch of the target with the mark.
        grid: where those patches lie in the target.
        scored: patches that took part; nothing is drawn on the others.
        source_xy: the mark.
        target_xy: the best place. If it is not `found`, the cross bears the state's word.
        covariance: of that place, ((xx, xy), (xy, yy)) in square target pixels; drawn at `SIGMAS`, and never too small
            to be seen.
        runners_up: the next best places, best first; drawn as rings with their rank, from 2.
        state: `found`, `uncertain` or `absent`.
        title: whose landmark it is.
        lines: what is said below the state.
        scale: which cosine gets how much red.
        scale_caption: what the scale is.

    Returns:
        The drawing and below it a panel of the same width.
    """
    view = view_of((target.shape[0], target.shape[1]))
    picture = overlay(target, similarity_map, grid, view=view, scale=scale, scored=scored)
    em = text_size(max(picture.shape[:2]))

    for place in runners_up:
        marks.ring(picture, _in(view, place), 0.75 * em, width=max(1.5, em / 10))
    peak = _in(view, target_xy)
    zoom = np.diag([1 / float(view.scale[1]), 1 / float(view.scale[0])])
    shape = marks.at_least(SIGMAS**2 * zoom @ np.array(covariance) @ zoom, 0.9 * em)
    marks.ellipse(picture, peak, shape, width=max(1.5, em / 10))
    marks.cross(picture, peak, arm=round(1.4 * em), width=max(3, em // 5))
    picture = _written(picture, view, runners_up, peak, state, em)

    width = max(NARROWEST, picture.shape[1])
    below = panel(
        width,
        close_ups=[CloseUp(source, source_xy, "mark in source"), CloseUp(target, target_xy, "best in target")],
        state=state,
        title=title,
        lines=lines,
        scale=scale,
        scale_caption=scale_caption,
    )
    sheet = np.full((picture.shape[0] + below.shape[0], width, 3), BACKGROUND, dtype=np.uint8)
    left = (width - picture.shape[1]) // 2
    sheet[: picture.shape[0], left : left + picture.shape[1]] = picture
    sheet[picture.shape[0] :] = below
    return sheet


def draw_mark(source: ImageU8, xy: Point) -> ImageU8:
    """The source in its own colours with a green cross on its mark, drawn at the size that `draw_finding` draws at.

    Args:
        source: the photo with the mark.
        xy: the mark, in pixels of `source`.
    """
    view = view_of((source.shape[0], source.shape[1]))
    picture = draw_photo(source, view)
    em = text_size(max(picture.shape[:2]))
    marks.cross(picture, _in(view, xy), arm=round(1.8 * em), width=max(3, em // 5), gap=round(0.6 * em))
    return picture


def _in(view: Frame, xy: Point) -> Point:
    """A point of the photo as a point of the drawing."""
    x, y = view.from_source(torch.tensor([xy], dtype=torch.float64))[0].tolist()
    return x, y


def _written(picture: ImageU8, view: Frame, runners_up: Sequence[Point], peak: Point, state: str, em: int) -> ImageU8:
    """The picture with a number in each ring and, if there is room, the state's word at a cross that is not `found`."""
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    small, font = font_of(round(0.95 * em)), font_of(em)
    for rank, place in enumerate(runners_up, start=2):
        draw.text(
            _in(view, place),
            str(rank),
            font=small,
            fill=marks.WHITE,
            anchor="mm",
            stroke_width=2,
            stroke_fill=marks.RIM,
        )
    if state != "found":
        x, y = peak
        off, fill = 1.8 * em, STATE_COLOURS[state]
        needed = off + font.getlength(state)
        if x + needed < canvas.width:
            draw.text((x + off, y), state, font=font, fill=fill, anchor="lm", stroke_width=2, stroke_fill=marks.RIM)
        elif x > needed:
            draw.text((x - off, y), state, font=font, fill=fill, anchor="rm", stroke_width=2, stroke_fill=marks.RIM)
    return np.array(canvas)
