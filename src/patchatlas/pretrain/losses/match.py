"""Patch tokens of two views agree where both show the same place, and differ from those of other places.

Axes: e ordered pairs of views, g views, b samples, n patch tokens (row-major over the grid), k tokens taken of each
sample, d features. Points in cells run (x, y[, z]).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchatlas.geometry.sampling import sample


class Matched(NamedTuple):
    """What the term says of a micro-batch."""

    loss: Float[Tensor, ""]
    """Sum over valid anchors, over what it is to be divided by."""
    right: Float[Tensor, ""]
    """Anchors that are more like their place than like any negative, over the same; without gradient."""


def match_loss(
    tokens: Float[Tensor, "g b n d"],
    *,
    pairs: tuple[tuple[int, int], ...],
    cells: Float[Tensor, "e b n ndim"],
    valid: Bool[Tensor, "e b n"],
    source: Int[Tensor, " b"],
    grid: tuple[int, ...],
    total: Float[Tensor, ""],
    temperature: float,
    radius: float,
    others: int,
    usable: Bool[Tensor, "g b n"] | None = None,
    generator: torch.Generator,
) -> Matched:
    """InfoNCE (van den Oord et al. 2018, arXiv 1807.03748, eq. 4) of patch tokens, both ways between two views.

    For an ordered pair of views and an anchor i, a patch of the first whose centre lies at the point p of the second,

        L_i = -log( exp(x_i . y(p) / T) / (exp(x_i . y(p) / T) + sum over negatives z of exp(x_i . z / T)) )

    where x is the token of the patch, y(p) the second view's tokens read linearly at p, T the temperature, and all are
    of unit length. Negatives are the second view's tokens whose centres lie more than `radius` cells from p, and
    `others` tokens of the second view of each sample of another source. Each pair is there in both orders.

    That views agree patch by patch is the idea of VADeR (Pinheiro et al. 2020, arXiv 2011.05499), PixPro (Xie et al.
    2021, arXiv 2011.10043) and DenseCL (Wang et al. 2021, arXiv 2011.09157). VADeR and PixPro know the place from the
    crops too, PixPro calling all cells within a distance positive; DenseCL takes the most alike cell. Here the place is
    exact for any projective view, and read between cells; there is no teacher, no queue and no head.

    Args:
        tokens: of the global crops, any length, not 0.
        pairs: ordered pairs of views: from, to.
        cells: where each patch of the first lies in the second.
        valid: anchors that count; with none loss and gradient are 0.
        source: samples with equal numbers are no negatives of each other.
        grid: patches along each axis.
        total: what the sums are divided by.
        temperature: above 0.
        radius: cells.
        others: tokens of each other sample.
        usable: tokens that may be negatives; all if not given.
        generator: decides which tokens of other samples are taken.
    """
    unit = F.normalize(tokens.float(), dim=-1)
    b, n = unit.shape[1:3]
    centres = _centres(grid).to(unit)
    usable = torch.ones(unit.shape[:3], dtype=torch.bool, device=unit.device) if usable is None else usable
    same = (source[:, None] == source)[:, None, :, None]  # (b, 1, b, 1)
    loss, right = tokens.new_zeros((), dtype=torch.float32), tokens.new_zeros((), dtype=torch.float32)
    for (one, other), places, counts in zip(pairs, cells, valid, strict=True):
        maps = tokens[other].transpose(1, 2).unflatten(-1, grid)  # (b, d, *grid)
        read = torch.stack([sample(of, at) for of, at in zip(maps, places, strict=True)])
        positive = (unit[one] * F.normalize(read, dim=-1)).sum(-1, keepdim=True)  # (b, n, 1)
        near = _distances(places, centres) <= radius  # (b, n, n)
        own = (unit[one] @ unit[other].transpose(1, 2)).masked_fill(near | ~usable[other][:, None], -torch.inf)
        taken = torch.stack([torch.randperm(n, generator=generator)[:others] for _ in range(b)]).to(unit.device)
        rows = torch.arange(b, device=unit.device)[:, None]
        far = torch.einsum("bnd,ckd->bnck", unit[one], unit[other][rows, taken])
        far = far.masked_fill(same | ~usable[other][rows, taken], -torch.inf)
        logits = torch.cat([positive, own, far.flatten(2)], dim=-1) / temperature
        each = torch.logsumexp(logits, dim=-1) - logits[..., 0]
        loss = loss + torch.where(counts, each, 0.0).sum()
        with torch.no_grad():
            right += ((logits[..., :1] > logits[..., 1:]).all(-1) & counts).sum()
    return Matched(loss / total, right / total)


def _distances(places: Float[Tensor, "b n ndim"], centres: Float[Tensor, "m ndim"]) -> Float[Tensor, "b n m"]:
    """From differences, since products of matrices are inexact for near points, but without holding them all."""
    return torch.cdist(places, centres, compute_mode="donot_use_mm_for_euclid_dist")


def _centres(grid: tuple[int, ...]) -> Float[Tensor, "n ndim"]:
    """Centres of all cells, in cells, row-major."""
    axes = [torch.arange(count) + 0.5 for count in grid]
    return torch.stack([axis.reshape(-1) for axis in reversed(torch.meshgrid(*axes, indexing="ij"))], dim=1)
