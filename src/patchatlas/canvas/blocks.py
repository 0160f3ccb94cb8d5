"""Blocks at whole pixels, added to a canvas and read from it: each is the exact adjoint and gradient of the other.

Axes: n blocks, *block axes of one, *size axes of the canvas, c numbers a pixel, last. Starts are the canvas index of
each block's first pixel, int64 (n, ndim); what lies outside the canvas is cropped, or read as zero.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def add_blocks(canvas: Tensor, blocks: Tensor, starts: Tensor) -> None:
    """Add blocks (n, *block, c) to a canvas (*size, c) in place.

    On a CPU they are added one after the other, in the order given. On other devices, where a launch costs more than a
    block, they are added all at once.
    """
    if canvas.device.type == "cpu":
        for block, (view, part) in zip(blocks.unbind(), _places(canvas, blocks.shape[1:-1], starts), strict=True):
            view.add_(block if part is None else block[part])
    else:
        add_blocks_at_once(canvas, blocks, starts)


def add_blocks_at_once(canvas: Tensor, blocks: Tensor, starts: Tensor) -> None:
    """`add_blocks` in one call. On an accelerator the order of additions, so the last bits, may differ between runs."""
    index, inside = _pixels(canvas, blocks.shape[1:-1], starts)
    canvas.view(-1, canvas.shape[-1]).index_add_(0, index, (blocks * inside).flatten(0, -2))


def read_blocks(canvas: Tensor, size: Sequence[int], starts: Tensor) -> Tensor:
    """Blocks (n, *size, c) of a canvas (*size, c)."""
    if canvas.device.type != "cpu":
        return read_blocks_at_once(canvas, size, starts)
    blocks = canvas.new_zeros(len(starts), *size, canvas.shape[-1])
    for block, (view, part) in zip(blocks.unbind(), _places(canvas, size, starts), strict=True):
        (block if part is None else block[part]).copy_(view)
    return blocks


def read_blocks_at_once(canvas: Tensor, size: Sequence[int], starts: Tensor) -> Tensor:
    """`read_blocks` in one call."""
    index, inside = _pixels(canvas, size, starts)
    return canvas.reshape(-1, canvas.shape[-1])[index].reshape(len(starts), *size, -1) * inside


def sum_blocks(blocks: Tensor, starts: Tensor, size: Sequence[int]) -> Tensor:
    """A new canvas (*size, c) with the blocks added. Differentiable, any number of times."""
    return _Sum.apply(blocks, starts, tuple(size))  # type: ignore[no-any-return, no-untyped-call]


def take_blocks(canvas: Tensor, size: Sequence[int], starts: Tensor) -> Tensor:
    """`read_blocks`, differentiable, any number of times."""
    return _Take.apply(canvas, starts, tuple(size))  # type: ignore[no-any-return, no-untyped-call]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, blocks: Tensor, starts: Tensor, size: tuple[int, ...]) -> Tensor:
        ctx.starts, ctx.block_size = starts, tuple(blocks.shape[1:-1])
        canvas = blocks.new_zeros(*size, blocks.shape[-1])
        add_blocks(canvas, blocks, starts)
        return canvas

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None]:
        return take_blocks(gradients[0], ctx.block_size, ctx.starts), None, None


class _Take(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, canvas: Tensor, starts: Tensor, size: tuple[int, ...]) -> Tensor:
        ctx.starts, ctx.canvas_size = starts, tuple(canvas.shape[:-1])
        return read_blocks(canvas, size, starts)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None]:
        return sum_blocks(gradients[0], ctx.starts, ctx.canvas_size), None, None


def _places(canvas: Tensor, size: Sequence[int], starts: Tensor) -> list[tuple[Tensor, tuple[slice, ...] | None]]:
    """For each block the view of its place, and the part of the block that lies there (None for all of it)."""
    limit, block = torch.tensor(canvas.shape[:-1]), torch.tensor(tuple(size))
    low = starts.clamp(min=0).minimum(limit)
    high = (starts + block).clamp(min=0).minimum(limit)
    crossing = (high - low != block).any(dim=1)
    offsets = (starts * torch.tensor(canvas.stride()[:-1])).sum(dim=1) + int(canvas.storage_offset())
    shape, strides = (*size, canvas.shape[-1]), canvas.stride()
    # as_strided gives what slicing gives, at half the price.
    places: list[tuple[Tensor, tuple[slice, ...] | None]] = [
        (canvas if crosses else torch.as_strided(canvas, shape, strides, offset), None)
        for offset, crosses in zip(offsets.tolist(), crossing.tolist(), strict=True)
    ]
    for row in crossing.nonzero()[:, 0].tolist():
        view = canvas[tuple(map(slice, low[row].tolist(), high[row].tolist()))]
        part = tuple(map(slice, (low - starts)[row].tolist(), (high - starts)[row].tolist()))
        places[row] = (view, part)
    return places


def _pixels(canvas: Tensor, size: Sequence[int], starts: Tensor) -> tuple[Tensor, Tensor]:
    """Index of every pixel of every block in the flat canvas, and 1 where it lies inside it, else 0, (n, *size, 1)."""
    index = starts.new_zeros(len(starts), *[1] * len(size))
    inside = torch.ones_like(index, dtype=torch.bool)
    for axis, (n, limit) in enumerate(zip(size, canvas.shape[:-1], strict=True)):
        along = [1] * len(size)
        along[axis] = n
        at = (starts[:, axis, None] + torch.arange(n, device=starts.device)).reshape(-1, *along)
        inside = inside & (at >= 0) & (at < limit)
        index = index * limit + at.clamp(0, limit - 1)
    return index.flatten(), inside[..., None].to(canvas.dtype)
