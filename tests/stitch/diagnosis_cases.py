"""Scans whose truth is known, for the diagnosis: objects, paths, exact tiles, positions of two measured scans."""

import bz2
import io
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import torch

from patchatlas.canvas.place import place
from patchatlas.stitch.diagnosis import Picture

PTYCHO = Path(__file__).parents[1] / "data" / "ptycho"
OBJECT_PIXEL_M = 55e-6 / ((3.65e-3 + 1.12) / 3.65e-3)  # of the measured near-field scan: detector pixel / magnification


@cache
def make_object(size, kind="complex", feature=2.0, seed=0):
    """A random object without symmetry, smooth to `feature` pixels: complex, real, or a weak phase, exp(0.01 i f)."""
    generator = np.random.default_rng(seed)

    def field():
        v = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
        low = np.exp(-2 * (np.pi * feature * v) ** 2)
        low[0, 0] = 0
        made = np.fft.ifft2(np.fft.fft2(generator.standard_normal((size, size))) * low).real
        return made / made.std()

    if kind == "complex":
        return np.exp(0.9j * np.tanh(field())) * (0.8 + 0.1 * np.tanh(field()))
    return field() if kind == "real" else np.exp(0.01j * field())


def cut(thing, positions, side):
    """Tiles (n, 1, side, side) of a periodic object at any positions, exact: its Fourier series, summed there."""
    spectrum = torch.from_numpy(np.fft.fft2(thing) / thing.size)
    fy, fx = (torch.from_numpy(np.fft.fftfreq(n)) for n in thing.shape)
    at = torch.arange(side)
    tiles = [
        torch.exp(2j * torch.pi * (y + at)[:, None] * fy)
        @ (spectrum @ torch.exp(2j * torch.pi * fx[:, None] * (x + at)))
        for x, y in positions
    ]
    made = torch.stack(tiles)[:, None]
    return made if np.iscomplexobj(thing) else made.real


def scan(path, *, count=100, size=160, side=24):
    """Positions of tile corners, (x, y), off the pixel grid, that keep 3 px off the border."""
    generator = np.random.default_rng(7)
    room = size - side - 6
    k = np.arange(count)
    if path == "raster":
        columns = int(np.ceil(np.sqrt(count)))
        unit = np.stack([(k % columns + 0.31) / columns, (k // columns + 0.43) / columns], axis=1)
    elif path == "spiral":
        angle = np.sqrt(4 * np.pi * (k + 0.5))
        unit = 0.5 + 0.5 * (angle / angle.max())[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    elif path == "fermat":
        angle = k * np.pi * (3 - np.sqrt(5))
        unit = 0.5 + 0.5 * np.sqrt((k[:, None] + 0.5) / count) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    elif path == "random":
        unit = generator.random((count, 2))
    elif path == "row":
        unit = np.stack([(k + 0.37) / count, np.full(count, 0.511)], axis=1)
    elif path == "single":
        unit = np.array([[0.4321, 0.5678]])
    else:
        raise KeyError(path)
    return torch.from_numpy(3 + unit * room)


@cache
def measured(name):
    """Positions (x, y) of tile corners of a measured scan, in object pixels, moved next to zero."""
    if name == "siemens":
        with bz2.open(PTYCHO / "siemens-star-small.npz.bz2") as packed, np.load(io.BytesIO(packed.read())) as held:
            rows_columns = held["scan"][0].astype(np.float64)
    else:
        with h5py.File(PTYCHO / "PETRAIII_P25_Near_Field_Ptycho.cxi") as file:
            metres = file["entry_1/sample_1/geometry_1/translation"][:].astype(np.float64)
        rows_columns = metres[:, 1::-1] / OBJECT_PIXEL_M  # two signs cancel in this file
    return torch.from_numpy((rows_columns - rows_columns.min(axis=0) + 3)[:, ::-1].copy())


@cache
def measured_tiles(name):
    """Tiles of 32 x 32 of an object of ours at these positions."""
    positions = measured(name)
    return cut(make_object(int(positions.max()) + 40), positions, 32)


def stitched(tiles, positions, **options):
    """The right picture."""
    return Picture.of(place(tiles, positions, **options))
