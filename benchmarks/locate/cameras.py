"""Where a picture looks: maps between its pixels and a drawn skin, each exact in both directions, and taking the photo.

Points are (x, y): of a picture in continuous pixels, of the skin in units. `seen` is how squarely a place is looked at,
the cosine between its normal and the way to the camera: 1 head on, 0 and less turned away.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.ndimage import gaussian_filter

from benchmarks.locate.skin import Array, Random, Skin
from patchatlas.arrays import ImageU8

SUPERSAMPLES = 2
"""A pixel is the mean of so many places of the skin along each axis."""


class View(Protocol):
    """A map between the pixels of a picture and a skin."""

    def to_skin(self, points_xy: Array) -> tuple[Array, Array]:
        """Where picture points (p, 2) fall on the skin, and how squarely (p,); NaN where they miss it."""
        ...

    def from_skin(self, places_xy: Array) -> tuple[Array, Array]:
        """Where places (p, 2) of the skin appear in the picture, and how squarely they are seen (p,)."""
        ...


@dataclass(frozen=True, eq=False)
class Flat:
    """A plane seen through a homography and, before it, waves: picture + waves(picture) -> homography -> skin.

    Attributes:
        homography: picture to skin, (3, 3).
        waves: (n, 4): how far along x and y, and wave vector (radians a pixel) along x and y; steep together by less
            than a half, so that they can be undone.
        phases: (n,).
    """

    homography: Array
    waves: Array
    phases: Array

    def to_skin(self, points_xy: Array) -> tuple[Array, Array]:
        """See `View`."""
        return project(self.homography, points_xy + self._moved(points_xy)), np.ones(len(points_xy))

    def from_skin(self, places_xy: Array) -> tuple[Array, Array]:
        """See `View`; the waves are undone by repetition, each round at least halving what is left."""
        goal = project(np.linalg.inv(self.homography), places_xy)
        points = goal
        for _ in range(60 if len(self.waves) else 0):
            points = goal - self._moved(points)
        return points, np.ones(len(places_xy))

    def _moved(self, points_xy: Array) -> Array:
        return np.sin(points_xy @ self.waves[:, 2:].T + self.phases) @ self.waves[:, :2]


@dataclass(frozen=True, eq=False)
class Cylinder:
    """A round body before a pinhole camera, upright in the picture but for its pose.

    The skin's x runs around it, right to the left of the picture's eye, y along it. The camera stands at (0, 0,
    -distance) and looks along +z; x runs right and y down.

    Attributes:
        around: units of skin around the body.
        middle: height on the skin, units, that is before the camera.
        radius: of the body.
        pose: rotation of the body, (3, 3).
        shift: of the body, (3,).
        distance: from the camera to the body's axis.
        focal: pixels a unit at distance 1.
        centre_xy: pixel that the camera looks at.
    """

    around: float
    middle: float
    radius: float
    pose: Array
    shift: Array
    distance: float
    focal: float
    centre_xy: tuple[float, float]

    def to_skin(self, points_xy: Array) -> tuple[Array, Array]:
        """See `View`."""
        rays = np.concatenate([(points_xy - self.centre_xy) / self.focal, np.ones((len(points_xy), 1))], axis=1)
        origin = (
            np.array([0, 0, -self.distance]) - self.shift
        ) @ self.pose  # rows times R = R transposed times columns
        rays = rays @ self.pose
        # |origin + t ray| = radius in the plane across the axis
        a = rays[:, 0] ** 2 + rays[:, 2] ** 2
        b = rays[:, 0] * origin[0] + rays[:, 2] * origin[2]
        under = b**2 - a * (origin[0] ** 2 + origin[2] ** 2 - self.radius**2)
        t = (-b - np.sqrt(np.where(under > 0, under, np.nan))) / a
        body = origin + t[:, None] * rays
        places = np.stack(
            [np.arctan2(body[:, 0], -body[:, 2]) * self.around / (2 * np.pi), body[:, 1] + self.middle], axis=1
        )
        normal = body * [1, 0, 1] / self.radius
        seen = -(normal * rays).sum(axis=1) / np.linalg.norm(rays, axis=1)
        return places, seen

    def from_skin(self, places_xy: Array) -> tuple[Array, Array]:
        """See `View`."""
        angle = places_xy[:, 0] * 2 * np.pi / self.around
        normal = np.stack([np.sin(angle), np.zeros_like(angle), -np.cos(angle)], axis=1) @ self.pose.T
        height = np.stack([0 * angle, places_xy[:, 1] - self.middle, 0 * angle], axis=1) @ self.pose.T
        world = self.radius * normal + height + self.shift
        from_camera = world + np.array([0, 0, self.distance])
        points = self.focal * from_camera[:, :2] / from_camera[:, 2:] + self.centre_xy
        seen = -(normal * from_camera).sum(axis=1) / np.linalg.norm(from_camera, axis=1)
        return points, seen


def project(homography: Array, points_xy: Array) -> Array:
    """Points (p, 2) under a homography."""
    x, y = points_xy.T  # by hand: a product with so narrow a matrix takes ten times as long
    u, v, w = (a * x + b * y + c for a, b, c in homography)
    return np.stack([u / w, v / w], axis=1)


def homography_between(before: Array, after: Array) -> Array:
    """The homography that takes four points (4, 2) to four others; its last entry is 1."""
    rows, right = [], []
    for (x, y), (u, v) in zip(before, after, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    return np.append(np.linalg.solve(np.array(rows), np.array(right)), 1.0).reshape(3, 3)


def draw(skin: Skin, view: View, *, size: int, background: Array) -> tuple[Array, Array]:
    """The square picture that a view shows.

    Where the body curves it is lit from the camera. What is no body is `background`.

    Returns:
        colours: (size, size, 3), 0..1.
        body: (size, size), whether most of the pixel shows skin.
    """
    along = (np.arange(size * SUPERSAMPLES) + 0.5) / SUPERSAMPLES
    y, x = np.meshgrid(along, along, indexing="ij")
    places, seen = view.to_skin(np.stack([x.ravel(), y.ravel()], axis=1))
    hit = seen > 0
    colours = np.broadcast_to(background, (len(places), 3)).copy()
    colours[hit] = skin.at(places[hit]) * (0.35 + 0.65 * seen[hit, None] ** 0.7)
    blocks = (size, SUPERSAMPLES, size, SUPERSAMPLES)
    body = hit.reshape(blocks).mean(axis=(1, 3)) >= 0.5
    return colours.reshape(*blocks, 3).mean(axis=(1, 3)), body


def photograph(colours: Array, random: Random, *, plain: bool = False) -> ImageU8:
    """The 8-bit picture that a camera takes of colours in 0..1: gamma, cast, uneven light, blur, noise.

    Args:
        plain: no more than a little noise.
    """
    size = colours.shape[0]
    levels = colours
    if not plain:
        y, x = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size), indexing="ij")
        way, slope = random.uniform(0, 2 * np.pi), random.uniform(0, 0.2)
        light = 1 + slope * (x * np.cos(way) + y * np.sin(way))
        levels = levels ** random.uniform(0.75, 1.33) * light[..., None] * random.uniform(0.88, 1.12, 3)
        levels = gaussian_filter(levels, (*[random.uniform(0.3, 1.0)] * 2, 0))
    levels = levels + random.normal(0, 0.005 if plain else random.uniform(0.008, 0.02), levels.shape)
    return (levels.clip(0, 1) * 255).round().astype(np.uint8)
