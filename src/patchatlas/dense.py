"""A picture or volume becomes a feature map: encoded whole, or in overlapping windows merged by weight.

Axes: c channels, size = (h, w) or (z, h, w), b windows of a batch, n patches, d features.
"""

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from patchatlas.arrays import ImageU8, Pixels
from patchatlas.canvas.canvas import Canvas
from patchatlas.canvas.plan import CanvasPlan
from patchatlas.canvas.windows import hann
from patchatlas.encoders.protocol import Encoder, Tokens
from patchatlas.errors import ResourceError, ShapeError
from patchatlas.features import FeatureMap
from patchatlas.geometry.buckets import fit
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.grid import PatchGrid
from patchatlas.geometry.sampling import Fill, resample
from patchatlas.geometry.windows import Window, cover_with_windows
from patchatlas.spec import EncoderSpec
from patchatlas.stamp import Stamp

log = logging.getLogger(__name__)

RESAMPLE_RULE = "triangle-antialias-float32"


def to_pixels(image: ImageU8) -> Pixels:
    """An 8-bit RGB picture as float32 channels in 0..1.

    Raises:
        ShapeError: not an array (h, w, 3) of uint8.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ShapeError(
            f"a picture is an array (h, w, 3) of uint8, given {image.shape} of {image.dtype}; pass floats in 0..1 as a "
            "tensor with channels first"
        )
    return torch.from_numpy(image).permute(2, 0, 1).to(torch.float32) / 255


def encode(
    image: ImageU8 | Pixels,
    encoder: Encoder,
    *,
    size: int | None = None,
    frame: Frame | None = None,
    windows: int | None = None,
    overlap: float = 0.5,
    window_batch: int | None = None,
    max_memory: int | None = None,
    fill: Fill = "edge",
) -> FeatureMap:
    """Dense features of one picture or volume.

    Args:
        image: 8-bit RGB picture, or floats in 0..1 (channels first; any number of axes that the encoder has).
        encoder: makes the tokens.
        size: scale a picture so that its long side has so many pixels, aspect kept, padded to whole patches.
        frame: draw exactly this frame of the image instead; its sides must be multiples of the patch. With neither, the
            image is encoded as it is.
        windows: side of square windows in input pixels, a multiple of the patch; without it, one forward sees it all.
        overlap: least part of a window that it shares with its neighbour, 0 <= overlap < 1.
        window_batch: windows a forward; without it as many as `max_memory` allows, at most 8. It never changes the
            result beyond float rounding.
        max_memory: bytes that the activations of a forward may take.
        fill: what padding shows, see `resample`.

    Returns:
        The map; tokens are float32. A map made of several windows has neither CLS nor registers, since none of them saw
        the whole picture.

    Raises:
        ShapeError: a side, window or image size that is not a multiple of the patch, or axes that do not fit.
        ResourceError: even one window (or the whole picture) needs more than `max_memory`, or memory ran out.
    """
    spec = encoder.spec
    pixels = image if isinstance(image, Tensor) else to_pixels(image)
    if pixels.ndim != 1 + spec.ndim:
        raise ShapeError(
            f"{spec.name} encodes {spec.ndim}-D images with channels first, given an array of {tuple(pixels.shape)}"
        )
    if size is not None and frame is not None:
        raise ShapeError("give either size or frame, not both")
    source_size = tuple(pixels.shape[1:])
    if size is not None:
        frame = fit(source_size, long_side=size, patch=spec.patch)
    frame = frame or Frame.whole(source_size)
    grid = PatchGrid.on(frame, spec.patch)
    drawn = resample(pixels.to(encoder.device), frame, fill=fill)

    if windows is not None and windows < 1:
        raise ShapeError(f"windows of {windows} px are empty; leave windows out to encode the picture at once")
    cells = tuple(_cells(windows, spec.patch)) if windows else grid.shape
    shared = tuple(min(c - 1, math.ceil(c * overlap)) for c in cells) if windows else (0,) * grid.frame.ndim
    if windows and not 0 <= overlap < 1:
        raise ShapeError(f"overlap {overlap} is not in 0 <= overlap < 1")
    plan = cover_with_windows(grid.shape, window=cells, overlap=shared)
    # One window is one forward over everything, however large the windows might have been.
    window_rule = (windows or 0, float(overlap)) if len(plan) > 1 else (0, 0.0)
    stamp = Stamp.of(spec, resample=RESAMPLE_RULE, fill=fill, window=window_rule[0], overlap=window_rule[1])
    wanted = min(8, len(plan)) if window_batch is None else window_batch
    batch = _affordable(plan[0], spec, max_memory, wanted)
    if len(plan) == 1:
        tokens = _forward(encoder, drawn[None])
        cls = None if tokens.cls is None else tokens.cls[0].float()
        registers = None if tokens.registers is None else tokens.registers[0].float()
        return FeatureMap(tokens.patches[0].float(), grid, spec, stamp, cls, registers)

    place = CanvasPlan((0,) * len(grid.shape), grid.shape)
    # Always torch, so that the bits of a map do not depend on whether numba is installed.
    canvas = Canvas(place, channels=spec.dim, dtype=torch.float32, device=encoder.device, backend="torch")
    window = hann(plan[0].size, device=encoder.device)
    for first in range(0, len(plan), batch):
        part = plan[first : first + batch]
        tokens = _forward(encoder, torch.stack([drawn[:, *_in_pixels(w, spec).slices] for w in part]))
        tiles = tokens.patches.unflatten(1, plan[0].size).movedim(-1, 1)
        corners = torch.tensor([w.start[::-1] for w in part], dtype=torch.float64)
        canvas.add(tiles, corners, window=window)
    return FeatureMap(canvas.value().movedim(0, -1).reshape(-1, spec.dim), grid, spec, stamp)


def activation_bytes(cells: Sequence[int], spec: EncoderSpec) -> int:
    """An upper estimate of what one forward over `cells` patches holds at its peak, in bytes.

    Per token and feature a transformer block holds the residual, the normed copy, q, k, v, the attention output and the
    hidden layer (4 wide, 2 copies): 14 numbers of 4 bytes. The input pixels and their unfolded patches come on top.
    """
    patches, volume = 1, spec.channels
    for n, p in zip(cells, spec.patch, strict=True):
        patches *= n
        volume *= n * p
    return (patches + 1 + spec.registers) * spec.dim * 14 * 4 + 2 * volume * 4


def _affordable(window: Window, spec: EncoderSpec, budget: int | None, wanted: int) -> int:
    if wanted < 1:
        raise ShapeError(f"window_batch {wanted} is not positive")
    one = activation_bytes(window.size, spec)
    if budget is None:
        return wanted
    if one > budget:
        raise ResourceError(
            f"encoding {tuple(n * p for n, p in zip(window.size, spec.patch, strict=True))} pixels at once takes about "
            f"{one / 1e6:.0f} MB, the budget is {budget / 1e6:.0f} MB; use (smaller) windows, a smaller size or a "
            "larger budget"
        )
    return min(wanted, budget // one)


def _forward(encoder: Encoder, pixels: Tensor) -> Tokens:
    """Encode a batch; where the accelerator has not the memory, halve the batch and say so."""
    try:
        return encoder(pixels)
    except torch.OutOfMemoryError as error:
        if len(pixels) == 1:
            raise ResourceError(
                f"{encoder.device} ran out of memory on one input of {tuple(pixels.shape[1:])}; use windows or a "
                "smaller size"
            ) from error
    half = len(pixels) // 2
    log.warning("%s ran out of memory on %d windows; trying %d at a time", encoder.device, len(pixels), half)
    parts = [_forward(encoder, part) for part in pixels.split(half)]
    return Tokens(torch.cat([p.patches for p in parts]))


def _cells(window: int, patch: Sequence[int]) -> list[int]:
    for p in patch:
        if window < p or window % p:
            raise ShapeError(
                f"windows of {window} px are not a multiple of the patch {p}; take {max(1, round(window / p)) * p}"
            )
    return [window // p for p in patch]


def _in_pixels(window: Window, spec: EncoderSpec) -> Window:
    start = tuple(b * p for b, p in zip(window.start, spec.patch, strict=True))
    return Window(start, tuple(n * p for n, p in zip(window.size, spec.patch, strict=True)))
