"""The only resampling in the house: read a map at points, and draw the pixels of a frame.

Axes: d feature or c channels first, then the plane (h, w) or (z, h, w). Everything is bilinear (trilinear) with
`align_corners=False`, which is the continuous-plane rule.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from patchatlas.arrays import ImageU8
from patchatlas.errors import ShapeError
from patchatlas.geometry.frame import Frame

Fill = Literal["edge"] | tuple[float, ...]

Shares = Float64[np.ndarray, "n k"]
"""Weights of k inputs in each of n outputs."""

_BLOCK_READS = 128
"""Inputs that one block of outputs reads, about: fewer make many small products, more multiply mostly zeros."""


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
    _check(tuple(pixels.shape[1:]), pixels.shape[0], frame, fill)
    out = pixels.permute(0, *(1 + a for a in frame.axes))
    # The last axis lies contiguous in memory: shrinking it first makes the rest of the work smaller at the best speed.
    for axis in reversed(range(frame.ndim)):
        out = _along(out, 1 + axis, frame.size[axis], frame.scale[axis], frame.shift[axis])
    if fill != "edge":
        out = _filled(out, frame, fill)
    return out.contiguous()


def resample_picture(picture: ImageU8, frame: Frame, *, fill: Fill = "edge") -> Float[Tensor, "c h w"]:
    """Draw the pixels of `frame` from an 8-bit picture; levels 0..255 become 0..1.

    The same numbers as `resample` of the picture as floats, to rounding, and several times faster on large pictures,
    which are turned to float in strips and only while they are made smaller.

    Args:
        picture: (h, w, c), `frame.source_size` in size.
        frame: what to draw.
        fill: as in `resample`, in 0..1.

    Raises:
        ShapeError: as `resample`.
    """
    _check(picture.shape[:2], picture.shape[2], frame, fill)
    out = torch.from_numpy(picture).permute(*frame.axes, 2)
    # Whole rows lie together in memory, channels and all: shrink across them first.
    out = _along(out, 0, frame.size[0], frame.scale[0], frame.shift[0])
    out = _along(out.permute(2, 0, 1).contiguous(), 2, frame.size[1], frame.scale[1], frame.shift[1])
    out = out.to(torch.float32) / 255
    return _filled(out, frame, fill) if fill != "edge" else out.contiguous()


def _check(size: tuple[int, ...], channels: int, frame: Frame, fill: Fill) -> None:
    if tuple(size) != frame.source_size:
        raise ShapeError(f"this frame was made from {frame.source_size}, the pixels are {tuple(size)}")
    if fill != "edge" and len(fill) != channels:
        raise ShapeError(f"fill needs {channels} numbers, one a channel, given {len(fill)}")


def _along(pixels: Tensor, axis: int, n_out: int, scale: Fraction, shift: Fraction) -> Tensor:
    """Resample one axis; output pixel i reads around the source coordinate scale * (i + 0.5) + shift."""
    n_in = pixels.shape[axis]
    if abs(scale) == 1 and shift.denominator == 1:
        first = shift if scale > 0 else shift - 1
        index = (int(first) + int(scale) * torch.arange(n_out, device=pixels.device)).clamp(0, n_in - 1)
        return pixels.index_select(axis, index)
    dtype = pixels.dtype if pixels.is_floating_point() else torch.float32
    before, after = math.prod(pixels.shape[:axis]), math.prod(pixels.shape[axis + 1 :])
    flat = pixels.reshape(before, n_in, after)
    blocks = _blocks(n_in, n_out, float(scale), float(shift), dtype)
    # One strip of floats for all blocks of an 8-bit picture: fresh memory costs more than the product itself.
    strip = flat.new_empty((before, max(dense.shape[1] for _, dense in blocks), after), dtype=dtype)
    drawn = []
    for low, dense in blocks:
        shares, part = dense.to(pixels.device), flat[:, low : low + dense.shape[1]]
        if part.dtype != dtype:
            part = strip[:, : dense.shape[1]].copy_(part)
        drawn.append((part[..., 0] @ shares.T)[..., None] if after == 1 else shares @ part)
    return torch.cat(drawn, dim=1).reshape(*pixels.shape[:axis], n_out, *pixels.shape[axis + 1 :])


@lru_cache(maxsize=32)
def _blocks(n_in: int, n_out: int, scale: float, shift: float, dtype: torch.dtype) -> list[tuple[int, Tensor]]:
    """The weights of `_triangle` as dense blocks: neighbouring outputs read neighbouring inputs.

    Returns:
        For each block of outputs, in order: the first input that it reads, and weights (outputs, inputs). Shared by all
        calls, so never to be written to.
    """
    first, weights = _triangle(n_in, n_out, scale, shift)
    step = max(8, min(64, int(_BLOCK_READS / max(1.0, abs(scale)))))
    blocks = []
    for start in range(0, n_out, step):
        share = weights[start : start + step]
        column = first[start : start + step, None] + np.arange(share.shape[1])
        low, high = int(column.min()), int(column.max()) + 1
        dense = np.zeros((len(share), high - low))
        dense[np.arange(len(share))[:, None], column - low] = share
        inside = slice(max(0, -low), min(n_in, high) - low)
        blocks.append((max(0, low), torch.from_numpy(dense[:, inside]).to(dtype).contiguous()))
    return blocks


def _triangle(n_in: int, n_out: int, scale: float, shift: float) -> tuple[Int64[np.ndarray, " n"], Shares]:
    """For each output its first source pixel and the weights of that and the next ones: a triangle of half-width
    max(1, |scale|) on its centre.

    As in Pillow's and torch's antialiased bilinear resize, weights outside the source are dropped and the rest
    renormalised. Read at whole pixels, such a triangle has its centre of mass up to 0.08 px beside its centre at
    scales that are no integers; each weight is therefore tilted, w (1 + a (x - mean)), until the centre of mass is
    exact. Centres outside the source are first moved to the nearest pixel centre.

    Returns:
        first: (n_out,), which may lie outside the source.
        weights: (n_out, k), each row sums to 1; those of pixels outside the source are 0.
    """
    reach = max(1.0, abs(scale))
    centres = np.minimum(np.maximum(scale * (np.arange(n_out) + 0.5) + shift, 0.5), n_in - 0.5)[:, None]
    first = np.floor(centres - reach)
    at = first + np.arange(math.ceil(2 * reach) + 1) + 0.5
    weights = np.maximum(1 - np.abs(at - centres) / reach, 0.0)
    weights[(at < 0) | (at > n_in)] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    mean = (weights * at).sum(axis=1, keepdims=True)
    aside = at - mean
    variance = (weights * aside**2).sum(axis=1, keepdims=True)
    tilt = np.where(variance > 1e-9, (centres - mean) / np.maximum(variance, 1e-9), 0.0)
    weights = np.maximum(weights * (1 + tilt * aside), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    return first[:, 0].astype(np.int64), weights


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
