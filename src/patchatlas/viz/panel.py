"""The strip below a heatmap: the marked place and the found one side by side, the state in words, numbers, the scale.

Text is set in the font that Pillow ships.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from patchatlas.arrays import ImageU8
from patchatlas.geometry.frame import Frame
from patchatlas.viz.heatmap import RED, Scale, draw_photo
from patchatlas.viz.marks import Colour, cross

BACKGROUND: Colour = (24, 26, 31)
TEXT: Colour = (236, 238, 242)
FAINT: Colour = (168, 174, 186)

STATE_COLOURS: dict[str, Colour] = {"found": (0, 190, 140), "uncertain": (240, 180, 20), "absent": (204, 140, 190)}
"""After Okabe and Ito (Color Universal Design, 2008): told apart with any colour vision, and no red among them."""

NARROWEST = 720
"""Least width of a panel, pixels, so that its text has room."""

_CLOSE_UP = 14  # a close-up shows this part of the picture's long side


@dataclass(frozen=True)
class CloseUp:
    """A square cut from a photo about a point, in the photo's own colours, with crosshairs on the point.

    Attributes:
        photo: the whole picture.
        xy: the point, in pixels of `photo`.
        caption: what it is.
    """

    photo: ImageU8
    xy: tuple[float, float]
    caption: str

    def draw(self, side: int) -> ImageU8:
        """The square with `side` pixels a side; what lies outside the photo is dark."""
        cut = max(16, -(-max(self.photo.shape) // _CLOSE_UP))
        # A large photo is cut down first: only the part about the point has to be resampled.
        top, left = (max(0, math.floor(at) - cut) for at in reversed(self.xy))
        part = self.photo[top : top + 3 * cut, left : left + 3 * cut]
        start = [Fraction(self.xy[1]) - top - Fraction(cut, 2), Fraction(self.xy[0]) - left - Fraction(cut, 2)]
        frame = Frame.whole(part.shape[:2]).crop(start, (cut, cut)).resize((side, side))
        picture = draw_photo(np.ascontiguousarray(part), frame)
        cross(picture, (side / 2, side / 2), arm=side // 5, width=1, gap=side // 12)
        return picture


def panel(
    width: int,
    *,
    close_ups: Sequence[CloseUp],
    state: str,
    title: str,
    lines: Sequence[str],
    scale: Scale,
    scale_caption: str,
) -> ImageU8:
    """The strip.

    Args:
        width: pixels, at least `NARROWEST`.
        close_ups: squares at its left end.
        state: `found`, `uncertain` or `absent`; its word is coloured.
        title: stands beside the state.
        lines: what else is to be said, wrapped where too long.
        scale: drawn as a bar with its numbers.
        scale_caption: what the bar's numbers are.
    """
    em = text_size(width)
    font, small, bold = (font_of(size) for size in (em, round(0.9 * em), round(1.5 * em)))
    gap, side = round(0.9 * em), 9 * em
    left = gap + len(close_ups) * (side + gap)
    column = width - left - gap
    wrapped = [piece for line in lines for piece in _wrap(line, font, column)]
    captions = _wrap(scale_caption, small, column)
    line = round(1.4 * em)
    text_height = 2 * line + len(wrapped) * line + 3 * em + len(captions) * line
    height = 2 * gap + max(side + line, text_height)
    canvas = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(canvas)

    for n, shown in enumerate(close_ups):
        x = gap + n * (side + gap)
        canvas.paste(Image.fromarray(shown.draw(side)), (x, gap))
        draw.text((x + side / 2, gap + side + 0.3 * em), shown.caption, font=small, fill=FAINT, anchor="ma")

    y = gap
    draw.text((left, y + line), state.upper(), font=bold, fill=STATE_COLOURS[state], anchor="ls")
    start = left + math.ceil(bold.getlength(state.upper())) + gap
    draw.text((start, y + line), _shorten(title, font, width - gap - start), font=font, fill=FAINT, anchor="ls")
    y += 2 * line
    for piece in wrapped:
        draw.text((left, y), piece, font=font, fill=TEXT, anchor="ls")
        y += line
    y += round(0.8 * em) - line + round(0.3 * em)
    _bar(canvas, draw, (left, y, min(column, 22 * em), em), scale, small)
    y += round(3.6 * em)
    for piece in captions:
        draw.text((left, y), piece, font=small, fill=FAINT, anchor="ls")
        y += line
    return np.array(canvas)


def text_size(width: int) -> int:
    """Height of the text, pixels, for a picture of so many pixels across."""
    return min(max(round(width / 62), 14), 24)


def font_of(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font, letters about `size` pixels high."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # the bitmap font is only given where no size is asked for
    return font


def _bar(
    canvas: Image.Image,
    draw: ImageDraw.ImageDraw,
    box: tuple[int, int, int, int],
    scale: Scale,
    font: ImageFont.FreeTypeFont,
) -> None:
    """The red over mid-grey from low to high, with a tick and a number at five places."""
    x, y, width, height = box
    red = scale.strength(torch.linspace(scale.low, scale.high, width)).numpy()[None, :, None]
    colours = (1 - red) * 150 + red * np.array(RED)
    canvas.paste(Image.fromarray(np.rint(np.repeat(colours, height, axis=0)).astype(np.uint8)), (x, y))
    for n in range(5):
        at = x + n * (width - 1) / 4
        value = scale.low + n * (scale.high - scale.low) / 4
        draw.line((at, y + height, at, y + height + 3), fill=FAINT)
        anchor = "la" if n == 0 else "ra" if n == 4 else "ma"
        draw.text((at, y + height + 4), f"{value:.2f}", font=font, fill=FAINT, anchor=anchor)


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
