"""Pictures of crops: where they lie on their volume, what the network sees of them, and how their numbers spread.

Axes: z y x, growing to Superior, Anterior and Right. Pictures are laid as radiologists lay them: head up, the right of
the body on the left, and seen from the side the front on the left; so both axes of a slice are mirrored. Photographs
are shown as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from html import escape

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from PIL import Image, ImageDraw
from torch import Tensor

from patchatlas.arrays import ImageU8
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.rounding import round_half_up
from patchatlas.geometry.sampling import resample
from patchatlas.viz.marks import RIM, Colour
from patchatlas.viz.panel import BACKGROUND, TEXT, font_of

PLANES = ("axial", "coronal", "sagittal")
"""Names of the slices across axis 0, 1 and 2."""

FOREGROUND: Colour = (70, 150, 230)
"""Tint of what counts as foreground."""

COLOURS: tuple[Colour, ...] = ((255, 176, 0), (0, 200, 150), (235, 105, 185), (120, 170, 255))
"""Of global crops in turn, and of their local crops; told apart by lightness too."""

LOOSE: Colour = (205, 205, 205)
"""Of local crops that are part of no global crop."""

GAP = 6
"""Pixels between pictures."""

Box = tuple[float, float, float, float]
"""xyxy, pixels of a picture."""


@dataclass(frozen=True)
class Outline:
    """A crop on its volume.

    Attributes:
        start: first voxel along each axis.
        size: voxels along each axis.
        label: written at a corner.
        colour: of the line.
        width: of the line, pixels.
    """

    start: tuple[int, ...]
    size: tuple[int, ...]
    label: str
    colour: Colour
    width: int


@dataclass(frozen=True)
class Slice:
    """One slice of a volume, or a photograph.

    Attributes:
        pixels: values in 0..1, one channel or three.
        axes: of the volume, down and across the slice.
        across: axis that the slice cuts, and at which voxel; `None` for a photograph.
        spacing: millimetres a voxel, down and across.
        foreground: share of foreground in cells, `None` to show none.
        cell: voxels in a cell, down and across.
    """

    pixels: Float[Tensor, "c h w"]
    axes: tuple[int, int]
    across: tuple[int, int] | None
    spacing: tuple[float, float]
    foreground: Float[ndarray, "gh gw"] | None = None
    cell: tuple[int, int] = (1, 1)

    def view(self, side: int) -> Frame:
        """The slice with square pixels, laid as it is shown, its longer side `side` pixels long."""
        size = tuple(self.pixels.shape[1:])
        mm = [n * apart for n, apart in zip(size, self.spacing, strict=True)]
        shown = [max(1, round_half_up(Fraction(side * n / max(mm)))) for n in mm]
        frame = Frame.whole(size).resize(shown)
        return frame if self.across is None else frame.flip(0).flip(1)


def slice_of(volume: Float[Tensor, "1 z y x"], axis: int, index: int, spacing: tuple[float, float, float]) -> Slice:
    """The slice of a volume across an axis."""
    down, across = (a for a in range(3) if a != axis)
    return Slice(volume.select(1 + axis, index), (down, across), (axis, index), (spacing[down], spacing[across]))


def draw(plane: Slice, side: int, outlines: Sequence[Outline] = ()) -> ImageU8:
    """A slice as a picture, with the crops that it cuts.

    Args:
        plane: the slice.
        side: pixels of the longer side.
        outlines: crops of the volume; those that the slice does not meet are left out.
    """
    frame = plane.view(side)
    grey = resample(plane.pixels, frame).expand(3, *frame.size).permute(1, 2, 0).numpy()
    colours = 255 * grey
    if plane.foreground is not None:
        edge = _edges(_foreground_pixels(plane, frame))
        colours = np.where(edge[..., None], np.array(FOREGROUND, dtype=np.float32), colours)
    picture = Image.fromarray(np.rint(colours).clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    font = font_of(max(11, side // 26))
    shown: list[tuple[Outline, Box]] = []
    for outline in outlines:
        if plane.across is not None:
            axis, index = plane.across
            if not outline.start[axis] <= index < outline.start[axis] + outline.size[axis]:
                continue
        top, left = (outline.start[a] for a in plane.axes)
        bottom, right = (outline.start[a] + outline.size[a] for a in plane.axes)
        box = torch.tensor([[left, top, right, bottom]], dtype=torch.float64)
        x0, y0, x1, y1 = frame.boxes_from_source(box)[0].tolist()
        pen.rectangle((x0, y0, x1 - 1, y1 - 1), outline=outline.colour, width=outline.width)
        shown.append((outline, (x0 + outline.width + 2, y0 + outline.width, x1 - outline.width, y1 - outline.width)))
    shown.reverse()  # those that were drawn last, over the others, choose their places first
    boxes = [box for _, box in shown]
    ends = [pen.textbbox((0, 0), outline.label, font=font, stroke_width=2)[2:] for outline, _ in shown]
    sizes = [(float(width), float(height)) for width, height in ends]
    for (outline, _), place in zip(shown, label_places(boxes, sizes, frame.size), strict=True):
        pen.text(place, outline.label, fill=outline.colour, font=font, stroke_width=2, stroke_fill=RIM)
    return np.asarray(picture)


def label_places(
    boxes: Sequence[Box], sizes: Sequence[tuple[float, float]], picture_hw: Sequence[int]
) -> list[tuple[float, float]]:
    """Where labels stand so that none covers another: at a corner of their box, else as near below or above as there is
    room.

    Args:
        boxes: of each label, xyxy, pixels; the first ones choose first.
        sizes: of each label, width and height, pixels.
        picture_hw: of the picture.

    Returns:
        The upper left corner of each, (x, y). In a picture that is too full labels stand in the corner all the same.
    """
    height, width = picture_hw
    taken: list[Box] = []
    for (x0, y0, x1, y1), (w, h) in zip(boxes, sizes, strict=True):
        right, bottom = max(x0, x1 - w), max(y0, y1 - h)
        steps = [y0 + sign * k * h for k in range(1, int(height // max(h, 1)) + 1) for sign in (1, -1)]
        places = [(x0, y0), (right, y0), (x0, bottom), (right, bottom), *((x0, y) for y in steps)]
        free = (
            (x, y)
            for x, y in places
            if 0 <= x <= width - w
            and 0 <= y <= height - h
            and not any(x < c and a < x + w and y < d and b < y + h for a, b, c, d in taken)
        )
        x, y = next(free, (x0, y0))
        taken.append((x, y, x + w, y + h))
    return [(x, y) for x, y, _, _ in taken]


def draw_crop(pixels: Float[Tensor, "c *size"], voxel_mm: Sequence[float], side: int) -> ImageU8:
    """A crop as the network sees it: its three middle slices side by side, or the crop of a photograph.

    Args:
        pixels: values in 0..1.
        voxel_mm: millimetres a voxel along each axis; not looked at for photographs.
        side: pixels of the longer side of a slice.
    """
    if pixels.ndim == 3:
        return draw(Slice(pixels, (0, 1), None, (1.0, 1.0)), side)
    z, y, x = voxel_mm
    middles = [draw(slice_of(pixels, axis, pixels.shape[1 + axis] // 2, (z, y, x)), side) for axis in range(3)]
    return beside(middles)


def beside(pictures: Sequence[ImageU8], *, labels: Sequence[str] = ()) -> ImageU8:
    """Pictures in a row, on a dark ground, each with its label above."""
    above = 22 if labels else 0
    height = max(picture.shape[0] for picture in pictures) + above
    width = sum(picture.shape[1] for picture in pictures) + GAP * (len(pictures) - 1)
    row = Image.new("RGB", (width, height), BACKGROUND)
    pen, left = ImageDraw.Draw(row), 0
    for k, picture in enumerate(pictures):
        if labels:
            pen.text((left + 2, 3), labels[k], fill=TEXT, font=font_of(13))
        row.paste(Image.fromarray(picture), (left, above))
        left += picture.shape[1] + GAP
    return np.asarray(row)


def sheet(pictures: Sequence[ImageU8], labels: Sequence[str], *, columns: int) -> ImageU8:
    """Pictures in rows of `columns`, each with its label above."""
    rows = [beside(pictures[k : k + columns], labels=labels[k : k + columns]) for k in range(0, len(pictures), columns)]
    width = max(row.shape[1] for row in rows)
    whole = Image.new("RGB", (width, sum(row.shape[0] for row in rows) + GAP * (len(rows) - 1)), BACKGROUND)
    top = 0
    for row in rows:
        whole.paste(Image.fromarray(row), (0, top))
        top += row.shape[0] + GAP
    return np.asarray(whole)


def histogram(values: Sequence[float], *, caption: str, marks: Sequence[tuple[float, str]] = (), bins: int = 25) -> str:
    """How shares in 0..1 spread, as SVG: bars, a line at each mark, and the counts as a tooltip.

    Args:
        values: shares; an empty list gives an empty frame.
        caption: what is counted.
        marks: shares at which a dashed line stands, each with its name.
        bins: bars.
    """
    counts, edges = np.histogram(np.clip(values, 0, 1), bins=bins, range=(0, 1))
    width, height, foot, head = 420, 150, 22, 18
    tallest = max(1, int(counts.max()))
    parts = [
        f'<rect x="{low * width + 1:.1f}" y="{head + height * (1 - count / tallest):.1f}" '
        f'width="{width / bins - 2:.1f}" height="{height * count / tallest:.1f}" class="bar">'
        f"<title>{low:.2f} to {high:.2f}: {count}</title></rect>"
        for count, low, high in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    ]
    for at, name in marks:
        x, anchor = at * width, "end" if at > 0.6 else "start"
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{head}" y2="{head + height}" class="mark"/>')
        parts.append(
            f'<text x="{x + (-4 if at > 0.6 else 4):.1f}" y="{head - 5}" text-anchor="{anchor}">{escape(name)}</text>'
        )
    parts += [
        f'<text x="{at * width:.0f}" y="{head + height + 16}" text-anchor="{anchor}">{at:g}</text>'
        for at, anchor in ((0, "start"), (0.25, "middle"), (0.5, "middle"), (0.75, "middle"), (1, "end"))
    ]
    parts.append(f'<line x1="0" x2="{width}" y1="{head + height}" y2="{head + height}" class="axis"/>')
    return (
        f'<figure class="plot"><svg viewBox="0 0 {width} {head + height + foot}" role="img" '
        f'aria-label="{escape(caption)}">{"".join(parts)}</svg><figcaption>{escape(caption)}</figcaption></figure>'
    )


def _foreground_pixels(plane: Slice, frame: Frame) -> Bool[ndarray, "h w"]:
    """The pixels of a picture that lie in cells of which at least half is foreground."""
    assert plane.foreground is not None, "asked for only where it is known"
    cells = np.repeat(np.repeat(plane.foreground >= 0.5, plane.cell[0], 0), plane.cell[1], 1)
    h, w = plane.pixels.shape[1:]
    held = torch.from_numpy(cells[:h, :w].astype(np.float32))[None]
    shown: Bool[ndarray, "h w"] = (resample(held, frame)[0] >= 0.5).numpy()
    return shown


def _edges(mask: Bool[ndarray, "h w"]) -> Bool[ndarray, "h w"]:
    """The pixels of a mask that touch what lies outside it."""
    padded = np.pad(mask, 1, mode="edge")
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    edge: Bool[ndarray, "h w"] = mask & ~inner
    return edge
