"""Blend windows: how much each pixel of a tile counts where tiles overlap.

None stands for uniform. Windows are positive everywhere, so that a pixel which only one tile covers keeps that tile's
value. Axes: *size of a tile, array order.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from patchatlas.errors import InputError


def hann(size: Sequence[int], *, power: int = 1, device: torch.device | None = None) -> Float[Tensor, "*size"]:
    """Weights that fall from the middle to the border and are zero nowhere: sin^2(pi (i + 0.5) / n) along each axis.

    It is the Hann window read at cell centres (Harris 1978, eq. 27b, shifted by half a cell). With Fourier kernels
    take power 3: its spectrum falls so fast that the product of window and tile stays within the kernel's band.

    Args:
        size: pixels of a tile.
        power: raises the weights, at least 1.
        device: where to put it.

    Raises:
        InputError: a power below 1.
    """
    if power < 1:
        raise InputError(f"power {power} is below 1")
    return _separable([torch.sin(math.pi * _centres(n) / n) ** (2 * power) for n in size], device)


def gaussian(
    size: Sequence[int], *, sigma: float = 0.125, device: torch.device | None = None
) -> Float[Tensor, "*size"]:
    """A bell around the middle of the tile (between the two middle pixels where a side is even), 1 at its top.

    Args:
        size: pixels of a tile.
        sigma: standard deviation as a part of each side.
        device: where to put it.

    Raises:
        InputError: sigma is not positive.
    """
    if not sigma > 0:
        raise InputError(f"sigma {sigma} is not positive")
    return _separable([torch.exp(-0.5 * ((_centres(n) / n - 0.5) / sigma).square()) for n in size], device)


def probe_intensity(
    probe: Float[Tensor, "*size"] | Complex[Tensor, "*size"], *, floor: float = 1e-3
) -> Float[Tensor, "*size"]:
    """|probe|^2 over its peak: pixels count as much as light fell on them.

    Args:
        probe: illumination of a tile; sum the intensities of several modes yourself and give their root.
        floor: least weight, so that pixels in the dark still count where nothing else covers them.

    Raises:
        InputError: the probe is zero everywhere or not finite, or the floor is not in 0 < floor <= 1.
    """
    if not 0 < floor <= 1:
        raise InputError(f"floor {floor} is not in 0 < floor <= 1")
    intensity = probe.abs().square()
    peak = float(intensity.max())
    if not (0 < peak < math.inf and bool(torch.isfinite(intensity).all())):
        raise InputError(f"the probe has a peak intensity of {peak}; it must be finite and not dark everywhere")
    return (intensity / peak).clamp(min=floor)


def _centres(n: int) -> Tensor:
    return torch.arange(n, dtype=torch.float64) + 0.5


def _separable(along: list[Tensor], device: torch.device | None) -> Tensor:
    weights = torch.ones(tuple(len(w) for w in along), dtype=torch.float64)
    for axis, values in enumerate(along):
        shape = [1] * len(along)
        shape[axis] = -1
        weights = weights * values.reshape(shape)
    return weights.to(device=device, dtype=torch.float32)
