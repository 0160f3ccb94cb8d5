"""Scans whose truth is known: an object, a probe, positions, tiles and diffraction with photon noise.

Axes: n positions, h w pixels of a tile, rows cols pixels of the object. Positions are (x, y) of tile corners.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Complex64, Complex128, Float32, Float64
from numpy import ndarray
from torch import Tensor

from patchatlas.canvas.place import extract
from patchatlas.errors import UsageError
from patchatlas.io.scans.ptychopinn import write_ptychopinn

ScanPath = Literal["raster", "spiral", "fermat", "random"]
PATHS: tuple[str, ...] = get_args(ScanPath)

MARGIN = 20
"""Object pixels kept free between the outermost tiles and the border, so that no kernel reaches over it."""

FINEST_PX = 1.6
"""Sigma of the Gaussian that the object is smooth to: next to nothing is left above 3/8 cycles a pixel, so that the
tiles at sub-pixel positions are exact (see `patchatlas.canvas.taps`)."""

COARSEST_PX = 24.0
"""Sigma of the Gaussian whose blur is taken away: a tile then tells its own level, which diffraction cannot."""


@dataclass(frozen=True, eq=False)
class Simulation:
    """A scan and its truth.

    Attributes:
        object: complex transmission.
        probe: complex; the sum of its squares is the photons of a frame.
        positions: true tile corners, (x, y) object pixels.
        recorded: the same as a motor would report them: off by the jitter.
        tiles: the object at `positions`, by Fourier interpolation.
        diffraction: square roots of the counts, zero frequency in the middle.
    """

    object: Complex64[Tensor, "rows cols"]
    probe: Complex64[Tensor, "h w"]
    positions: Float64[Tensor, "n 2"]
    recorded: Float64[Tensor, "n 2"]
    tiles: Complex64[Tensor, "n h w"]
    diffraction: Float32[Tensor, "n h w"]


def simulate(
    object: Complex64[Tensor, "rows cols"],
    probe: Complex64[Tensor, "h w"],
    positions: Float64[Tensor, "n 2"],
    *,
    generator: np.random.Generator,
    jitter: float = 0.0,
    noise: bool = True,
) -> Simulation:
    """Scan an object: |FFT(probe * tile)|^2 photons a pixel, orthonormal FFT, Poisson-distributed.

    Args:
        object: complex transmission, see `make_object`.
        probe: complex, see `make_probe`.
        positions: tile corners, see `scan_path`.
        generator: of the jitter and the noise.
        jitter: RMS error of the recorded positions in pixels along each axis; uniform, so at most sqrt(3) of it.
        noise: Poisson noise; without it the exact square roots.
    """
    tiles = extract(object[None], positions, tuple(probe.shape), interpolation="fourier")[:, 0]
    far = torch.fft.fftshift(torch.fft.fft2(probe * tiles, norm="ortho"), dim=(1, 2))
    photons = far.abs().square().double().numpy()
    counts = generator.poisson(photons) if noise else photons
    half_width = jitter * math.sqrt(3)
    error = generator.uniform(-half_width, half_width, size=tuple(positions.shape))
    return Simulation(
        object=object,
        probe=probe,
        positions=positions,
        recorded=positions + torch.from_numpy(error),
        tiles=tiles,
        diffraction=torch.from_numpy(np.sqrt(counts).astype(np.float32)),
    )


def make_object(size_hw: tuple[int, int], generator: np.random.Generator) -> Complex64[Tensor, "rows cols"]:
    """A random object: fine texture over discs and bars, amplitude 0.6 to 1, phase about -0.9 to 0.9 rad.

    Nothing in it repeats or is symmetric, so that a wrong sign, axis or order shows.
    """
    rows, columns = size_hw
    y, x = np.mgrid[:rows, :columns]
    field = np.zeros(size_hw)
    for _ in range(max(12, rows * columns // 200)):
        cy, cx, angle = generator.uniform(0, rows), generator.uniform(0, columns), generator.uniform(0, np.pi)
        u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        a, b = generator.uniform(2, 12), generator.uniform(2, 6)
        inside = (u / a) ** 2 + (v / b) ** 2 < 1 if generator.random() < 0.5 else (abs(u) < a) & (abs(v) < b / 2)
        field += inside * generator.uniform(-1, 1)
    field += 0.15 * generator.standard_normal(size_hw)
    field = _band(field)
    phase = 0.9 * np.tanh(field / (1.5 * field.std()))
    made: Tensor = torch.from_numpy((0.8 - 0.2 * phase / 0.9) * np.exp(1j * phase)).to(torch.complex64)
    return made


def make_probe(side: int, *, photons: float = 1e6) -> Complex64[Tensor, "h w"]:
    """A defocused, slightly astigmatic Gaussian beam in the middle of `side` x `side` pixels.

    Astigmatic, so that mirrored or turned tiles do not give the same diffraction.

    Args:
        side: pixels.
        photons: sum of |probe|^2.
    """
    at = np.arange(side) - side // 2
    x, y = np.meshgrid(at, at)
    sigma = side / 6
    spread = np.exp(-(x**2 + y**2) / (4 * sigma**2))
    curvature = 5.0 * ((x / side) ** 2 + 1.4 * (y / side) ** 2 + 0.5 * x * y / side**2)
    probe: Complex128[ndarray, "h w"] = spread * np.exp(2j * np.pi * curvature)
    probe *= math.sqrt(photons) / np.linalg.norm(probe)
    made: Tensor = torch.from_numpy(probe).to(torch.complex64)
    return made


def scan_path(
    kind: ScanPath, count: int, *, object_hw: tuple[int, int], side: int, generator: np.random.Generator
) -> Float64[Tensor, "n 2"]:
    """Tile corners along a path that keeps every tile `MARGIN` pixels off the border, off the pixel grid.

    * raster: rows of equal steps, down the object, each begun anew at the left.
    * spiral: Archimedes', equal steps along it.
    * fermat: r = c sqrt(k), turned by the golden angle each (Vogel 1979; Huang et al., Optics Express 22, 2014).
    * random: uniform over the square.

    Raises:
        UsageError: no such path, no positions, or an object too small for a tile and its margins.
    """
    rooms = [n - side - 2 * MARGIN for n in reversed(object_hw)]
    if min(rooms) < 1 or count < 1:
        raise UsageError(
            f"{count} tiles of {side} pixels do not fit on an object of {object_hw[0]} x {object_hw[1]}: a tile needs "
            f"{side + 2 * MARGIN + 1} pixels with its margins, and there must be one"
        )
    k = np.arange(count)
    if kind == "raster":
        columns = math.ceil(math.sqrt(count * rooms[0] / rooms[1]))
        rows = math.ceil(count / columns)
        unit = np.stack([(k % columns + 0.31) / columns, (k // columns + 0.43) / rows], axis=1)
    elif kind == "spiral":
        angle = np.sqrt(4 * np.pi * (k + 0.5))  # equal arcs of r = angle / (2 pi): arc length ~ angle^2 / (4 pi)
        radius = angle / angle.max() if count > 1 else np.zeros(1)
        unit = 0.5 + 0.5 * np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    elif kind == "fermat":
        angle = k * np.pi * (3 - math.sqrt(5))
        radius = np.sqrt((k + 0.5) / count)
        unit = 0.5 + 0.5 * np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    elif kind == "random":
        unit = generator.random((count, 2))
    else:
        raise UsageError(f"there is no path {kind!r}; paths are: {', '.join(PATHS)}")
    positions: Tensor = torch.from_numpy(MARGIN + unit * np.array(rooms))
    return positions


def save_simulation(path: Path, simulation: Simulation, *, metadata: Mapping[str, Any]) -> None:
    """Write as a PtychoPINN NPZ; `xcoords_true` and `ycoords_true` hold the true positions, of tile centres as well.

    Raises:
        InputError: the folder does not exist.
    """
    to_centre = simulation.probe.shape[0] // 2
    true = (simulation.positions + to_centre).numpy()
    write_ptychopinn(
        path,
        centres=(simulation.recorded + to_centre).numpy(),
        diffraction=simulation.diffraction.numpy(),
        probe=simulation.probe.numpy(),
        image=simulation.object.numpy(),
        patches=simulation.tiles.numpy(),
        metadata=metadata,
        more={"xcoords_true": true[:, 0], "ycoords_true": true[:, 1]},
    )


def _band(field: ndarray) -> ndarray:
    """The part of a field between the finest and the coarsest scale, by Gaussians in the Fourier domain."""
    v = np.hypot(*np.meshgrid(np.fft.fftfreq(field.shape[1]), np.fft.fftfreq(field.shape[0])))
    fine, coarse = (np.exp(-2 * (np.pi * sigma * v) ** 2) for sigma in (FINEST_PX, COARSEST_PX))
    band: ndarray = np.fft.ifft2(np.fft.fft2(field) * fine * (1 - coarse)).real
    return band
