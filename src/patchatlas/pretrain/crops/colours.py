"""How the colours of a crop of a photograph are varied: brightness, contrast, saturation, hue, grey, inverted lights.

Axes: c = 3 channels (red, green, blue), h w pixels; levels 0..1. Formulas are the usual ones: brightness multiplies,
contrast moves away from the mean luma, saturation away from a pixel's own luma, and hue turns the two colour axes of
YIQ (FCC 1953, NTSC), which keeps luma.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.colour import LUMA
from patchatlas.pretrain.crops.config import PhotoAugment

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


def luma(pixels: Rgb) -> Float[Tensor, "1 h w"]:
    """How bright each pixel is."""
    return (pixels * pixels.new_tensor(LUMA).reshape(3, 1, 1)).sum(dim=0, keepdim=True)
