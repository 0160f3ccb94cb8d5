"""Quadrilaterals of a photograph: turned, slanted and stretched, of a wanted size, around a wanted place, inside it.

Points are (x, y) in pixels of the photograph; corners follow those of the crop: (0, 0), (w, 0), (w, h), (0, h).
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from patchatlas.pretrain.crops.augment import log_uniform
from patchatlas.pretrain.crops.config import PhotoWarp

Point = Float64[np.ndarray, " 2"]
Corners = Float64[np.ndarray, "4 2"]

_UNIT = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])


@dataclass(frozen=True, eq=False)
class Quad:
    """A quadrilateral in its place.

    Attributes:
        corners: of it.
        centre: where its middle was put.
        scale: pixels of the photograph along one of the crop, before it was slanted.
        places: whole pixels that its middle could have been put on.
        shrunk: whether the photograph was too small for what was asked.
    """

    corners: Corners
    centre: Point
    scale: float
    places: int
    shrunk: bool


def draw_shape(size_hw: tuple[int, int], warp: PhotoWarp, rng: np.random.Generator) -> Corners:
    """The corners of a crop at scale 1 about (0, 0): its rectangle slanted, stretched and turned by random amounts."""
    h, w = size_hw
    stretch = math.sqrt(log_uniform((1 / warp.stretch, warp.stretch), rng))
    corners = _UNIT * (1 + warp.perspective * rng.uniform(-1, 1, (4, 2))) * (w * stretch, h / stretch)
    any_turn, turn = rng.random() < warp.any_turn, rng.standard_normal() * math.radians(warp.rotate)
    angle = rng.uniform(-math.pi, math.pi) if any_turn else turn
    cos, sin = math.cos(angle), math.sin(angle)
    turned: Corners = corners @ np.array([(cos, sin), (-sin, cos)])
    return turned


def place(shape: Corners, wanted: tuple[float, float], whole_hw: tuple[int, int], rng: np.random.Generator) -> Quad:
    """A shape anywhere in a photograph, all places alike.

    Args:
        shape: as `draw_shape` gives it.
        wanted: range of its scale, drawn evenly over the logarithm among those that fit; the largest that fits if the
            range begins above it.
        whole_hw: rows and columns of the photograph.
        rng: its state decides everything.
    """
    fits = _largest(shape, whole_hw)
    scale = log_uniform((wanted[0], min(wanted[1], fits)), rng) if wanted[0] < fits else fits
    corners = shape * scale
    first, last = _room(corners, whole_hw)
    return _placed(corners, rng.uniform(first, last), scale, whole_hw, shrunk=wanted[0] > fits)


def place_at(shape: Corners, scale: float, middle: Point, whole_hw: tuple[int, int]) -> Quad:
    """A shape around a point of a photograph; moved, and first made smaller, as far as it must be to fit."""
    fits = _largest(shape, whole_hw)
    return _placed(shape * min(scale, fits), middle, min(scale, fits), whole_hw, shrunk=scale > fits)


def _placed(corners: Corners, middle: Point, scale: float, whole_hw: tuple[int, int], *, shrunk: bool) -> Quad:
    first, last = _room(corners, whole_hw)
    centre = np.minimum(np.maximum(middle, first), last)
    inside = np.clip(corners + centre, 0, whole_hw[::-1])  # no more than rounding
    return Quad(inside, centre, scale, int(np.prod(np.floor(last - first) + 1)), shrunk)


def _largest(shape: Corners, whole_hw: tuple[int, int]) -> float:
    """The largest scale at which a shape fits a photograph."""
    return float(min(np.array(whole_hw[::-1]) / np.ptp(shape, axis=0)))


def _room(corners: Corners, whole_hw: tuple[int, int]) -> tuple[Point, Point]:
    """Where the middle may lie: the lowest and highest x and y."""
    first, last = -corners.min(axis=0), np.array(whole_hw[::-1]) - corners.max(axis=0)
    return first, np.maximum(first, last)
