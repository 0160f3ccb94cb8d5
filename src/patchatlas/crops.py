"""Many crops of one picture or volume as feature maps: encoded in batches, with patches as close as one likes.

Axes: c channels, size = (h, w) or (z, h, w), grid patches of one forward, m shifts along each axis, d features.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from patchatlas.arrays import ImageU8, Pixels
from patchatlas.dense import RESAMPLE_RULE, to_pixels
from patchatlas.encoders.forward import affordable, forward
from patchatlas.encoders.protocol import Encoder
from patchatlas.errors import ShapeError
from patchatlas.features import FeatureMap
from patchatlas.geometry.frame import Frame, Size
from patchatlas.geometry.grid import PatchGrid
from patchatlas.geometry.sampling import Fill, resample
from patchatlas.spec import EncoderSpec
from patchatlas.stamp import Stamp


def encode_crops(
    image: ImageU8 | Pixels,
    encoder: Encoder,
    frames: Sequence[Frame],
    *,
    stride: int | None = None,
    batch: int | None = None,
    max_memory: int | None = None,
    fill: Fill = "edge",
) -> Iterator[FeatureMap]:
    """One map a frame, in order, as they get ready: no more than a batch of them is held at a time.

    With a `stride` below the patch each frame is encoded several times, moved on by `stride` input pixels along each
    axis until a whole patch is through, and the tokens are woven together: the map has one every `stride` pixels, each
    of a whole patch (shift and weave, as FeatUp, arXiv 2403.10516, does to learn from; nothing is learnt here). At the
    patch, which is the default, a map equals `dense.encode` of its frame.

    Args:
        image: 8-bit picture, or floats in 0..1, channels first.
        encoder: makes the tokens.
        frames: what to encode, all of one size; along each axis `cells * patch + patch - stride` pixels.
        stride: input pixels from one patch to the next; divides the patch.
        batch: inputs a forward; without it as many as `max_memory` allows, at most 8.
        max_memory: bytes that the activations of a forward may take.
        fill: what lies outside the picture, see `resample`.

    Raises:
        ShapeError: frames of several sizes or of one that does not fit the patches, or a stride that does not divide
            the patch.
        ResourceError: even one input needs more than `max_memory`, or memory ran out.
    """
    spec = encoder.spec
    grids = [_grid(frame, spec, stride) for frame in frames]
    if len({frame.size for frame in frames}) > 1:
        raise ShapeError(
            f"crops of {sorted({frame.size for frame in frames})} px do not stack; encode those of one size together"
        )
    if not grids:
        return iter(())
    steps = [p // s for p, s in zip(spec.patch, grids[0].stride, strict=True)]
    cells = tuple(n // m for n, m in zip(grids[0].shape, steps, strict=True))
    inputs = len(grids) * math.prod(steps)
    per_forward = affordable(cells, spec, inputs=inputs, batch=batch, budget=max_memory)
    return _encoded(image, encoder, grids, cells, steps, per_forward, fill)


def _encoded(
    image: ImageU8 | Pixels,
    encoder: Encoder,
    grids: Sequence[PatchGrid],
    cells: Size,
    steps: Sequence[int],
    batch: int,
    fill: Fill,
) -> Iterator[FeatureMap]:
    spec = encoder.spec
    stamp = Stamp.of(spec, resample=RESAMPLE_RULE, fill=fill, window=0, overlap=0.0)
    shifts = list(itertools.product(*map(range, steps)))
    inputs = _inputs(image, encoder, grids, cells, shifts, fill)
    ready, waiting = iter(grids), list[Tensor]()
    while part := list(itertools.islice(inputs, batch)):
        waiting += forward(encoder, torch.stack(part)).patches.float()
        while len(waiting) >= len(shifts):
            tokens = _woven(waiting[: len(shifts)], cells, steps)
            del waiting[: len(shifts)]
            yield FeatureMap(tokens, next(ready), spec, stamp)


def _grid(frame: Frame, spec: EncoderSpec, stride: int | None) -> PatchGrid:
    """Patches `stride` apart that fill a frame."""
    strides = spec.patch if stride is None else (stride,) * spec.ndim
    for n, p, s in zip(frame.size, spec.patch, strides, strict=True):
        if s < 1 or p % s:
            raise ShapeError(f"a stride of {s} px does not divide the patch of {p}; take one of {_divisors(p)}")
        if n < p or (n + s) % p:
            near = max(2, round((n + s) / p)) * p - s
            raise ShapeError(f"a crop of {n} px does not fill patches of {p} that are {s} apart; take {near} px")
    shape = tuple((n - p) // s + 1 for n, p, s in zip(frame.size, spec.patch, strides, strict=True))
    return PatchGrid(frame, spec.patch, strides, (0,) * spec.ndim, shape)


def _inputs(
    image: ImageU8 | Pixels,
    encoder: Encoder,
    grids: Sequence[PatchGrid],
    cells: Size,
    shifts: Sequence[Size],
    fill: Fill,
) -> Iterator[Tensor]:
    """What the encoder is given, grid after grid, shift after shift; each frame is drawn once."""
    size = [n * p for n, p in zip(cells, encoder.spec.patch, strict=True)]
    for grid in grids:
        drawn = _drawn(image, encoder, grid.frame, fill)
        for shift in shifts:
            starts = [k * s for k, s in zip(shift, grid.stride, strict=True)]
            yield drawn[:, *(slice(start, start + n) for start, n in zip(starts, size, strict=True))]


def _drawn(image: ImageU8 | Pixels, encoder: Encoder, frame: Frame, fill: Fill) -> Tensor:
    """The pixels of a frame, from the part of the image that it reads: a crop of a large photo costs what it shows."""
    size = tuple(image.shape[1:] if isinstance(image, Tensor) else image.shape[:2])
    if size != frame.source_size:
        raise ShapeError(f"a frame of a {frame.source_size} source cannot be drawn from an image of {size}")
    start, part = [0] * len(size), [slice(None)] * len(size)
    for k, axis in enumerate(frame.axes):
        ends = sorted((frame.shift[k], frame.shift[k] + frame.scale[k] * frame.size[k]))
        reach = math.ceil(abs(frame.scale[k])) + 1  # the triangle of `resample`, and a pixel to spare
        low = min(max(0, math.floor(ends[0]) - reach), size[axis] - 1)
        high = max(min(size[axis], math.ceil(ends[1]) + reach), low + 1)
        start[axis], part[axis] = low, slice(low, high)
    pixels = image[:, *part] if isinstance(image, Tensor) else to_pixels(image[*part])
    shift = tuple(t - start[axis] for t, axis in zip(frame.shift, frame.axes, strict=True))
    inner = replace(frame, source_size=tuple(pixels.shape[1:]), shift=shift)
    return resample(pixels.to(encoder.device), inner, fill=fill)


def _woven(tokens: Sequence[Tensor], cells: Size, steps: Sequence[int]) -> Tensor:
    """Tokens of all shifts, each (n, d), as those of the fine grid: cell (r m + i, c m + j) is cell (r, c) of shift
    (i, j)."""
    ndim = len(cells)
    stacked = torch.stack(list(tokens)).reshape(*steps, *cells, -1)  # (*m, *grid, d)
    order = [axis for k in range(ndim) for axis in (ndim + k, k)]
    return stacked.permute(*order, 2 * ndim).reshape(-1, stacked.shape[-1])


def _divisors(n: int) -> str:
    return ", ".join(str(k) for k in range(1, n + 1) if n % k == 0)
