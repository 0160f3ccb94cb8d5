"""How the values of a crop of a volume are varied: in HU as a scanner would, then through the window to 0..1.

Every number comes from the generator passed in, in a fixed order, so a crop is made again from its seed. In order:
flips, fewer voxels and back, blur, noise (all in HU), window, gamma.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import gaussian_filter
from torch import Tensor

from patchatlas.geometry.frame import Frame
from patchatlas.geometry.sampling import resample
from patchatlas.pretrain.crops.config import VolumeAugment

AIR_HU = -1000.0
"""What lies around a volume: air, by the definition of the Hounsfield scale."""


def draw_flips(augment: VolumeAugment, rng: np.random.Generator) -> tuple[int, ...]:
    """The axes that a crop is flipped along; axis 0 runs from foot to head, 1 from back to front, 2 from left to
    right of the body."""
    chances = (augment.flip_head_foot, augment.flip_front_back, augment.flip_left_right)
    return tuple(axis for axis, chance in enumerate(chances) if rng.random() < chance)


def vary(
    hu: Float[Tensor, "1 *size"],
    augment: VolumeAugment,
    window: tuple[float, float],
    rng: np.random.Generator,
    *,
    floor: float,
) -> Float[Tensor, "1 *size"]:
    """A crop as the network sees it, 0..1.

    Args:
        hu: the crop, HU.
        augment: chances and ranges.
        window: HU that become 0 and 1 where the window is not varied.
        rng: its state decides everything.
        floor: the lowest foreground threshold, HU; no window begins above it.
    """
    if rng.random() < augment.low_resolution_prob:
        hu = coarse(hu, log_uniform(augment.low_resolution, rng))
    if rng.random() < augment.blur_prob:
        hu = blurred(hu, rng.uniform(*augment.blur_sigma))
    if rng.random() < augment.noise_prob:
        noise = torch.from_numpy(rng.standard_normal(tuple(hu.shape), dtype=np.float32))
        hu = torch.add(hu, noise, alpha=rng.uniform(*augment.noise_hu))
    if rng.random() < augment.window_prob:
        window = other_window(window, augment, rng, floor)
    shares = windowed(hu, window)
    if rng.random() < augment.gamma_prob:
        shares = shares.pow(log_uniform(augment.gamma, rng))
    return shares


def windowed(hu: Float[Tensor, "1 *size"], window: tuple[float, float]) -> Float[Tensor, "1 *size"]:
    """HU as shares of a window, 0 below it and 1 above."""
    low, high = window
    return ((hu - low) / (high - low)).clamp(0, 1)


def other_window(
    window: tuple[float, float], augment: VolumeAugment, rng: np.random.Generator, floor: float
) -> tuple[float, float]:
    """A window moved and made wider or narrower, never so that it hides foreground: it begins at `floor` or below."""
    middle = (window[0] + window[1]) / 2 + augment.window_shift_hu * rng.uniform(-1, 1)
    half = (window[1] - window[0]) / 2 * log_uniform(augment.window_width, rng)
    return min(middle - half, floor), middle + half


def coarse(hu: Float[Tensor, "1 *size"], factor: float) -> Float[Tensor, "1 *size"]:
    """The crop drawn with `factor` times fewer voxels along each axis, and back to its size."""
    size = tuple(hu.shape[1:])
    fewer = Frame.whole(size).resize([max(1, round(side / factor)) for side in size])
    return resample(resample(hu, fewer), Frame.whole(fewer.size).resize(size))


def blurred(hu: Float[Tensor, "c *size"], sigma: float) -> Float[Tensor, "c *size"]:
    """A Gaussian blur, each channel by itself; borders repeat.

    Args:
        hu: any values.
        sigma: standard deviation, voxels or pixels.
    """
    sigmas = (0.0, *[sigma] * (hu.ndim - 1))
    return torch.from_numpy(gaussian_filter(hu.numpy(), sigmas, mode="nearest", truncate=3.0))


def log_uniform(ends: tuple[float, float], rng: np.random.Generator) -> float:
    """A factor between two ends, spread evenly over its logarithm: halving is as likely as doubling."""
    return math.exp(rng.uniform(math.log(ends[0]), math.log(ends[1])))
