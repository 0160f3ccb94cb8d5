"""Crosses, rings and ellipses, drawn smoothly on a picture in place, each with a dark rim so that it shows anywhere.

Points are (x, y) in the pixels of the picture drawn on.
"""

import math

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from patchatlas.arrays import ImageU8

Colour = tuple[int, int, int]
Matrix = Float[ndarray, "2 2"]

GREEN: Colour = (57, 255, 20)  # bright: told from the red by its lightness too
WHITE: Colour = (255, 255, 255)
RIM: Colour = (10, 12, 14)


def cross(picture: ImageU8, xy: tuple[float, float], *, arm: int, width: int = 3, gap: int = 0) -> None:
    """A green cross on the pixel that `xy` lies in.

    Args:
        picture: drawn on.
        xy: its middle.
        arm: pixels from the middle to the end of an arm.
        width: thickness of an arm, made odd so that the cross has a middle pixel.
        gap: pixels about the middle that are left free.
    """
    column, row = math.floor(xy[0]), math.floor(xy[1])
    half = width // 2
    for colour, more in ((RIM, max(1, width // 3)), (GREEN, 0)):
        across = half + more
        for begin, end in ((-arm, -gap), (gap, arm)):
            _fill(picture, (column + begin - more, column + end + more), (row - across, row + across), colour)
            _fill(picture, (column - across, column + across), (row + begin - more, row + end + more), colour)


def ellipse(
    picture: ImageU8, xy: tuple[float, float], shape: Matrix, *, colour: Colour = WHITE, width: float = 2.0
) -> None:
    """The points q with (q - xy)' shape^-1 (q - xy) = 1; a ring of radius r has the shape r^2 times the unit matrix.

    Args:
        picture: drawn on.
        xy: the centre.
        shape: a covariance times the square of how many sigmas are drawn; positive definite.
        colour: of the line.
        width: of the line, pixels.
    """
    inverse = np.linalg.inv(shape)
    reach = np.sqrt(np.diag(shape)) + width + 2  # half sides of the box about the ellipse
    h, w = picture.shape[:2]
    left, right = (int(np.clip(math.floor(xy[0] + side * reach[0]), 0, w)) for side in (-1, 1))
    top, bottom = (int(np.clip(math.floor(xy[1] + side * reach[1]), 0, h)) for side in (-1, 1))
    at = np.stack(np.meshgrid(np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5), axis=-1) - np.array(xy)
    slope = at @ inverse
    level = np.sqrt(np.maximum((slope * at).sum(-1), 1e-12))
    # To first order the distance to a level line is the level's excess over the length of its gradient.
    distance = np.abs(level - 1) * level / np.maximum(np.linalg.norm(slope, axis=-1), 1e-12)
    part = picture[top:bottom, left:right]
    for tone, thickness in ((RIM, width + 2), (colour, width)):
        cover = np.clip(thickness / 2 + 0.5 - distance, 0, 1)[..., None]
        part[:] = np.rint((1 - cover) * part + cover * np.array(tone)).astype(np.uint8)


def ring(
    picture: ImageU8, xy: tuple[float, float], radius: float, *, colour: Colour = WHITE, width: float = 2.0
) -> None:
    """A circle."""
    ellipse(picture, xy, radius**2 * np.eye(2), colour=colour, width=width)


def at_least(shape: Matrix, radius: float) -> Matrix:
    """The ellipse with each half axis at least `radius` long, so that it can be seen."""
    squares, axes = np.linalg.eigh(shape)
    grown: Matrix = (axes * np.maximum(squares, radius**2)) @ axes.T
    return grown


def _fill(picture: ImageU8, columns: tuple[int, int], rows: tuple[int, int], colour: Colour) -> None:
    """Colour the pixels of a rectangle, both ends included, as far as they lie in the picture."""
    (left, right), (top, bottom) = columns, rows
    picture[max(0, top) : max(0, bottom + 1), max(0, left) : max(0, right + 1)] = colour
