"""What the people of the generated videos look like: a body with clothes, drawn from a seed, or stamps from a folder.

A sprite is (h, w, 4) RGBA, float32, 0..1, alpha 0 or 1 so that visible pixels can be counted.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Sprite = NDArray[np.float32]

BASE_HW = (132, 58)
"""A grown person at scale 1."""

STAMPS = Path("/usr/share/tuxpaint/stamps")
"""Where Debian's tuxpaint-stamps-default puts its pictures."""


def person(rng: np.random.Generator) -> Sprite:
    """Head, upper body, legs and a bag, each with its colour and cloth."""
    h, w = BASE_HW
    rows, columns = np.mgrid[0:h, 0:w]
    y, x = (rows + 0.5) / h, (columns + 0.5) / w - 0.5
    picture = np.zeros((h, w, 4), np.float32)
    wide = rng.uniform(0.85, 1.1)
    parts = [
        (_ellipse(x, y, 0.0, 0.09, 0.17, 0.085), skin(rng), None),
        (_box(x, y, 0.30 * wide, 0.16, rng.uniform(0.50, 0.60)), colour(rng), cloth(rng, h, w)),
        (_legs(x, y, wide), colour(rng), cloth(rng, h, w)),
        (_ellipse(x, y, rng.choice([-0.3, 0.3]), rng.uniform(0.35, 0.55), 0.14, 0.08), colour(rng), None),
        (_ellipse(x, y - 0.035, 0.0, 0.0, 0.19, 0.06), colour(rng), None),
    ]
    for mask, tone, pattern in parts:
        shade = tone if pattern is None else tone * pattern[..., None] + (1 - pattern[..., None]) * colour(rng)
        picture[..., :3] = np.where(mask[..., None], shade, picture[..., :3])
        picture[..., 3] = np.maximum(picture[..., 3], mask)
    grain = 1 + 0.08 * rng.standard_normal((h, w, 1)).astype(np.float32)
    picture[..., :3] = np.clip(picture[..., :3] * grain, 0, 1)
    return picture


def twin(sprite: Sprite, rng: np.random.Generator, *, difference: float) -> Sprite:
    """Another person in nearly the same clothes: colours differ by `difference` (0..1 a channel, as a standard
    deviation) in each of four bands from head to foot, the grain is another."""
    out = sprite.copy()
    for band in np.array_split(np.arange(sprite.shape[0]), 4):
        out[band, :, :3] += difference * rng.standard_normal(3).astype(np.float32)
    out[..., :3] *= 1 + 0.05 * rng.standard_normal((*sprite.shape[:2], 1)).astype(np.float32)
    out[..., :3] = np.clip(out[..., :3], 0, 1)
    return out


def stamps(folder: Path, count: int, rng: np.random.Generator) -> list[Sprite]:
    """`count` pictures with an outline from a folder of PNG files, about as large as a person."""
    paths = sorted(path for path in folder.rglob("*.png") if "mirror" not in path.name)
    chosen: list[Sprite] = []
    for index in rng.permutation(len(paths)):
        with Image.open(paths[index]) as opened:
            if opened.mode != "RGBA" or not 0.4 <= opened.width / opened.height <= 2.0:
                continue
            scale = (BASE_HW[0] * BASE_HW[1] / (opened.width * opened.height)) ** 0.5
            size = (max(8, round(opened.width * scale)), max(8, round(opened.height * scale)))
            picture = np.asarray(opened.resize(size, Image.Resampling.BILINEAR), np.float32) / 255
        outline = picture[..., 3] >= 0.5
        if outline.mean() < 0.3:
            continue
        chosen.append(np.concatenate([picture[..., :3], outline[..., None].astype(np.float32)], axis=2))
        if len(chosen) == count:
            return chosen
    raise SystemExit(f"{folder} has {len(chosen)} usable stamps, {count} are needed; install tuxpaint-stamps-default")


def colour(rng: np.random.Generator) -> NDArray[np.float32]:
    """Clothes: as often grey, black or white as coloured."""
    if rng.random() < 0.4:
        return np.full(3, rng.uniform(0.08, 0.9), np.float32) + 0.03 * rng.standard_normal(3).astype(np.float32)
    return rng.uniform(0.05, 0.95, 3).astype(np.float32)


def skin(rng: np.random.Generator) -> NDArray[np.float32]:
    """From dark to light."""
    return rng.uniform(0.35, 0.95) * np.array([1.0, 0.78, 0.65], np.float32)


def cloth(rng: np.random.Generator, h: int, w: int) -> NDArray[np.float32]:
    """Share of the first of two colours: plain, stripes across, stripes along or checks."""
    rows, columns = np.mgrid[0:h, 0:w]
    period = rng.integers(6, 20)
    across, along = (rows // period) % 2, (columns // period) % 2
    kinds = [np.ones((h, w)), across, along, across ^ along]
    return np.asarray(kinds[rng.integers(len(kinds))], np.float32)


def _ellipse(x: NDArray[np.float64], y: NDArray[np.float64], cx: float, cy: float, rx: float, ry: float) -> Sprite:
    return np.asarray(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1)


def _box(x: NDArray[np.float64], y: NDArray[np.float64], half: float, top: float, bottom: float) -> Sprite:
    return np.asarray((np.abs(x) <= half) & (y >= top) & (y <= bottom))


def _legs(x: NDArray[np.float64], y: NDArray[np.float64], wide: float) -> Sprite:
    return np.asarray((np.abs(np.abs(x) - 0.14 * wide) <= 0.11) & (y >= 0.5) & (y <= 1))
