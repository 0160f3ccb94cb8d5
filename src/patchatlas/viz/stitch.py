"""Pictures of a stitched canvas: amplitude, phase, coverage, residual, and the eight orientations side by side.

Every picture carries its scale in numbers. What no tile covers has a colour that no value has.

Axes: h w pixels of the canvas.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from PIL import Image, ImageDraw

from patchatlas.arrays import ImageU8
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.rounding import round_half_up
from patchatlas.viz.heatmap import draw_photo
from patchatlas.viz.marks import Colour
from patchatlas.viz.panel import BACKGROUND, FAINT, NARROWEST, TEXT, font_of, text_size

Plane = Float[ndarray, "h w"]

UNCOVERED: Colour = (62, 66, 78)
"""Where no tile lies."""

GREYS: tuple[Colour, ...] = ((0, 0, 0), (255, 255, 255))
"""Amplitude and real values: from low to high."""

DIVERGING: tuple[Colour, ...] = ((20, 60, 140), (120, 170, 225), (245, 245, 245), (230, 150, 110), (140, 30, 30))
"""Phase: blue below zero, white at it, red above, alike in lightness on both sides."""

CYCLIC: tuple[Colour, ...] = ((245, 245, 245), (120, 170, 225), (30, 25, 60), (230, 150, 110), (245, 245, 245))
"""Phase that goes all round: the two ends are one colour."""

HEAT: tuple[Colour, ...] = ((8, 10, 40), (90, 30, 110), (200, 65, 75), (250, 160, 60), (252, 250, 190))
"""Coverage and residual: lighter is more."""

CHOSEN: Colour = (0, 190, 140)
"""Frame about the orientation that was used."""

_CLIPPED = (0.5, 99.5)  # per cent of the values between black and white


@dataclass(frozen=True)
class Bar:
    """Colours from `low` to `high`.

    Attributes:
        low, high: values at the ends.
        colours: at equal steps from low to high, straight lines between them.
        caption: what the numbers are; short.
    """

    low: float
    high: float
    colours: tuple[Colour, ...]
    caption: str

    def paint(self, values: Plane) -> ImageU8:
        """The colours of values; beyond the ends those of the ends."""
        span = self.high - self.low if self.high > self.low else 1.0
        at = np.clip((values - self.low) / span, 0, 1) * (len(self.colours) - 1)
        steps = np.arange(len(self.colours))
        channels = [np.interp(at, steps, [colour[c] for colour in self.colours]) for c in range(3)]
        picture: ImageU8 = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
        return picture


def value_bar(values: Plane, covered: Bool[ndarray, "h w"]) -> Bar:
    """Greys over the middle 99 per cent of the covered values."""
    shown = values[covered]
    low, high = np.percentile(shown, _CLIPPED) if shown.size else (0.0, 1.0)
    return Bar(float(low), float(high), GREYS, "middle 99 % of the values")


def phase_bar(phase: Plane, covered: Bool[ndarray, "h w"]) -> Bar:
    """Zero in the middle: out to the largest phase, or all round where phases reach beyond half of it."""
    most = float(np.percentile(np.abs(phase[covered]), _CLIPPED[1])) if covered.any() else 1.0
    if most > math.pi / 2:
        return Bar(-math.pi, math.pi, CYCLIC, "rad, all round")
    return Bar(-most, most, DIVERGING, "rad")


def coverage_bar(coverage: Plane) -> Bar:
    """From nothing to the largest coverage."""
    return Bar(0.0, float(coverage.max()), HEAT, "sum of the weights of the tiles on a pixel")


RESIDUAL_BAR = Bar(0.0, 1.0, HEAT, "0: all tiles agree, 1: nothing in common")


@dataclass(frozen=True, eq=False)
class Map:
    """One thing to show of a canvas.

    Attributes:
        name: of it, short.
        values: one a pixel.
        covered: pixels that have one.
        bar: their colours.
    """

    name: str
    values: Plane
    covered: Bool[ndarray, "h w"]
    bar: Bar

    def paint(self) -> ImageU8:
        """One pixel of colour a pixel of the canvas, and nothing else: to measure in."""
        painted = self.bar.paint(np.where(self.covered, self.values, self.bar.low))
        painted[~self.covered] = UNCOVERED
        return painted


def overview(maps: Sequence[Map], *, lines: Sequence[str], side: int = 440) -> ImageU8:
    """Maps side by side, two in a row, each with its scale in numbers, and text below: to look at.

    Args:
        maps: of one canvas.
        lines: what is to be said.
        side: pixels of the long side of each.
    """
    drawn = [_scaled(one.paint(), side) for one in maps]
    width = max(picture.shape[1] for picture in drawn)
    width = max(width, NARROWEST // 2)
    em = text_size(2 * width)
    gap, line = em, round(1.5 * em)
    cell = max(picture.shape[0] for picture in drawn) + 6 * em
    rows = -(-len(maps) // 2)
    size = (2 * width + 3 * gap, rows * (cell + gap) + gap + len(lines) * line)
    sheet = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for n, (one, picture) in enumerate(zip(maps, drawn, strict=True)):
        x, y = gap + n % 2 * (width + gap), gap + n // 2 * (cell + gap)
        draw.text((x, y + em), one.name, font=font_of(round(1.2 * em)), fill=TEXT, anchor="ls")
        sheet.paste(Image.fromarray(picture), (x, y + line))
        _scale(sheet, draw, (x, y + line + picture.shape[0] + em // 2), min(width, 24 * em), em, one.bar)
    for n, text in enumerate(lines):
        draw.text((gap, size[1] - gap - (len(lines) - 1 - n) * line), text, font=font_of(em), fill=FAINT, anchor="ls")
    return np.array(sheet)


def _scale(sheet: Image.Image, draw: ImageDraw.ImageDraw, at: tuple[int, int], length: int, em: int, bar: Bar) -> None:
    """The colours from low to high with three numbers and what they are."""
    x, y = at
    font = font_of(round(0.9 * em))
    ramp = bar.paint(np.linspace(bar.low, bar.high, length)[None].repeat(em, axis=0))
    sheet.paste(Image.fromarray(ramp), (x, y))
    for n in range(3):
        value = bar.low + n * (bar.high - bar.low) / 2
        draw.text(
            (x + n * (length - 1) // 2, y + em + 3), f"{value:.3g}", font=font, fill=FAINT, anchor=("la", "ma", "ra")[n]
        )
    draw.text((x, y + round(3.4 * em)), bar.caption, font=font, fill=FAINT, anchor="ls")


def _scaled(picture: ImageU8, side: int) -> ImageU8:
    """A picture with a long side of so many pixels."""
    h, w = picture.shape[:2]
    factor = Fraction(side, max(h, w))
    return draw_photo(picture, Frame.whole((h, w)).resize([max(1, round_half_up(n * factor)) for n in (h, w)]))


@dataclass(frozen=True, eq=False)
class View:
    """The canvas that one orientation of the positions gives.

    Attributes:
        name: of the orientation.
        values: real, what to show.
        covered: where tiles lie.
        residual: of the tiles against this canvas; NaN where no two overlap.
        used: whether the positions were used so.
    """

    name: str
    values: Plane
    covered: Bool[ndarray, "h w"]
    residual: float
    used: bool


def contact_sheet(views: Sequence[View], *, title: str, side: int = 260) -> ImageU8:
    """Canvases side by side, four in a row, each with its name and residual; the used one has a frame."""
    em = text_size(4 * side)
    line, gap = round(1.5 * em), em
    columns = min(4, len(views))
    rows = -(-len(views) // columns)
    cell = side + 2 * line + gap
    size = (columns * (side + gap) + gap, rows * cell + gap + 2 * line)
    sheet = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((gap, gap + line), title, font=font_of(round(1.2 * em)), fill=TEXT, anchor="ls")
    known = [view for view in views if not math.isnan(view.residual)]
    best = min(known, key=lambda view: view.residual) if known else None
    for n, view in enumerate(views):
        x, y = gap + n % columns * (side + gap), gap + 2 * line + n // columns * cell
        bar = value_bar(view.values, view.covered)
        shown = Image.fromarray(_scaled(Map(view.name, view.values, view.covered, bar).paint(), side))
        sheet.paste(shown, (x + (side - shown.width) // 2, y + (side - shown.height) // 2))
        if view.used:
            draw.rectangle((x - 3, y - 3, x + side + 2, y + side + 2), outline=CHOSEN, width=3)
        name = f"{view.name} (used)" if view.used else view.name
        draw.text((x, y + side + line), name, font=font_of(em), fill=CHOSEN if view.used else TEXT, anchor="ls")
        lowest = ", the least" if view is best else ""
        told = "no two tiles overlap" if math.isnan(view.residual) else f"residual {view.residual:.4f}{lowest}"
        draw.text((x, y + side + 2 * line - em // 4), told, font=font_of(round(0.9 * em)), fill=FAINT, anchor="ls")
    return np.array(sheet)
