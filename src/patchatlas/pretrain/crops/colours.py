"""How the colours of a crop of a photograph are varied: brightness, contrast, saturation, hue, grey, inverted lights.

Axes: c = 3 channels (red, green, blue), h w pixels; levels 0..1. Formulas are the usual ones: brightness multiplies,
contrast moves away from the mean luma, saturation away from a pixel's own luma, and hue turns the two colour axes of
YIQ (FCC 1953, NTSC), which keeps luma. `lit` changes the light as a whole: gains, contrast, level, gamma, slope.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.colour import LUMA
from patchatlas.pretrain.crops.augment import log_uniform
from patchatlas.pretrain.crops.config import PhotoAugment, PhotoLight

Rgb = Float[Tensor, "3 h w"]

_TO_YIQ = torch.tensor([LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)], dtype=torch.float64)
_FROM_YIQ = torch.linalg.inv(_TO_YIQ)


def jittered(pixels: Rgb, augment: PhotoAugment, rng: np.random.Generator) -> Rgb:
    """Brightness, contrast, saturation and hue changed by random amounts, in random order; levels are cut to 0..1."""
    changes = (
        (brighter, 1 + augment.brightness * rng.uniform(-1, 1)),
        (contrasted, 1 + augment.contrast * rng.uniform(-1, 1)),
        (saturated, 1 + augment.saturation * rng.uniform(-1, 1)),
        (turned, augment.hue * rng.uniform(-1, 1)),
    )
    for k in rng.permutation(len(changes)):
        change, amount = changes[k]
        pixels = change(pixels, amount).clamp(0, 1)
    return pixels


def brighter(pixels: Rgb, factor: float) -> Rgb:
    """All levels times a factor."""
    return pixels * factor


def contrasted(pixels: Rgb, factor: float) -> Rgb:
    """Levels moved away from the mean luma of the picture by a factor."""
    mean = luma(pixels).mean()
    return mean + (pixels - mean) * factor


def saturated(pixels: Rgb, factor: float) -> Rgb:
    """Levels moved away from the luma of their pixel by a factor; 0 is grey."""
    level = luma(pixels)
    return level + (pixels - level) * factor


def turned(pixels: Rgb, turns: float) -> Rgb:
    """All hues moved along the colour circle; luma stays.

    Args:
        pixels: the picture.
        turns: parts of the circle, either way.
    """
    cos, sin = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
    turn = torch.tensor([[1, 0, 0], [0, cos, -sin], [0, sin, cos]], dtype=torch.float64)
    return torch.einsum("ij,jhw->ihw", (_FROM_YIQ @ turn @ _TO_YIQ).to(pixels.dtype), pixels)


def grey(pixels: Rgb) -> Rgb:
    """Luma in all channels."""
    return luma(pixels).expand_as(pixels).contiguous()


def solarised(pixels: Rgb, above: float) -> Rgb:
    """Levels from `above` on inverted, as in an overexposed print."""
    return torch.where(pixels >= above, 1 - pixels, pixels)


def lit(pixels: Rgb, light: PhotoLight, rng: np.random.Generator) -> Rgb:
    """Pixels under other light, 0..1: all changes of `light` but noise, by random amounts."""
    gain = torch.from_numpy((1 + light.gain * rng.uniform(-1, 1, 3)).astype(np.float32))[:, None, None]
    contrast, gamma = log_uniform(light.contrast, rng), log_uniform(light.gamma, rng)
    level = light.level * rng.uniform(-1, 1)
    down, right = light.slope * rng.uniform(-1, 1, 2)
    mean = (pixels.mean(dim=(1, 2), keepdim=True) * gain).mean()
    pixels = torch.addcmul(mean * (1 - contrast) + level, pixels, gain * contrast).clamp_(0, 1).pow_(gamma)
    h, w = pixels.shape[1:]
    slope = 1 + down * _across(h)[:, None] + right * _across(w)
    return pixels.mul_(slope).clamp_(0, 1)


def noisy(pixels: Rgb, most: float, rng: np.random.Generator) -> Rgb:
    """Pixels with Gaussian noise of a standard deviation between 0 and `most`."""
    drawn = torch.from_numpy(rng.standard_normal(tuple(pixels.shape), dtype=np.float32))
    return torch.add(pixels, drawn, alpha=rng.uniform(0, most))


def _across(n: int) -> Float[Tensor, " n"]:
    """Pixel centres from edge to edge as numbers between -1 and 1."""
    return (torch.arange(n) + 0.5) * (2 / n) - 1


def luma(pixels: Rgb) -> Float[Tensor, "1 h w"]:
    """How bright each pixel is."""
    return (pixels * pixels.new_tensor(LUMA).reshape(3, 1, 1)).sum(dim=0, keepdim=True)
