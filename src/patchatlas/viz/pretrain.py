"""Pictures of a run: curves as SVG, and inputs beside the principal components of their features.

Axes: c channels, size = (z, y, x) or (y, x).
"""

import math
from collections.abc import Mapping, Sequence
from html import escape

from jaxtyping import Float
from torch import Tensor

from patchatlas.arrays import ImageU8
from patchatlas.viz.crops import Slice, beside, draw

WIDTH, HEIGHT = 420, 170
"""Of a curve, SVG units."""

LEFT, FOOT, HEAD = 46, 20, 10

MOST_POINTS = 300
"""Points of a line; where there are more, each stands for the mean of some in a row."""

LINES = ("#d9822b", "#1f8a70", "#b04a9a", "#3d73c9", "#8a6d1f", "#6b6b6b")
"""Colours of lines in turn, told apart on light and dark ground."""

Line = Sequence[tuple[float, float]]
"""Step and value, again and again."""


def curve(lines: Mapping[str, Line], *, caption: str) -> str:
    """Lines over steps as SVG with one vertical axis, single points as dots; numbers that are not finite are left out.

    Args:
        lines: name to (step, value).
        caption: what is drawn.
    """
    shown = {name: _thinned([(x, y) for x, y in line if math.isfinite(y)]) for name, line in lines.items()}
    points = [point for line in shown.values() for point in line]
    if not points:
        return f'<figure><figcaption class="faint">{escape(caption)}: nothing was logged</figcaption></figure>'
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    if high - low < 1e-12:  # a number that never changes lies on the ground: no share looks as if it had been below 0
        high = low + 1

    def at(x: float, y: float) -> str:
        across = LEFT + (x - left) / max(1e-12, right - left) * (WIDTH - LEFT - 6)
        down = HEAD + (high - y) / (high - low) * (HEIGHT - HEAD - FOOT)
        return f"{across:.1f},{down:.1f}"

    drawn, legend = [], []
    for (name, line), colour in zip(shown.items(), _cycled(len(shown)), strict=True):
        title = f"<title>{escape(name)}: {line[-1][1]:.4g} at step {line[-1][0]:g}</title>" if line else ""
        if len(line) == 1:
            x, y = at(*line[0]).split(",")
            drawn.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}">{title}</circle>')
        else:
            path = " ".join(at(x, y) for x, y in line)
            shape = f'points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"'
            drawn.append(f"<polyline {shape}>{title}</polyline>")
        square = f'<span style="color:{colour}">&#9632;</span>'
        legend.append(f'<span style="white-space:nowrap">{square} {escape(name)}</span>')
    bottom = HEIGHT - FOOT
    return f"""<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(caption)}">
<path d="M{LEFT} {HEAD}V{bottom}H{WIDTH - 6}" fill="none" stroke="currentColor" stroke-opacity=".4"/>
<text x="{LEFT - 4}" y="{HEAD + 9}" text-anchor="end">{high:.3g}</text>
<text x="{LEFT - 4}" y="{bottom}" text-anchor="end">{low:.3g}</text>
<text x="{LEFT}" y="{HEIGHT - 5}">{left:g}</text>
<text x="{WIDTH - 6}" y="{HEIGHT - 5}" text-anchor="end">step {right:g}</text>
{"".join(drawn)}</svg><figcaption>{escape(caption)}: {", ".join(legend)}</figcaption></figure>"""


def slices(pixels: Float[Tensor, "c *size"], spacing: Sequence[float], side: int) -> ImageU8:
    """The three middle slices of a volume, grey or in colours, as radiologists lay them; a picture as it is.

    Args:
        pixels: 0..1, of one channel or three.
        spacing: mm a voxel along each axis.
        side: pixels of the longer side of a slice.
    """
    if pixels.ndim == 3:
        return draw(Slice(pixels, (0, 1), None, (1.0, 1.0)), side)
    planes = []
    for axis in range(3):
        down, across = (a for a in range(3) if a != axis)
        index = pixels.shape[1 + axis] // 2
        cut = pixels.select(1 + axis, index)
        planes.append(draw(Slice(cut, (down, across), (axis, index), (spacing[down], spacing[across])), side))
    return beside(planes)


def _thinned(line: Line) -> Line:
    step = math.ceil(len(line) / MOST_POINTS)
    if step <= 1:
        return line
    parts = [line[k : k + step] for k in range(0, len(line), step)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def _cycled(count: int) -> list[str]:
    return [LINES[k % len(LINES)] for k in range(count)]
