"""Frames of a video with a box about everybody who is known by name, and below them a strip of when each is seen.

Boxes are (x0, y0, x1, y1), end excluded, in pixels of the picture drawn on. Times are seconds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from patchatlas.arrays import ImageU8
from patchatlas.errors import UsageError
from patchatlas.viz.marks import RIM, WHITE, Colour
from patchatlas.viz.panel import BACKGROUND, FAINT, TEXT, font_of

Box = tuple[float, float, float, float]
Span = tuple[float, float]

_GOLDEN = math.pi * (3 - math.sqrt(5))  # an angle whose multiples stay apart, however many there are
_LIGHTNESS, _CHROMA = (0.80, 0.66, 0.73), 0.16  # of OKLCH: dark letters can be read on all of them

_TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600)
"""Seconds between the numbers of a time axis."""

THINNEST = 3
"""Height of the thinnest lane, pixels."""


@dataclass(frozen=True)
class Seen:
    """Somebody in one frame.

    Attributes:
        box: where.
        name: stands at the box.
        colour: of the box.
        sure: whether it is known who this is; else the line is thin.
    """

    box: Box
    name: str
    colour: Colour
    sure: bool = True


@dataclass(frozen=True)
class Lane:
    """When one identity is seen.

    Attributes:
        name: short.
        colour: as that of its boxes.
        spans: from when to when, in order.
    """

    name: str
    colour: Colour
    spans: tuple[Span, ...]

    @property
    def seen_s(self) -> float:
        """How long, in all."""
        return sum(end - start for start, end in self.spans)


def identity_colour(number: int) -> Colour:
    """The colour of an identity, by its number alone, so that it is the same in every picture and every video.

    Hues go round by the golden angle and lightness in threes, so near numbers are far apart in colour.

    Raises:
        UsageError: numbers start at 1.
    """
    if number < 1:
        raise UsageError(f"identities are numbered from 1, given {number}")
    return _oklch(_LIGHTNESS[number % 3], _CHROMA, number * _GOLDEN)


def draw_boxes(picture: ImageU8, seen: Sequence[Seen]) -> ImageU8:
    """A copy of the picture with everybody's box and name; who stands further down is in front, so drawn later."""
    canvas = Image.fromarray(np.ascontiguousarray(picture))
    draw = ImageDraw.Draw(canvas)
    em = text_height(canvas.width)
    font = font_of(em)
    thick = max(2, round(em / 6))
    for one in sorted(seen, key=lambda one: one.box[3]):
        x0, y0, x1, y1 = outline(one.box)
        width = thick if one.sure else 1
        draw.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=RIM)
        draw.rectangle((x0, y0, x1, y1), outline=one.colour, width=width)
        if width + 1 < min(x1 - x0, y1 - y0) / 2:
            draw.rectangle((x0 + width, y0 + width, x1 - width, y1 - width), outline=RIM)
        wide = math.ceil(font.getlength(one.name)) + 4
        left = min(max(0, x0), max(0, canvas.width - wide))
        top = y0 - em - 2 if y0 >= em + 2 else min(y1 + 1, canvas.height - em - 2)
        draw.rectangle((left, top, left + wide - 1, top + em + 1), fill=one.colour)
        draw.text((left + 2, top + em / 2 + 1), one.name, font=font, fill=RIM, anchor="lm")
    return np.array(canvas)


def outline(box: Box) -> tuple[int, int, int, int]:
    """The outermost pixels that a box touches: first and last column and row, both included."""
    x0, y0, x1, y1 = box
    return math.floor(x0), math.floor(y0), math.ceil(x1) - 1, math.ceil(y1) - 1


class Strip:
    """A lane for each identity along the time of the video, and a line where the video is.

    Where there are too many lanes for the height, those seen longest are drawn, and how many are not is said.

    Args:
        width: pixels.
        lanes: from top to bottom.
        duration_s: of the video.
        most_height: pixels that the lanes may take.

    Raises:
        UsageError: a video that lasts no time.
    """

    def __init__(self, width: int, lanes: Sequence[Lane], *, duration_s: float, most_height: int) -> None:
        if not duration_s > 0:
            raise UsageError(f"a strip needs a video that lasts, given {duration_s} s")
        em = text_height(width)
        self._font, self._em = font_of(em), em
        room = max(1, most_height // THINNEST)
        longest = sorted(range(len(lanes)), key=lambda k: (-lanes[k].seen_s, k))[:room]
        self.lanes = tuple(lanes[k] for k in sorted(longest))
        self._left_out = len(lanes) - len(self.lanes)
        each = max(THINNEST, min(round(1.25 * em), most_height // max(1, len(self.lanes))))
        named = each >= em
        names = [self._font.getlength(lane.name) for lane in self.lanes] if named else []
        gap = em // 2
        self._start, self._end = gap + math.ceil(max(names, default=0)) + (gap if names else 0), width - 2 * gap
        self._duration_s = duration_s
        self._head = round(1.8 * em)
        self.height = self._head + len(self.lanes) * each + gap
        self._still = self._drawn(width, each, named)

    def at(self, time_s: float) -> ImageU8:
        """The strip with the line at a time."""
        canvas = Image.fromarray(self._still)
        draw = ImageDraw.Draw(canvas)
        x = self.column(time_s)
        draw.line((x, self._head - 2, x, self.height - 1), fill=WHITE, width=max(1, self._em // 8))
        told = f"{time_s:.1f} s" + (f", {self._left_out} more not drawn" if self._left_out else "")
        wide = self._font.getlength(told)
        left = min(max(self._start, x - wide / 2), self._end - wide)
        draw.rectangle((left - 3, 0, left + wide + 3, self._em + 3), fill=BACKGROUND)
        draw.text((left, self._em / 2 + 2), told, font=self._font, fill=TEXT, anchor="lm")
        return np.array(canvas)

    def column(self, time_s: float) -> int:
        """The column of pixels that stands for a time; times outside the video lie at its ends."""
        share = min(max(time_s / self._duration_s, 0.0), 1.0)
        return self._start + round(share * (self._end - 1 - self._start))

    def _drawn(self, width: int, each: int, named: bool) -> ImageU8:
        canvas = Image.new("RGB", (width, self.height), BACKGROUND)
        draw = ImageDraw.Draw(canvas)
        least = 4 * self._em * self._duration_s / max(1, self._end - self._start)
        step = next((tick for tick in _TICKS if tick >= least), math.ceil(least / 3600) * 3600)
        for k in range(math.floor(self._duration_s / step) + 1):
            x = self.column(float(k * step))
            draw.line((x, self._head - 4, x, self.height), fill=(52, 56, 66))
            draw.text((x, self._em / 2 + 2), _clock(k * step), font=self._font, fill=FAINT, anchor="mm")
        for n, lane in enumerate(self.lanes):
            top = self._head + n * each
            if named:
                draw.text((self._em // 2, top + each / 2), lane.name, font=self._font, fill=lane.colour, anchor="lm")
            for start, end in lane.spans:
                draw.rectangle((self.column(start), top, self.column(end), top + each - 2), fill=lane.colour)
        return np.array(canvas)


def with_strip(picture: ImageU8, strip: ImageU8) -> ImageU8:
    """Both in one picture, the strip below; they are of one width."""
    both: ImageU8 = np.concatenate([picture, strip])
    return both


def text_height(width: int) -> int:
    """Height of letters, pixels, in a picture of so many pixels across."""
    return min(max(round(width / 62), 10), 28)


def _clock(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _oklch(lightness: float, chroma: float, hue: float) -> Colour:
    """OKLCH to sRGB of 8 bits, clipped; the matrices are those of Ottosson, "A perceptual color space for image
    processing" (2020), the curve that of IEC 61966-2-1."""
    a, b = chroma * math.cos(hue), chroma * math.sin(hue)
    to_cones = np.array(
        [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.291485548]]
    )
    to_linear = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.707614701],
        ]
    )
    linear = np.clip(to_linear @ (to_cones @ np.array([lightness, a, b])) ** 3, 0, 1)
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = np.rint(curved * 255).astype(int).tolist()
    return red, green, blue
