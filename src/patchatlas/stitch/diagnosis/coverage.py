"""D4: how often pixels are covered, and which tiles are missing.

Axes: n tiles, *size of the picture.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from patchatlas.stitch.diagnosis.fault import Fault

# Where a tile is looked for, as parts of its sides.
_PROBES = (0.25, 0.5, 0.75)


@dataclass(frozen=True, kw_only=True)
class CoverageStats:
    """Coverage over the lit pixels.

    Attributes:
        least: smallest coverage of a lit pixel.
        median: of lit pixels.
        most: largest.
        mean: of lit pixels.
        expected_mean: tile pixels over lit pixels: what `mean` is if every tile counts fully.
        lit_part: lit pixels over all of the picture.
        dropped: rows of tiles that were not placed: unlit at each of nine places inside them (in a plane), or outside.
        placed: tiles that the canvas says it got; `None` where it was not asked.
        tiles: number of tiles.
    """

    least: float
    median: float
    most: float
    mean: float
    expected_mean: float
    lit_part: float
    dropped: tuple[int, ...]
    placed: int | None
    tiles: int

    @property
    def fault(self) -> Fault | None:
        """Whether tiles are missing."""
        if self.dropped:
            rows = ", ".join(str(row) for row in self.dropped[:10]) + (", ..." if len(self.dropped) > 10 else "")
            return Fault(
                "dropped", f"{len(self.dropped)} of {self.tiles} tiles are missing from the canvas: rows {rows}"
            )
        if self.placed is not None and self.placed != self.tiles:
            return Fault("dropped", f"the canvas holds {self.placed} tiles, not {self.tiles}")
        return None


def coverage_stats(
    coverage: Float[Tensor, "*size"],
    positions: Float64[Tensor, "n ndim"],
    tile_size: Sequence[int],
    *,
    origin: Sequence[float | int] | None,
    placed: int | None = None,
) -> CoverageStats:
    """Look at a coverage map.

    Args:
        coverage: not negative, 0 where no tile lies.
        positions: of the tiles' first corners, object pixels.
        tile_size: pixels of a tile, array order.
        origin: object coordinate (x[, y[, z]]) of the map's zero corner; without it no tile can be missed.
        placed: tiles that the canvas counted.
    """
    lit = coverage[coverage > 0].double()
    some = lit if len(lit) else lit.new_zeros(1)
    return CoverageStats(
        least=float(some.min()),
        median=float(some.median()),
        most=float(some.max()),
        mean=float(some.mean()),
        expected_mean=len(positions) * math.prod(tile_size) / max(1, len(lit)),
        lit_part=len(lit) / coverage.numel(),
        dropped=() if origin is None else _dropped(coverage, positions, tile_size, origin),
        placed=placed,
        tiles=len(positions),
    )


def _dropped(
    coverage: Tensor, positions: Tensor, tile_size: Sequence[int], origin: Sequence[float | int]
) -> tuple[int, ...]:
    """Rows without a lit pixel at any of the places looked at."""
    corners = (positions - torch.tensor(tuple(origin), dtype=torch.float64)).flip(1)
    sides = torch.tensor(tuple(tile_size), dtype=torch.float64)
    limit = torch.tensor(coverage.shape)
    seen = torch.zeros(len(corners), dtype=torch.bool)
    for parts in product(_PROBES, repeat=len(sides)):
        at = torch.floor(corners + sides * torch.tensor(parts, dtype=torch.float64)).long()
        inside = ((at >= 0) & (at < limit)).all(dim=1)
        seen[inside] |= coverage[tuple(at[inside].T)] > 0
    return tuple((~seen).nonzero()[:, 0].tolist())
