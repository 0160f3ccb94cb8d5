"""Fixed inputs of a run's data that are looked at with every checkpoint's encoder.

Axes: c channels, size = (z, y, x) or (y, x), n patch tokens (row-major), d features.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from patchatlas.dense import encode, to_pixels
from patchatlas.encoders.protocol import Encoder
from patchatlas.errors import InputError
from patchatlas.features import FeatureMap, fit_pca
from patchatlas.geometry.buckets import fit
from patchatlas.geometry.sampling import resample
from patchatlas.io.images import read_image
from patchatlas.pretrain.config import PretrainConfig
from patchatlas.pretrain.crops.photos import PhotoViews
from patchatlas.pretrain.crops.tokens import token_shares
from patchatlas.pretrain.crops.views import Views
from patchatlas.pretrain.data import Opened

LARGER = 2
"""An anchor is so many times as long as a large crop, where the volume is."""


@dataclass(frozen=True, eq=False)
class Anchor:
    """A fixed input.

    Attributes:
        name: of its volume or photograph.
        pixels: in 0..1, sides multiples of the patch.
        shown: patches of which at least half is foreground.
        spacing: of its voxels along each axis, mm; 1 in photographs.
    """

    name: str
    pixels: Float[Tensor, "c *size"]
    shown: Bool[Tensor, " n"]
    spacing: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Colours:
    """Principal components of an anchor's tokens.

    Attributes:
        values: of every voxel, that of its patch, 0..1 in each of three channels; 0 where nothing is shown.
        anchor: whose.
    """

    values: Float[Tensor, "3 *size"]
    anchor: Anchor


def anchors_of(opened: Opened, count: int) -> list[Anchor]:
    """Up to `count` inputs, spread evenly over the data: the middles of volumes, or photographs as a whole.

    Raises:
        InputError: the data is of another kind.
    """
    source = opened.source
    count = min(count, len(source))
    chosen = [round(k * (len(source) - 1) / max(1, count - 1)) for k in range(count)]
    if isinstance(source, Views):
        return [_of_volume(source, index) for index in chosen]
    if isinstance(source, PhotoViews):
        return [_of_photo(source, index) for index in chosen]
    raise InputError("anchors are taken from a cache of volumes or a folder of photographs")


def colours_of(anchors: Sequence[Anchor], encoder: Encoder, config: PretrainConfig) -> list[Colours]:
    """The first three principal components of the shown tokens of all anchors, one basis and scale for all of them.

    Signs are fixed, but from one encoder to the next components may change places, and so colours.
    """
    sides = config.crops.globals.size
    windows = sides[0] if len(set(sides)) == 1 else None
    maps = [encode(anchor.pixels, encoder, windows=windows) for anchor in anchors]
    shown = torch.cat([one.tokens[anchor.shown] for one, anchor in zip(maps, anchors, strict=True)])
    mean = shown.mean(0)
    # Tokens that are not shown stand at the mean of those that are, where they pull no axis.
    flat = [
        replace(one, tokens=torch.where(anchor.shown[:, None], one.tokens, mean))
        for one, anchor in zip(maps, anchors, strict=True)
    ]
    basis = fit_pca(flat, 3)
    found = [basis.project(one).flatten(1) for one in maps]
    every = torch.cat([one[:, anchor.shown] for one, anchor in zip(found, anchors, strict=True)], dim=1)
    low, high = (every.quantile(at, dim=1, keepdim=True) for at in (0.02, 0.98))
    scaled = [((one - low) / (high - low).clamp(min=1e-9)).clamp(0, 1) for one in found]
    return [
        Colours(_over_voxels(values * anchor.shown, one, encoder.spec.patch), anchor)
        for values, one, anchor in zip(scaled, maps, anchors, strict=True)
    ]


def _over_voxels(values: Float[Tensor, "3 n"], features: FeatureMap, patch: Sequence[int]) -> Float[Tensor, "3 *size"]:
    grid = values.reshape(3, *features.grid.shape)
    for axis, side in enumerate(patch):
        grid = grid.repeat_interleave(side, dim=1 + axis)
    return grid


def _of_volume(views: Views, index: int) -> Anchor:  # type: ignore[type-arg]
    record, config = views.volumes.records[index], views.config
    table = views.ground(record).tables[config.globals.foreground]
    steps = [math.lcm(p, cell) for p, cell in zip(config.patch, table.cell, strict=True)]
    sides = zip(record.size_zyx, config.globals.size, steps, strict=True)
    size = [min(whole, LARGER * side) // step * step for whole, side, step in sides]
    if not math.prod(size):
        raise InputError(f"{record.id} of {record.size_zyx} voxels is smaller than whole patches and cells, {steps}")
    places = zip(record.size_zyx, size, table.cell, strict=True)
    first = [(whole - side) // 2 // cell for whole, side, cell in places]
    start = [at * cell for at, cell in zip(first, table.cell, strict=True)]
    cells = [side // cell for side, cell in zip(size, table.cell, strict=True)]
    grid = [side // p for side, p in zip(size, config.patch, strict=True)]
    shares, _ = token_shares(table, first, cells, grid)
    hu = torch.from_numpy(views.volumes.read(record, start, size).astype(np.float32))[None]
    low, high = config.window_hu
    pixels = ((hu - low) / (high - low)).clamp(0, 1)
    return Anchor(record.id, pixels, torch.from_numpy(shares >= 0.5).flatten(), record.spacing_zyx)


def _of_photo(views: PhotoViews, index: int) -> Anchor:
    photo = views.photos.records[index]
    pixels = to_pixels(read_image(photo.path))
    long_side = LARGER * max(views.config.globals.size)
    frame = fit(tuple(pixels.shape[1:]), long_side=long_side, patch=views.config.patch)
    drawn = resample(pixels, frame)
    cells = math.prod(side // p for side, p in zip(frame.size, views.config.patch, strict=True))
    return Anchor(photo.id, drawn, torch.ones(cells, dtype=torch.bool), (1.0, 1.0))
