"""How well two maps match as a whole, which tells the way up in which one picture fits another.

Patches that are each other's nearest are pairs. Features that bear a turn pair up under a wrong turn as well, but then
neighbours do not match to neighbours; so what counts are pairs whose neighbours, beside and below, moved with them.

Axes: n patches of one map, m of the other, d features.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from patchatlas.errors import ShapeError
from patchatlas.features import FeatureMap
from patchatlas.geometry.grid import PatchGrid
from patchatlas.geometry.rowmajor import unravel
from patchatlas.matching.peaks import scored_cells

_AT_ONCE = 1 << 24
"""Similarities worked on at a time: 64 MB."""

_APART = 1.0 + 1e-6
"""Cells by which a pair's neighbour may miss its place beside the pair. One cell allows for any change of scale below
two; a quarter turn misses by 1.41."""

NOBODY = -1


@dataclass(frozen=True)
class MutualMatch:
    """Pairs of patches of two maps that are each other's nearest.

    Attributes:
        share: pairs, as a part of the patches of the smaller map, 0..1.
        cosine: mean cosine of the pairs, -1..1; 0 where there is none.
        coherent: pairs of which a neighbour in each direction of the grid moved with them, as a part of the same.
    """

    share: float
    cosine: float
    coherent: float

    @property
    def score(self) -> tuple[float, float]:
        """What makes one match better than another: coherent pairs first, then all pairs and their cosine."""
        return self.coherent, self.share * self.cosine


def match_maps(
    source_map: FeatureMap,
    target_map: FeatureMap,
    *,
    source_mask: Bool[Tensor, "*source"] | None = None,
    target_mask: Bool[Tensor, "*target"] | None = None,
) -> MutualMatch:
    """The mutual match of two maps, over patches with their centre in the picture.

    Args:
        source_map: one map.
        target_map: the other, made in the same way.
        source_mask: patches that count, all if not given.
        target_mask: likewise.

    Raises:
        StampError: the maps were made in different ways.
        ShapeError: no patch counts.
    """
    source_map.stamp.require(target_map.stamp, what="maps")
    here, there = _counted(source_map.grid, source_mask), _counted(target_map.grid, target_mask)
    if not here.any() or not there.any():
        raise ShapeError("no patch to match; is the mask empty?")
    partner, cosine = mutual_nearest(source_map.tokens[here.flatten()], target_map.tokens[there.flatten()])
    at = torch.full(here.shape, NOBODY)  # of each patch of the source the number of its partner in the target's grid
    chosen = torch.nonzero(there.flatten())[:, 0]
    at[here] = torch.where(partner == NOBODY, NOBODY, chosen[partner])
    least = min(int(here.sum()), int(there.sum()))
    pairs = partner != NOBODY
    return MutualMatch(
        share=int(pairs.sum()) / least,
        cosine=float(cosine[pairs].double().mean()) if pairs.any() else 0.0,
        coherent=int(_coherent(at, target_map.grid.shape).sum()) / least,
    )


def mutual_nearest(
    source: Float[Tensor, "n d"], target: Float[Tensor, "m d"]
) -> tuple[Int64[Tensor, " n"], Float[Tensor, " n"]]:
    """For each token of the source the target's that is its nearest and whose nearest it is, `NOBODY` without one.

    Of equally near ones the first is the nearest.

    Returns:
        Numbers of the partners, and the cosine of each source token's nearest.
    """
    source, target = F.normalize(source.float(), dim=1), F.normalize(target.float(), dim=1)
    nearest, cosine = [], []
    back = torch.zeros(len(target), dtype=torch.long, device=target.device)
    best = target.new_full((len(target),), -torch.inf)
    step = max(1, _AT_ONCE // len(target))
    for first in range(0, len(source), step):
        similarity = source[first : first + step] @ target.T
        value, at = similarity.max(dim=1)
        nearest.append(at)
        cosine.append(value)
        value, at = similarity.max(dim=0)
        better = value > best
        best = torch.where(better, value, best)
        back = torch.where(better, at + first, back)
    partner = torch.cat(nearest)
    mutual = back[partner] == torch.arange(len(source), device=source.device)
    return torch.where(mutual, partner, NOBODY).cpu(), torch.cat(cosine).cpu()


def _coherent(partner: Int64[Tensor, "*source"], shape: tuple[int, ...]) -> Bool[Tensor, "*source"]:
    """Patches with a partner that along every axis have a neighbour whose partner lies beside theirs."""
    paired = partner != NOBODY
    place = unravel(partner.clamp(min=0), shape).double()
    coherent = paired.clone()
    for axis in range(partner.ndim):
        step = torch.zeros(partner.ndim, dtype=torch.float64)
        step[axis] = 1
        length = partner.shape[axis]
        one, next_one = (slice(0, length - 1), slice(1, length))
        before, after = ((slice(None),) * axis + (part,) for part in (one, next_one))
        miss = torch.linalg.vector_norm(place[after] - place[before] - step, dim=-1)
        together = paired[before] & paired[after] & (miss <= _APART)
        supported = torch.zeros_like(paired)
        supported[before] |= together
        supported[after] |= together
        coherent &= supported
    return coherent


def _counted(grid: PatchGrid, mask: Tensor | None) -> Tensor:
    counted = scored_cells(grid)
    return counted if mask is None else counted & mask
