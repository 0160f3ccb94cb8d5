"""The only resampling in the house: read a map at points, and draw the pixels of a frame.

Axes: d feature or c channels first, then the plane (h, w) or (z, h, w). Everything is bilinear (trilinear) with
`align_corners=False`, which is the continuous-plane rule.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from patchatlas.errors import ShapeError
from patchatlas.geometry.frame import Frame

Fill = Literal["edge"] | tuple[float, ...]

_BLOCK = 64


def sample(values: Float[Tensor, "d *size"], points: Float[Tensor, "p ndim"]) -> Float[Tensor, "p d"]:
    """Read `values` at continuous points, linearly between pixel centres.

    Args:
        values: a map in array order; pixel (r, c) has its centre at the point (c + 0.5, r + 0.5).
        points: (x, y[, z]) in the plane of the map; outside the outermost centres the nearest value is taken.

    Returns:
        float32, one row a point.
    """
    size = values.shape[1:]
    if points.shape[1] != len(size):
        raise ShapeError(f"points with {points.shape[1]} coordinates cannot be read from a map of {tuple(size)}")
    extent = torch.tensor(tuple(size)[::-1], dtype=torch.float64, device=points.device)
    normalised = (2 * points.to(torch.float64) / extent - 1).to(device=values.device, dtype=torch.float32)
    at = normalised.reshape(1, *([1] * (len(size) - 1)), -1, len(size))
    read = F.grid_sample(values.float()[None], at, mode="bilinear", padding_mode="border", align_corners=False)
    return read.reshape(values.shape[0], -1).T.contiguous()


def resample(pixels: Float[Tensor, "c *size"], frame: Frame, *, fill: Fill = "edge") -> Float[Tensor, "c *out"]:
    """Draw the pixels of `frame` from its source.

    Shrinking averages with a triangle as wide as the shrink (antialiasing), as Pillow's and torch's bilinear resize do,
    but with its centre of mass held exactly on the pixel's centre. Whole-pixel crops, flips and pads copy.

    Args:
        pixels: the source, `frame.source_size` in size.
        frame: what to draw.
        fill: what frame pixels with their centre outside the source get: `edge` repeats the border, a tuple gives one
            number a channel.

    Raises:
        ShapeError: the source has another size than the frame says, or `fill` has not one number a channel.
    """
    if tuple(pixels.shape[1:]) != frame.source_size:
        raise ShapeError(f"this frame was made from {frame.source_size}, the pixels are {tuple(pixels.shape[1:])}")
    if fill != "edge" and len(fill) != pixels.shape[0]:
        raise ShapeError(f"fill needs {pixels.shape[0]} numbers, one a channel, given {len(fill)}")
    out = pixels.permute(0, *(1 + a for a in frame.axes))
    # The last axis lies contiguous in memory: shrinking it first makes the rest of the work smaller at the best speed.
    for axis in reversed(range(frame.ndim)):
        out = _along(out, 1 + axis, frame.size[axis], frame.scale[axis], frame.shift[axis])
    if fill != "edge":
        out = _filled(out, frame, fill)
    return out.contiguous()


def _along(pixels: Tensor, axis: int, n_out: int, scale: Fraction, shift: Fraction) -> Tensor:
    """Resample one axis; output pixel i reads around the source coordinate scale * (i + 0.5) + shift."""
    n_in = pixels.shape[axis]
    if abs(scale) == 1 and shift.denominator == 1:
        first = shift if scale > 0 else shift - 1
        index = (int(first) + int(scale) * torch.arange(n_out, device=pixels.device)).clamp(0, n_in - 1)
        return pixels.index_select(axis, index)
    taps, weights = _triangle(n_in, n_out, float(scale), float(shift))
    before, after = math.prod(pixels.shape[:axis]), math.prod(pixels.shape[axis + 1 :])
    flat = pixels.reshape(before, n_in, after)
    # Neighbouring outputs read neighbouring inputs, so a block of them is one small dense product.
    blocks = []
    for start in range(0, n_out, _BLOCK):
        near, share = taps[start : start + _BLOCK], weights[start : start + _BLOCK]
        low, high = int(near.min()), int(near.max()) + 1
        dense = torch.zeros(len(near), high - low, dtype=torch.float64).scatter_add_(1, near - low, share).to(pixels)
        part = flat[:, low:high]
        blocks.append((part[..., 0] @ dense.T)[..., None] if after == 1 else dense @ part)
    return torch.cat(blocks, dim=1).reshape(*pixels.shape[:axis], n_out, *pixels.shape[axis + 1 :])


def _triangle(n_in: int, n_out: int, scale: float, shift: float) -> tuple[Tensor, Tensor]:
    """For each output its source pixels and their weights: a triangle of half-width max(1, |scale|) on its centre.

    As in Pillow's and torch's antialiased bilinear resize, weights outside the source are dropped and the rest
    renormalised. Read at whole pixels, such a triangle has its centre of mass up to 0.08 px beside its centre at
    scales that are no integers; each weight is therefore tilted, w (1 + a (x - mean)), until the centre of mass is
    exact. Centres outside the source are first moved to the nearest pixel centre.

    Returns:
        taps: (n_out, k) source indices.
        weights: (n_out, k), float64, each row sums to 1.
    """
    reach = max(1.0, abs(scale))
    centres = (scale * (torch.arange(n_out, dtype=torch.float64) + 0.5) + shift).clamp(0.5, n_in - 0.5)[:, None]
    taps = torch.floor(centres - reach).long() + torch.arange(math.ceil(2 * reach) + 1)
    at = taps + 0.5
    weights = (1 - (at - centres).abs() / reach).clamp(min=0)
    weights = torch.where((taps >= 0) & (taps < n_in), weights, 0.0)
    weights = weights / weights.sum(dim=1, keepdim=True)
    mean = (weights * at).sum(dim=1, keepdim=True)
    variance = (weights * (at - mean).square()).sum(dim=1, keepdim=True)
    tilt = torch.where(variance > 1e-9, (centres - mean) / variance.clamp(min=1e-9), 0.0)
    weights = (weights * (1 + tilt * (at - mean))).clamp(min=0)
    return taps.clamp(0, n_in - 1), weights / weights.sum(dim=1, keepdim=True)


def _filled(pixels: Tensor, frame: Frame, fill: Sequence[float]) -> Tensor:
    """Put `fill` wherever the centre of a frame pixel lies outside the source."""
    inside = torch.ones(frame.size, dtype=torch.bool, device=pixels.device)
    for axis, (low, high) in enumerate(frame.content()):
        centres = torch.arange(frame.size[axis], dtype=torch.float64) + 0.5
        along = [1] * frame.ndim
        along[axis] = -1
        seen = (centres >= float(low)) & (centres < float(high))
        inside &= seen.reshape(along).to(pixels.device)
    colour = pixels.new_tensor(fill).reshape(-1, *([1] * frame.ndim))
    return torch.where(inside, pixels, colour)
