"""Skin that never existed: a texture and moles on an endless surface, from a seed alone.

The surface is measured in units, one unit being about a pixel of the pictures taken of it. It repeats in both
directions, so a view may look anywhere. Positions are (x, y); the raster has `DENSITY` pixels a unit.

Axes: 3 colours, h w units (or raster pixels), m moles.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.fft import irfft2, rfft2
from scipy.spatial import cKDTree
from torch import Tensor

from patchatlas.geometry.frame import Frame
from patchatlas.geometry.sampling import resample, sample

Array = np.ndarray
Random = np.random.Generator

DENSITY = 2
"""Raster pixels a unit: read between pixels, edges of moles are then far below a picture's pixel from where they
should be."""

GAP = 28.0
"""Least distance of two moles, in units."""

BASE = np.array([0.80, 0.62, 0.52])
"""Colour of the skin between everything else."""

MELANIN = np.array([0.75, 0.95, 1.0])
"""How much of each colour a dark spot takes away."""


@dataclass(frozen=True, eq=False)
class Skin:
    """A surface.

    Attributes:
        colours: RGB in 0..1, float32, (3, h * DENSITY, w * DENSITY).
        moles_xy: centres of all moles, (m, 2), in units.
    """

    colours: Tensor
    moles_xy: Array

    @property
    def size_hw(self) -> tuple[int, int]:
        """Units after which the surface repeats."""
        return self.colours.shape[1] // DENSITY, self.colours.shape[2] // DENSITY

    def at(self, points_xy: Array) -> Array:
        """Colours at points of the surface, (p, 3)."""
        height, width = self.size_hw
        within = torch.from_numpy(np.mod(points_xy, [width, height])) * DENSITY
        return sample(self.colours, within).numpy()


def draw_skin(
    family: str, size_hw: Sequence[int], random: Random, *, moles: int, tile: int | None = None, twins: bool = False
) -> Skin:
    """Skin of one of the `FAMILIES`, with moles.

    Args:
        moles: how many; fewer where they find no room.
        tile: the texture repeats after so many units, which divide both sides; a quarter of what varies does not.
        twins: every second mole is a copy of the one before, `GAP` to `GAP` + 8 units away from it.
    """
    colours = texture(family, size_hw, random, tile=tile)
    placed = place_moles(size_hw, random, count=moles, twins=twins)
    shape = None
    for index, centre in enumerate(placed):
        if shape is None or not (twins and index % 2):
            shape = Mole.any(random)
        else:
            shape = shape.varied(random)
        shape.draw(colours, centre)
    return Skin(torch.from_numpy(colours.clip(0, 1).astype(np.float32)), placed)


def painted_over(skin: Skin, family: str, which: Array, random: Random, *, radius: float) -> Skin:
    """The skin with discs of other skin of the same family in place of some moles.

    Args:
        which: numbers of the moles that go; they stay in `moles_xy`.
        radius: of the discs, units; their edge is 6 units soft.
    """
    height, width = skin.size_hw
    other = texture(family, (height, width), random)
    colours = skin.colours.numpy().astype(np.float64)
    for centre in skin.moles_xy[which]:
        (rows, columns), away = _window(centre, radius + 6, (height, width))
        cover = np.clip((radius + 3 - np.hypot(away[..., 0], away[..., 1])) / 6, 0, 1)
        place = np.ix_(range(3), rows, columns)
        colours[place] = cover * other[place] + (1 - cover) * colours[place]
    return replace(skin, colours=torch.from_numpy(colours.astype(np.float32)))


def texture(family: str, size_hw: Sequence[int], random: Random, *, tile: int | None = None) -> Array:
    """Skin without moles, (3, h * DENSITY, w * DENSITY); it repeats without a seam.

    Args:
        tile: as in `draw_skin`.
    """
    if tile is None:
        varies = FAMILIES[family](size_hw, random)
    else:
        repeats = np.tile(FAMILIES[family]((tile, tile), random), (1, size_hw[0] // tile, size_hw[1] // tile))
        varies = 0.75 * repeats + 0.25 * FAMILIES[family](size_hw, random)
    return BASE[:, None, None] + varies


# -- textures ---------------------------------------------------------------------------------------------------------


def _plain(size_hw: Sequence[int], random: Random) -> Array:
    """Four octaves of blotches and a little grain, and half as much again along one colour."""
    light = noise(size_hw, random, {64: 0.03, 32: 0.03, 16: 0.025, 8: 0.02, 3: 0.012})
    colour = noise(size_hw, random, {48: 0.015, 16: 0.01})
    return light + random.normal(0, 1, (3, 1, 1)) * colour


def _freckled(size_hw: Sequence[int], random: Random) -> Array:
    """Plain skin under many small weak spots, about 10 units apart."""
    spots = 1 / (1 + np.exp(-5 * (noise(size_hw, random, {10: 1.0}) - 1.4)))
    return 0.6 * _plain(size_hw, random) - 0.16 * spots * MELANIN[:, None, None]


def _lined(size_hw: Sequence[int], random: Random) -> Array:
    """Plain skin with fine lines that run mostly one way."""
    field = noise(size_hw, random, {24: 1.0}, stretch=4.0, angle=random.uniform(0, np.pi))
    return 0.7 * _plain(size_hw, random) - 0.11 * np.exp(-((field / 0.2) ** 2))


def _netted(size_hw: Sequence[int], random: Random) -> Array:
    """Plain skin cut into cells of some 14 units by thin furrows (the borders of Worley's cells, SIGGRAPH 1996)."""
    height, width = size_hw
    seeds = random.uniform(0, 1, (max(1, round(height * width / 14**2)), 2)) * [height, width]
    rows, columns = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing="ij")
    places = np.stack([rows.ravel(), columns.ravel()], axis=1)
    near = cKDTree(seeds, boxsize=[height, width]).query(places, k=2)[0]
    furrow = np.exp(-((near[:, 1] - near[:, 0]) / 1.6)).reshape(1, height, width)
    frame = Frame.whole((height, width)).resize((height * DENSITY, width * DENSITY))
    return 0.7 * _plain(size_hw, random) - 0.12 * resample(torch.from_numpy(furrow), frame).numpy()


FAMILIES: dict[str, Callable[[Sequence[int], Random], Array]] = {
    "plain": _plain,
    "freckled": _freckled,
    "lined": _lined,
    "netted": _netted,
}
"""How textures are made: what varies about `BASE`, (3, h * DENSITY, w * DENSITY)."""

HELD_OUT = "netted"
"""The family that no development case uses."""


def noise(
    size_hw: Sequence[int],
    random: Random,
    bands: dict[int, float],
    *,
    stretch: float = 1.0,
    angle: float = 0.0,
) -> Array:
    """White noise seen through bands of wavelengths, (h * DENSITY, w * DENSITY), seamless.

    Args:
        bands: standard deviation of what has about each wavelength, in units; a band is a bell on a log scale.
        stretch: how much longer than wide its blots are.
        angle: the way they are long.
    """
    shape = (size_hw[0] * DENSITY, size_hw[1] * DENSITY)
    fy, fx = np.meshgrid(np.fft.fftfreq(shape[0], 1 / DENSITY), np.fft.rfftfreq(shape[1], 1 / DENSITY), indexing="ij")
    along = stretch * (fx * np.cos(angle) + fy * np.sin(angle))
    across = fy * np.cos(angle) - fx * np.sin(angle)
    frequency = np.hypot(along, across)
    frequency[0, 0] = 1e-9
    # A column of the half spectrum stands for two of the whole one, but for the first (and the last of an even side).
    twice = np.full(frequency.shape[1], 2.0)
    twice[0] = 1.0
    if shape[1] % 2 == 0:
        twice[-1] = 1.0
    gain = np.zeros_like(frequency)
    for wavelength, strength in bands.items():
        band = np.exp(-(np.log(frequency * wavelength) ** 2) / (2 * 0.35**2))
        power = (band**2 * twice).sum() / (shape[0] * shape[1])  # variance of white noise seen through it
        gain += (strength**2 / power) * band**2
    return np.asarray(irfft2(rfft2(random.standard_normal(shape)) * np.sqrt(gain), s=shape))


# -- moles ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mole:
    """A soft dark ellipse with a wavy edge.

    Attributes:
        radii: half axes, units.
        angle: of the first.
        waves: height and phase of the two, three and four waves about the edge, as parts of the radius.
        depth: how dark, 0..1.
        core: how much darker the middle is than the edge.
    """

    radii: tuple[float, float]
    angle: float
    waves: tuple[tuple[float, float], ...]
    depth: float
    core: float

    @classmethod
    def any(cls, random: Random) -> "Mole":
        """Of any size from 2.5 to 7 units."""
        radius = random.uniform(3.0, 7.0)
        return Mole(
            (radius, radius * random.uniform(0.6, 1.0)),
            random.uniform(0, np.pi),
            tuple((random.uniform(0, 0.12), random.uniform(0, 2 * np.pi)) for _ in range(3)),
            random.uniform(0.15, 0.45),
            random.uniform(0.0, 0.5),
        )

    def varied(self, random: Random) -> "Mole":
        """Nearly the same."""
        a, b = self.radii
        return replace(
            self,
            radii=(a * random.uniform(0.97, 1.03), b * random.uniform(0.97, 1.03)),
            angle=self.angle + random.uniform(-0.1, 0.1),
            depth=self.depth * random.uniform(0.97, 1.03),
        )

    def draw(self, colours: Array, centre_xy: Array) -> None:
        """Darken the raster about a centre, in place."""
        size_hw = (colours.shape[1] // DENSITY, colours.shape[2] // DENSITY)
        (rows, columns), away = _window(centre_xy, 1.5 * max(self.radii) + 2, size_hw)
        turned = away @ np.array([[np.cos(self.angle), -np.sin(self.angle)], [np.sin(self.angle), np.cos(self.angle)]])
        way = np.arctan2(turned[..., 1], turned[..., 0])
        edge = 1 + sum(h * np.cos((n + 2) * way + p) for n, (h, p) in enumerate(self.waves))
        out = np.hypot(turned[..., 0] / self.radii[0], turned[..., 1] / self.radii[1]) / edge
        inside = 1 / (1 + np.exp((out - 1) * min(self.radii) / 0.5))
        dark = self.depth * inside * (1 + self.core * np.clip(1 - out, 0, 1))
        place = np.ix_(range(3), rows, columns)
        colours[place] *= 1 - dark * MELANIN[:, None, None]


def place_moles(size_hw: Sequence[int], random: Random, *, count: int, twins: bool = False) -> Array:
    """Up to `count` points at least `GAP` apart (over the seams too), (m, 2)."""
    height, width = size_hw
    extent = np.array([width, height], dtype=float)
    placed: list[Array] = []

    def free(points: Sequence[Array]) -> bool:
        away = [abs(point - other) for point in points for other in placed]
        return all(np.hypot(*np.minimum(one, extent - one)) >= GAP for one in away)

    for _ in range(200 * count):
        if len(placed) >= count:
            break
        new = [random.uniform(0, 1, 2) * extent]
        if twins:
            way, distance = random.uniform(0, 2 * np.pi), random.uniform(GAP, GAP + 8)
            new.append(np.mod(new[0] + distance * np.array([np.cos(way), np.sin(way)]), extent))
        if free(new):
            placed += new
    return np.array(placed).reshape(-1, 2)


def _window(centre_xy: Array, reach: float, size_hw: tuple[int, int]) -> tuple[tuple[Array, Array], Array]:
    """Rows and columns of the raster within `reach` units of a centre, wrapped, and each pixel's way from it (x, y)."""
    ranges, steps = [], []
    for at, size in zip(centre_xy[::-1], size_hw, strict=True):
        index = np.arange(int((at - reach) * DENSITY), int((at + reach) * DENSITY) + 2)
        steps.append((index + 0.5) / DENSITY - at)
        ranges.append(index % (size * DENSITY))
    dy, dx = np.meshgrid(*steps, indexing="ij")
    return (ranges[0], ranges[1]), np.stack([dx, dy], axis=-1)
