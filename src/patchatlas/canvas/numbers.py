"""Tiles and values as rows of real numbers, and back: channels last, a complex number two reals.

So a row of a tile is one piece of memory, and a shift by a pixel is a shift by so many numbers, whatever they are.
Axes: n tiles, c channels, *tile axes of a tile, *size axes of the canvas, m numbers a pixel: c, or 2 c of complex ones.
"""

import torch
from torch import Tensor

FEW = 8
"""So many numbers a pixel make broadcasting over them slow."""


def to_numbers(values: Tensor) -> Tensor:
    """Channels-last values (..., c) as reals (..., m)."""
    return torch.view_as_real(values.resolve_conj()).flatten(-2) if values.is_complex() else values


def to_values(numbers: Tensor, *, is_complex: bool) -> Tensor:
    """Reals (..., m) as channels-last values (..., c)."""
    return torch.view_as_complex(numbers.unflatten(-1, (-1, 2)).contiguous()) if is_complex else numbers


def channels_last(tiles: Tensor) -> Tensor:
    """Tiles (n, c, *tile) as (n, *tile, c): several channels in memory order, except under autograd."""
    last = tiles.movedim(1, -1)
    if tiles.shape[1] == 1 or last.is_contiguous() or tiles.requires_grad:
        return last
    if tiles.shape[1] <= FEW:
        return last.contiguous()
    # Transposed one by one: as matrices they take torch's blocked copy, three times as fast as a batch of them.
    out = torch.empty_like(last, memory_format=torch.contiguous_format)
    for tile, turned in zip(tiles.flatten(2), out.flatten(1, -2), strict=True):
        turned.copy_(tile.T)
    return out


def for_every_number(window: Tensor, like: Tensor) -> Tensor:
    """A window (*tile) as (1, *tile, m), m as in `like`; written out where broadcasting would be slow."""
    m = like.shape[-1]
    every = window.to(like)[None, ..., None].expand(1, *window.shape, m)
    return every.contiguous() if m <= FEW else every
