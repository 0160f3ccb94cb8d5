"""How strongly each token answers when the pixels of one patch are replaced, and where the answer sits on the grid.

Axes: c channels, size = (h, w) or (z, h, w), m probed cells, n tokens, g axes of the grid. Cells and tokens are
numbered row-major; places are in cell indices, so that token (r, c) sits at (r, c).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor

from patchatlas.encoders.protocol import Encoder
from patchatlas.errors import InputError, MisalignedError, ResourceError
from patchatlas.geometry.grid import PatchGrid
from patchatlas.geometry.rowmajor import unravel

HABIT = 0.25
"""The share of cells that a token is expected to be far from; how it answers those is its habit. A quarter rather than
half, because with wide supports (SIFT reads 24 patches across) half of a small grid is near."""

SILENT = 0.01
"""A cell answered with less than this part of the strongest answer is silent: no token sees it."""

SHORT_TOKEN = 0.1
"""Tokens shorter than this part of the median length count as that long, so that none is divided by zero."""


@dataclass(frozen=True)
class Answers:
    """Where the answers to each probed cell sit.

    Attributes:
        cells: the probed cells, as indices along each axis.
        peak: the token that answers most, flat.
        peak_index: the same as indices along each axis.
        place: the peak, moved by the balance of its two neighbours along each axis; at the border it is not moved.
            Small overlaps weigh heavily: noise in a share s of a patch changes its token by about the root of s.
        centre: the same by the balance of squares, in which a share s weighs s: a fair estimate, but a duller sense.
        strength: how strongly the peak answers.
        silent: cells that no token answers.
    """

    cells: Int64[Tensor, "m g"]
    peak: Int64[Tensor, " m"]
    peak_index: Int64[Tensor, "m g"]
    place: Float64[Tensor, "m g"]
    centre: Float64[Tensor, "m g"]
    strength: Float32[Tensor, " m"]
    silent: Bool[Tensor, " m"]


def measure(
    encoder: Encoder,
    grid: PatchGrid,
    *,
    cells: Sequence[int],
    batch: int,
    generator: torch.Generator,
    on_batch: Callable[[int], None],
) -> Float32[Tensor, "m n"]:
    """The change of every token, relative to its length, for each cell whose pixels are replaced.

    The picture and what replaces its patches are uniform noise in 0..1, drawn before the first batch, so that the
    answer does not hang on `batch`. Changes are relative to the length of the token, since artefact tokens of trained
    networks are many times as long as the rest (Darcet et al., arXiv:2309.16588) and would win by size alone.

    Args:
        on_batch: called after every batch with the number of cells in it.

    Raises:
        MisalignedError: another number of tokens than patches.
        InputError: tokens that are not finite.
        ResourceError: the device ran out of memory.
    """
    size = grid.frame.size
    picture, other = torch.rand(2, encoder.spec.channels, *size, generator=generator).to(encoder.device)
    calm = _tokens(encoder, picture[None], grid)  # (1, n, d)
    length = calm[0].norm(dim=-1)
    length = length.clamp(min=SHORT_TOKEN * float(length.median())).clamp(min=torch.finfo(torch.float32).tiny)
    changes = []
    for first in range(0, len(cells), batch):
        part = cells[first : first + batch]
        perturbed = picture.repeat(len(part), *[1] * picture.ndim)
        for one, cell in zip(perturbed, part, strict=True):
            at = (slice(None), *patch_slices(grid, cell))
            one[at] = other[at]
        changes.append(((_tokens(encoder, perturbed, grid) - calm).norm(dim=-1) / length).cpu())
        on_batch(len(part))
    return torch.cat(changes)


def patch_slices(grid: PatchGrid, cell: int) -> tuple[slice, ...]:
    """The pixels of one cell of a grid, along each axis."""
    slices = []
    for sides, patch in zip(reversed(grid.shape), reversed(grid.patch), strict=True):
        cell, index = divmod(cell, sides)
        slices.append(slice(index * patch, (index + 1) * patch))
    return tuple(reversed(slices))


def locate(changes: Float32[Tensor, "m n"], cells: Sequence[int], shape: tuple[int, ...]) -> Answers:
    """Where the answers sit.

    The peak is the token that changes most. For the balance of its neighbours each token's habit is taken off, which is
    how it answers cells that are far from it, for attention carries a little of every change everywhere.
    """
    far = changes.kthvalue(max(1, math.ceil(HABIT * len(changes))), dim=0).values
    beyond = (changes - far).clamp(min=0)
    strength, peak = changes.max(dim=1)
    index = unravel(peak, shape)
    return Answers(
        cells=unravel(torch.tensor(cells), shape),
        peak=peak,
        peak_index=index,
        place=_balanced(beyond, peak, shape),
        centre=_balanced(beyond.square(), peak, shape),
        strength=strength,
        silent=strength <= SILENT * strength.max(),
    )


def _balanced(
    beyond: Float32[Tensor, "m n"], peak: Int64[Tensor, " m"], shape: tuple[int, ...]
) -> Float64[Tensor, "m g"]:
    """The peak moved by (after - before) / (before + peak + after) along each axis."""
    index = unravel(peak, shape)
    place = index.to(torch.float64)
    for axis, sides in enumerate(shape):
        step = math.prod(shape[axis + 1 :])
        inside = (index[:, axis] > 0) & (index[:, axis] < sides - 1)
        before, at, after = (
            beyond.gather(1, torch.where(inside, peak + way, peak)[:, None])[:, 0].double() for way in (-step, 0, step)
        )
        total = (before + at + after).clamp(min=torch.finfo(torch.float64).tiny)
        place[:, axis] += torch.where(inside, (after - before) / total, 0.0)
    return place


def _tokens(encoder: Encoder, pixels: Float[Tensor, "b c *size"], grid: PatchGrid) -> Float[Tensor, "b n d"]:
    try:
        tokens = encoder(pixels).patches.float()
    except torch.OutOfMemoryError as error:
        raise ResourceError(
            f"{encoder.device} ran out of memory on {len(pixels)} inputs of {grid.frame.size}; use a smaller batch"
        ) from error
    if tokens.shape[1] != grid.count:
        extra = tokens.shape[1] - grid.count
        raise MisalignedError(
            f"{encoder.spec.name} gives {tokens.shape[1]} patch tokens for {grid.frame.size}, which is a grid of "
            f"{grid.shape} = {grid.count}; {abs(extra)} too {'many' if extra > 0 else 'few'}: look whether CLS and "
            "registers are counted right, and whether the input is resized inside"
        )
    if not bool(torch.isfinite(tokens).all()):
        raise InputError(
            f"{encoder.spec.name} gives tokens that are not finite on noise of {grid.frame.size}; try fp32, "
            "and check the weights"
        )
    return tokens
