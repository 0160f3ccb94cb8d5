"""D2: how positions lie: how many differ, how far they reach, how near neighbours are, whether some are used again.

Axes: n tiles, ndim coordinates (x[, y[, z]]), *tile.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from patchatlas.canvas.canvas import Tiles
from patchatlas.stitch.diagnosis.fault import Fault
from patchatlas.stitch.diagnosis.limits import Limits

# Nearest neighbours are looked for among so many positions, evenly taken.
_NEIGHBOURS = 2048


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Statistics of positions, in object pixels.

    Attributes:
        count: positions.
        unique: positions that differ.
        low: smallest coordinate along each axis.
        high: largest.
        std: standard deviation along each axis.
        rank: directions in which positions spread: 0 one spot, 1 a line.
        neighbour: median distance to the nearest other position; NaN for one.
        neighbour_in_tiles: the same in shorter sides of a tile; above 1 neighbours do not overlap.
        pattern: how positions repeat: "" not, or in words.
        repeats_disagree: disagreement of tiles that share a position, 0 the same to 1 unrelated; NaN without repeats.
        tiles_alike: whether all tiles are one and the same, and not constant.
        limits: thresholds.
    """

    count: int
    unique: int
    low: tuple[float, ...]
    high: tuple[float, ...]
    std: tuple[float, ...]
    rank: int
    neighbour: float
    neighbour_in_tiles: float
    pattern: str
    repeats_disagree: float
    tiles_alike: bool
    limits: Limits

    @property
    def reach(self) -> float:
        """The longest side of the box of positions."""
        return max(high - low for low, high in zip(self.low, self.high, strict=True))

    @property
    def fault(self) -> Fault | None:
        """What is wrong with how they lie."""
        if self.count > 1 and self.reach <= self.limits.one_spot_px:
            at = ", ".join(f"{low:.6g}" for low in self.low)
            return Fault("one_spot", f"all {self.count} positions lie within {self.reach:.3g} px of ({at})")
        if self.count > 1 and self.tiles_alike:
            return Fault("same_tile", f"all {self.count} tiles are the same, though they have {self.unique} positions")
        if self.repeats_disagree > self.limits.loose:  # NaN, where none repeats, compares false
            return Fault(
                "recycled",
                f"{self.count} tiles have only {self.unique} different positions{self.pattern}, and tiles that share "
                f"one are not alike (disagreement {self.repeats_disagree:.2g})",
            )
        return None


def position_spread(tiles: Tiles, positions: Float64[Tensor, "n ndim"], *, limits: Limits) -> Spread:
    """Look at positions, and at tiles that share one."""
    low, high = positions.amin(dim=0), positions.amax(dim=0)
    centred = positions - positions.mean(dim=0)
    singular = torch.linalg.svdvals(centred) / max(1, len(positions)) ** 0.5
    rounded = (positions / limits.same_px).round()
    _, owner = rounded.unique(dim=0, return_inverse=True)
    unique = int(owner.max()) + 1
    near = _nearest(positions)
    return Spread(
        count=len(positions),
        unique=unique,
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        std=tuple(positions.std(dim=0, correction=0).tolist()),
        rank=int((singular > limits.one_spot_px).sum()),
        neighbour=near,
        neighbour_in_tiles=near / min(tiles.shape[2:]),
        pattern=_pattern(owner, unique),
        repeats_disagree=_repeats_disagree(tiles, owner) if unique < len(positions) else float("nan"),
        tiles_alike=_alike(tiles),
        limits=limits,
    )


def _nearest(positions: Tensor) -> float:
    """Median distance to the nearest other position."""
    if len(positions) < 2:
        return float("nan")
    some = positions[:: -(-len(positions) // _NEIGHBOURS)]
    nearest = []
    for rows in torch.arange(len(some)).split(256):
        distance = torch.cdist(some[rows], positions)
        nearest.append(distance.topk(2, largest=False).values[:, 1])
    return float(torch.cat(nearest).median())


def _pattern(owner: Tensor, unique: int) -> str:
    """How positions repeat, in words that follow a noun."""
    n = len(owner)
    if unique == n or unique == 1:
        return ""
    runs = torch.unique_consecutive(owner, return_counts=True)[1]
    if len(runs) == unique and int(runs.amin()) > 1:
        return f", each {int(runs.amax())} times in a row"
    if unique <= n // 2 + 1 and bool((owner[unique:] == owner[:-unique]).all()):
        return f", which start again after row {unique - 1}"
    return ""


def _repeats_disagree(tiles: Tensor, owner: Tensor) -> float:
    """Unbiased variance among tiles of one position, over the variance among all; of at most 64 such positions."""
    shared = [rows for rows in _rows_by_owner(owner) if len(rows) > 1][:64]
    used = np.concatenate(shared)
    mean = tiles[torch.from_numpy(used)].mean(dim=0)
    inside = total = 0.0
    for rows in shared:
        held = tiles[torch.from_numpy(rows)]
        inside += float((held - held.mean(dim=0)).abs().square().sum(dtype=torch.float64)) * len(rows) / (len(rows) - 1)
        total += float((held - mean).abs().square().sum(dtype=torch.float64))
    return inside / total if total > 0 else 0.0


def _rows_by_owner(owner: Tensor) -> Sequence[np.ndarray]:
    order = np.argsort(owner.numpy(), kind="stable")
    return np.split(order, np.flatnonzero(np.diff(owner.numpy()[order])) + 1)


def _alike(tiles: Tensor) -> bool:
    """Whether all tiles are equal, and have any content."""
    first = tiles[:1]
    flat = first.flatten(2)
    return bool((flat != flat[..., :1]).any()) and bool((tiles[1:2] == first).all()) and bool((tiles == first).all())
