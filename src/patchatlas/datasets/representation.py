"""Teach a network's hidden tokens to agree with stored patches, each with the patch of its own place.

The loss of REPA (Yu et al., ICLR 2025, arXiv:2410.06940, equation 8): the mean cosine between projected hidden tokens
and the patches of a frozen encoder, with its sign turned.

Axes: b samples, m hidden tokens, n patches, d features.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from patchatlas.datasets.batch import Packed, Padded
from patchatlas.errors import ShapeError
from patchatlas.geometry.area import resample_area


def representation_loss(
    hidden: Float[Tensor, "b m d"],
    patches: Padded | Packed,
    *,
    grid: Sequence[int],
    resample: bool = False,
) -> Float[Tensor, ""]:
    """One number, -1 where every hidden token points the way of the patch in its place; float32.

    Both grids span the same picture. Where they differ, tokens of equal number are not in equal places, so cutting the
    longer sequence short would compare unlike places: it is refused, or the patches are resampled by area.

    Args:
        hidden: tokens of the network after its projection, row-major.
        patches: of the same samples; no gradient flows into them.
        grid: rows and columns of the hidden tokens.
        resample: bring patches on another grid to `grid`.

    Raises:
        ShapeError: grids that differ, unless `resample`; or tokens that do not fill theirs.
    """
    rows, columns = grid
    padded = patches if isinstance(patches, Padded) else patches.padded()
    if hidden.shape[1] != rows * columns or len(hidden) != len(padded.grids):
        raise ShapeError(
            f"{tuple(hidden.shape[:2])} hidden tokens are not those of {len(padded.grids)} samples on a grid of "
            f"{rows} x {columns}"
        )
    aligned = []
    for values, (own_rows, own_columns) in zip(padded.values, padded.grids.tolist(), strict=True):
        if (own_rows, own_columns) != (rows, columns) and not resample:
            raise ShapeError(
                f"patches on a grid of {own_rows} x {own_columns} (rows x columns) are not in the places of tokens "
                f"on {rows} x {columns}; pass resample=True, or give the network the same grid"
            )
        placed = values[: own_rows * own_columns].detach().reshape(own_rows, own_columns, -1)
        aligned.append(resample_area(placed, (rows, columns)).flatten(0, 1))
    return -F.cosine_similarity(hidden.float(), torch.stack(aligned).float(), dim=-1).mean()
