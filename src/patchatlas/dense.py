"""A picture or volume becomes a feature map: encoded whole, or in overlapping windows merged by weight.

Axes: c channels, size = (h, w) or (z, h, w), b windows of a batch, n patches, d features.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from patchatlas.arrays import ImageU8, Pixels
from patchatlas.canvas.canvas import Canvas
from patchatlas.canvas.plan import CanvasPlan
from patchatlas.canvas.windows import hann
from patchatlas.encoders.forward import affordable, forward
from patchatlas.encoders.protocol import Encoder
from patchatlas.errors import InputError, ShapeError
from patchatlas.features import FeatureMap
from patchatlas.geometry.buckets import fit
from patchatlas.geometry.frame import Frame, Size
from patchatlas.geometry.grid import PatchGrid
from patchatlas.geometry.rounding import ceil_to_multiple, round_half_up
from patchatlas.geometry.sampling import Fill, resample
from patchatlas.geometry.windows import Window, cover_with_windows
from patchatlas.spec import EncoderSpec
from patchatlas.stamp import Stamp

RESAMPLE_RULE = "triangle-antialias-float32"

OVERSHOOT = 0.5
"""How far values may lie outside 0..1: sharp resampling (bicubic, Lanczos) goes beyond edges by less, while levels of
0..255, Hounsfield units and standardised values lie farther out."""


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
    global_view: bool = False,
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
        global_view: with several windows, set tokens that saw the whole frame beside those of the windows, since a
            window knows nothing of what lies around it (as section D.9 of the DINOv3 paper, arXiv 2508.10104, does).
            The frame is encoded once more with its long side scaled to that of a window, its unit tokens are read at
            the patch centres, and both halves count alike: each is scaled to a length of 1 / sqrt(2).
        max_memory: bytes that the activations of a forward may take.
        fill: what padding shows, see `resample`.

    Returns:
        The map; tokens are float32. A map made of several windows has neither CLS nor registers, since none of them saw
        the whole picture. With a global view its tokens are twice as long, and its spec and stamp say so.

    Raises:
        ShapeError: a side, window or image size that is not a multiple of the patch, or axes that do not fit.
        InputError: floats farther outside 0..1 than `OVERSHOOT`.
        ResourceError: even one window (or the whole picture) needs more than `max_memory`, or memory ran out.
    """
    spec = encoder.spec
    pixels = image if isinstance(image, Tensor) else to_pixels(image)
    if pixels.ndim != 1 + spec.ndim:
        raise ShapeError(
            f"{spec.name} encodes {spec.ndim}-D images with channels first, given an array of {tuple(pixels.shape)}"
        )
    if pixels is image:
        _require_unit_range(pixels, spec)
    if size is not None and frame is not None:
        raise ShapeError("give either size or frame, not both")
    source_size = tuple(pixels.shape[1:])
    if size is not None:
        frame = fit(source_size, long_side=size, patch=spec.patch)
    grid = PatchGrid.on(frame or Frame.whole(source_size), spec.patch)
    plan = _plan(grid, windows, overlap)
    batch = affordable(plan[0].size, spec, inputs=len(plan), batch=window_batch, budget=max_memory)
    pixels = pixels.to(encoder.device)
    drawn = resample(pixels, grid.frame, fill=fill)
    if windows is None or len(plan) == 1:  # one forward over everything, however large the windows might have been
        tokens = forward(encoder, drawn[None])
        cls = None if tokens.cls is None else tokens.cls[0].float()
        registers = None if tokens.registers is None else tokens.registers[0].float()
        stamp = Stamp.of(spec, resample=RESAMPLE_RULE, fill=fill, window=0, overlap=0.0)
        return FeatureMap(tokens.patches[0].float(), grid, spec, stamp, cls, registers)

    merged = _merged(encoder, drawn, plan, grid.shape, batch)
    recipe = {"resample": RESAMPLE_RULE, "fill": fill, "window": windows, "overlap": float(overlap)}
    if not global_view:
        return FeatureMap(merged, grid, spec, Stamp.of(spec, **recipe))
    # Never larger than a window, so the budget holds it too.
    whole = encode(pixels, encoder, frame=_shrunk(grid, windows), fill=fill)
    around = replace(whole, tokens=F.normalize(whole.tokens, dim=1)).at(grid.centres()).vectors
    halves = torch.cat([F.normalize(merged, dim=1), F.normalize(around, dim=1)], dim=1) / math.sqrt(2)
    spec = replace(spec, dim=2 * spec.dim)
    return FeatureMap(halves, grid, spec, Stamp.of(spec, **recipe, global_view=windows))


def _require_unit_range(pixels: Float[Tensor, "c *size"], spec: EncoderSpec) -> None:
    """Refuse what is no picture or volume in 0..1: the encoder would answer to it, and mean nothing."""
    if not pixels.numel():
        return
    low, high = (float(one) for one in pixels.aminmax())
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        cure = (
            "pass 8-bit pictures as they are or through to_pixels, and leave mean and standard deviation to the encoder"
            if spec.ndim == 2
            else "map the window of the encoder to that (input.window_hu in the header of its file): "
            "((hu - low) / (high - low)).clamp(0, 1)"
        )
        raise InputError(f"{spec.name} takes values in 0..1, given are values from {low:.4g} to {high:.4g}; {cure}")


def _plan(grid: PatchGrid, windows: int | None, overlap: float) -> tuple[Window, ...]:
    """Windows over the cells of a grid; a single one where none were asked for."""
    if windows is None:
        return cover_with_windows(grid.shape, window=grid.shape, overlap=(0,) * grid.frame.ndim)
    if windows < 1:
        raise ShapeError(f"windows of {windows} px are empty; leave windows out to encode the picture at once")
    if not 0 <= overlap < 1:
        raise ShapeError(f"overlap {overlap} is not in 0 <= overlap < 1")
    cells = _cells(windows, grid.patch)
    return cover_with_windows(grid.shape, window=cells, overlap=[min(c - 1, math.ceil(c * overlap)) for c in cells])


def _merged(
    encoder: Encoder, drawn: Float[Tensor, "c *size"], plan: Sequence[Window], shape: Size, batch: int
) -> Float[Tensor, "n d"]:
    """Tokens of all windows, where they overlap the mean weighted by how near the middle of its window each is."""
    spec = encoder.spec
    # Always torch, so that the bits of a map do not depend on whether numba is installed.
    canvas = Canvas(
        CanvasPlan((0,) * len(shape), shape),
        channels=spec.dim,
        dtype=torch.float32,
        device=encoder.device,
        backend="torch",
    )
    weights = hann(plan[0].size, device=encoder.device)
    for first in range(0, len(plan), batch):
        part = plan[first : first + batch]
        tokens = forward(encoder, torch.stack([drawn[:, *_in_pixels(w, spec).slices] for w in part]))
        tiles = tokens.patches.unflatten(1, plan[0].size).movedim(-1, 1)
        corners = torch.tensor([w.start[::-1] for w in part], dtype=torch.float64)
        canvas.add(tiles, corners, window=weights)
    return canvas.value().movedim(0, -1).reshape(-1, spec.dim)


def _shrunk(grid: PatchGrid, long_side: int) -> Frame:
    """The frame of a grid with another long side; aspect kept as in `fit`, padded to whole patches."""
    long = max(grid.frame.size)
    scaled = [max(1, round_half_up(Fraction(n * long_side, long))) for n in grid.frame.size]
    after = [ceil_to_multiple(n, p) - n for n, p in zip(scaled, grid.patch, strict=True)]
    return grid.frame.resize(scaled).pad((0,) * len(scaled), after)


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
