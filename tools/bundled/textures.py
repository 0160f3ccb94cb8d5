"""Draw the textures that the bundled encoder is trained on beside pictures: from a seed, by the families below.

    python -m tools.bundled.textures OUT [--count 96] [--side 768] [--seed 8]

Each is a PNG in colours; its number decides family and content, so a longer run begins with the same files. Families:

    octaves   noise in octaves with a random slope of their spectrum, in two or three colours
    waves     a sine of such noise: bands that wind
    blobs     many soft ellipses on a ground of noise
    lines     strokes of many widths on a ground of noise
    leaves    opaque discs and polygons that cover each other, sizes by a power law (dead leaves; Lee, Mumford and
              Huang, "Occlusion models for natural images", IJCV 2001)
    script    rows of random glyphs, like print

None has cells parted by furrows (Voronoi's or Worley's), which the locate harness keeps for its test: `held_out.py`.

Axes: h w pixels, 3 colours; levels are 0..1 until they are stored.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from scipy.fft import irfft2, rfft2
from scipy.ndimage import gaussian_filter

from patchatlas.io.images import write_image

Array = np.ndarray
Random = np.random.Generator


def main(argv: list[str] | None = None) -> int:
    """Draw the textures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--count", type=int, default=96)
    parser.add_argument("--side", type=int, default=768)
    parser.add_argument("--seed", type=int, default=8)
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    for number in range(options.count):
        family, pixels = draw(number, side=options.side, seed=options.seed)
        write_image(options.out / f"texture--{number:03d}-{family}.png", pixels)
    print(f"{options.count} textures lie in {options.out}")
    return 0


def draw(number: int, *, side: int, seed: int) -> tuple[str, Array]:
    """One texture: its family, and (side, side, 3) in 8 bits."""
    family = list(FAMILIES)[number % len(FAMILIES)]
    levels = FAMILIES[family](side, np.random.default_rng([seed, number]))
    return family, (levels.clip(0, 1) * 255).round().astype(np.uint8)


# -- families ---------------------------------------------------------------------------------------------------------


def octaves(side: int, random: Random) -> Array:
    """Noise whose amplitude falls as a power of frequency, coloured by a second field of the same kind."""
    light, tint = _noise(side, random, random.uniform(0.6, 1.4)), _noise(side, random, 1.8)
    return _coloured(0.16 * light, random) + 0.05 * tint[..., None] * random.normal(0, 1, 3)


def waves(side: int, random: Random) -> Array:
    """The sine of noise: bands that wind, with a little grain."""
    bands = np.sin(_noise(side, random, 1.9) * random.uniform(2, 9) + _ramp(side, random) * random.uniform(0, 60))
    return _coloured(0.2 * bands + 0.05 * _noise(side, random, 0.8), random)


def blobs(side: int, random: Random) -> Array:
    """Soft ellipses, lighter and darker, one over the other."""
    field = 0.08 * _noise(side, random, 1.4)
    for _ in range(int(random.integers(150, 1200))):
        centre, axes = random.uniform(0, side, 2), np.exp(random.uniform(np.log(2), np.log(28), 2))
        _ellipse(field, centre, axes, random.uniform(0, 180), random.normal(0, 0.2))
    return _coloured(gaussian_filter(field, random.uniform(0.4, 1.5)), random)


def lines(side: int, random: Random) -> Array:
    """Straight and bent strokes."""
    field = (0.07 * _noise(side, random, 1.4)).astype(np.float32)
    for _ in range(int(random.integers(30, 300))):
        start, way = random.uniform(0, side, 2), random.uniform(0, 2 * np.pi)
        bend, step = random.normal(0, 0.15), random.uniform(4, 20)
        turns = way + bend * np.arange(int(random.integers(2, 40)))
        points = start + np.cumsum(step * np.stack([np.cos(turns), np.sin(turns)], axis=1), axis=0)
        cv2.polylines(field, [_fixed(points)], False, random.normal(0, 0.3), int(random.integers(1, 9)), cv2.LINE_AA, 4)
    return _coloured(gaussian_filter(field, random.uniform(0.3, 1.0)), random)


def leaves(side: int, random: Random) -> Array:
    """Flat discs and polygons in front of each other, each with a little shading of its own."""
    canvas = np.ascontiguousarray(np.broadcast_to(random.random(3), (side, side, 3)), dtype=np.float32)
    least, most = 4.0, side / 5
    palette = random.random((int(random.integers(3, 12)), 3))
    for share in np.sort(random.random(int(random.integers(300, 1500)))):
        radius = (least**-1 + share * (most**-1 - least**-1)) ** -1  # density falls as the square of the radius
        radius *= random.uniform(0.5, 1.0)
        centre, colour = random.uniform(0, side, 2), palette[random.integers(len(palette))] + random.normal(0, 0.05, 3)
        corners = 24 if random.random() < 0.4 else int(random.integers(3, 7))
        angles = (
            np.sort(random.uniform(0, 2 * np.pi, corners)) if corners < 24 else np.linspace(0, 2 * np.pi, 24, False)
        )
        outline = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        cv2.fillPoly(canvas, [_fixed(outline)], colour.tolist(), cv2.LINE_AA, 4)
    return canvas + (0.04 * _noise(side, random, 1.0))[..., None]


def script(side: int, random: Random) -> Array:
    """Rows of glyphs of two to five strokes each; an alphabet of its own for every picture."""
    height = float(random.uniform(10, 36))
    alphabet = [random.uniform(0, 1, (int(random.integers(2, 6)), 3, 2)) for _ in range(26)]
    field = (0.04 * _noise(side, random, 1.6)).astype(np.float32)
    ink, width = random.choice([-1.0, 1.0]) * random.uniform(0.3, 0.6), max(1, round(height / 9))
    for top in np.arange(height * 0.3, side, height * random.uniform(1.3, 1.8)):
        left = random.uniform(0, 2 * height)
        while left < side:
            for stroke in alphabet[random.integers(26)]:
                points = stroke * [0.6 * height, height] + [left, top]
                cv2.polylines(field, [_fixed(points)], False, ink, width, cv2.LINE_AA, 4)
            left += height * (0.75 if random.random() < 0.85 else 1.5)
    turned = cv2.getRotationMatrix2D((side / 2, side / 2), float(random.uniform(-30, 30)), 1.2)
    return _coloured(cv2.warpAffine(field, turned, (side, side), borderMode=cv2.BORDER_REFLECT), random)


FAMILIES: dict[str, Callable[[int, Random], Array]] = {
    "octaves": octaves,
    "waves": waves,
    "blobs": blobs,
    "lines": lines,
    "leaves": leaves,
    "script": script,
}
"""By name, in the order in which numbers take them."""


# -- pieces -----------------------------------------------------------------------------------------------------------


def _noise(side: int, random: Random, slope: float) -> Array:
    """Noise of standard deviation 1, seamless, with amplitude as frequency to the power of -slope."""
    fy, fx = np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij")
    frequency = np.hypot(fy, fx)
    frequency[0, 0] = np.inf
    field = irfft2(rfft2(random.standard_normal((side, side))) * frequency**-slope, s=(side, side))
    return np.asarray(field / field.std())


def _coloured(field: Array, random: Random) -> Array:
    """A grey field about 0 as colours about a random one; dark and light differ in hue as well."""
    ground, way = random.uniform(0.2, 0.8, 3), random.normal(1, 0.35, 3)
    bent = random.normal(0, 0.3, 3)
    return ground + field[..., None] * way + (field[..., None] ** 2) * bent


def _ramp(side: int, random: Random) -> Array:
    """From -0.5 to 0.5 across the picture, some way."""
    along = (np.arange(side) + 0.5) / side - 0.5
    angle = random.uniform(0, 2 * np.pi)
    return np.cos(angle) * along[None, :] + np.sin(angle) * along[:, None]


def _ellipse(field: Array, centre: Array, axes: Array, degrees: float, level: float) -> None:
    """Add a soft ellipse to the field, in place; beyond four half axes nothing is added."""
    reach = 4 * axes.max()
    low = np.maximum(np.floor(centre - reach), 0).astype(int)
    high = np.minimum(np.ceil(centre + reach), field.shape[0]).astype(int)
    x, y = np.meshgrid(np.arange(low[0], high[0]) + 0.5, np.arange(low[1], high[1]) + 0.5)
    turn = np.deg2rad(degrees)
    along = (x - centre[0]) * np.cos(turn) + (y - centre[1]) * np.sin(turn)
    across = (y - centre[1]) * np.cos(turn) - (x - centre[0]) * np.sin(turn)
    field[low[1] : high[1], low[0] : high[0]] += level * np.exp(-((along / axes[0]) ** 2) - (across / axes[1]) ** 2)


def _fixed(points: Array) -> Array:
    """Points as OpenCV takes parts of a pixel: whole sixteenths, from the centre of the first pixel."""
    return np.asarray(np.round((points - 0.5) * 16), dtype=np.int32)


if __name__ == "__main__":
    sys.exit(main())
