"""A sample of a scan in which tiles still have their neighbours: a few clusters, spread over the positions."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float64, Int
from torch import Tensor

# Object pixels that the canvas of one cluster may have.
_ROOM = 2**23


def clusters(
    positions: Float64[Tensor, "n ndim"], tile_size: Sequence[int], *, limit: int, count: int
) -> tuple[Int[Tensor, " _m"], ...]:
    """Rows of about `limit` positions in all, as clusters of nearest neighbours; the whole scan where it is small.

    The first cluster lies around the position nearest the middle, each next one around the position farthest from those
    before (Gonzalez, Theoretical Computer Science 38, 1985). Distances are the largest of |dx|, |dy| in tile sides, so
    that a cluster stays one whatever the signs. Clusters may share tiles, and hold none that is many tiles away.
    """
    n = len(positions)
    sides = torch.tensor(tuple(tile_size), dtype=torch.float64).flip(0)
    extent = (positions.amax(dim=0) - positions.amin(dim=0)) / sides + 1
    room = _ROOM / math.prod(tile_size)
    if n <= limit and float(extent.prod()) <= room:
        return (torch.arange(n),)
    farthest = max(1.0, (room ** (1 / len(sides)) - 1) / 2)
    middle = (positions.amin(dim=0) + positions.amax(dim=0)) / 2
    seed = int(((positions - middle) / sides).abs().amax(dim=1).argmin())
    nearest = torch.full((n,), torch.inf, dtype=torch.float64)
    found = []
    for _ in range(min(count, n)):
        distance = ((positions - positions[seed]) / sides).abs().amax(dim=1)
        rows = distance.topk(min(n, max(2, limit // count)), largest=False).indices
        found.append(rows[distance[rows] <= farthest].sort().values)
        nearest = nearest.minimum(distance)
        seed = int(nearest.argmax())
    return tuple(found)
