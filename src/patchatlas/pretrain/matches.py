"""Which patches of two crops show the same place: each patch centre of one, as a point among the patches of the other.

Records say exactly where crops lie, so this is geometry alone, for boxes of pictures and volumes as for any
quadrilateral. Nothing is computed unless it is asked for.

Axes: e ordered pairs of global crops (0 to 1, 0 to 2 ..., 1 to 0 ...), b samples, n patches (row-major), g crops.
Points in cells run (x, y[, z]): cell (r, c) covers [c, c + 1) x [r, r + 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from patchatlas.encoders.inputs import patch_grid
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.grid import PatchGrid
from patchatlas.geometry.sampling import sample
from patchatlas.pretrain.crops.records import Batch


@dataclass(frozen=True, eq=False, kw_only=True)
class Matches:
    """The places of all patches of a micro-batch in the other global crops of their sample.

    Attributes:
        grid: patches along each axis.
        pairs: the ordered pairs of global crops: from, to.
        cells: where the centre of each patch of the first lies in the second; 0 where it is not valid.
        valid: whether that is a place to compare.
        source: number of the volume or photograph that each sample is of; equal ones are no negatives.
    """

    grid: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    cells: Float[Tensor, "e b n ndim"]
    valid: Bool[Tensor, "e b n"]
    source: Int64[Tensor, " b"]

    def without(self, hidden: Bool[Tensor, "g b n"]) -> "Matches":
        """Those of which neither the patch nor any patch that its place is read from is hidden."""
        if not bool(hidden.any()):
            return self
        kept = self.valid.clone()
        for e, (one, other) in enumerate(self.pairs):
            for b in range(kept.shape[1]):
                shown = hidden[other, b].reshape(1, *self.grid).float()
                kept[e, b] &= ~hidden[one, b] & (sample(shown, self.cells[e, b])[:, 0] == 0)
        return replace(self, valid=kept)

    def to(self, device: torch.device) -> "Matches":
        """The same with its tensors on another device."""
        return replace(self, cells=self.cells.to(device), valid=self.valid.to(device), source=self.source.to(device))


def find_matches(batch: Batch, patch: Sequence[int], *, margin: float) -> Matches:
    """Where every patch centre of a global crop lies in every other global crop of its sample.

    A place is valid if the other crop shows it, at least `margin` cells from its edge, if it lies in the picture or
    volume, and if neither its patch nor the one that it falls on is padding.

    Args:
        batch: crops and their records; only records and padding are looked at.
        patch: pixels or voxels of a patch, array order.
        margin: cells.
    """
    g, samples = batch.globals.shape[:2]
    size = tuple(batch.globals.shape[3:])
    grid = patch_grid(size, tuple(patch))
    pairs = tuple(permutations(range(g), 2))
    plane = PatchGrid.on(Frame.whole(size), patch)
    centres, cell = plane.centres(), torch.tensor(tuple(patch)[::-1], dtype=torch.float64)
    shape = torch.tensor(grid[::-1], dtype=torch.float64)
    pad = batch.global_pad.cpu()
    places, valid = [], []
    for one, other in pairs:
        for b, records in enumerate(batch.records):
            here, there = records[one], records[other]
            source = here.map.to_source(centres)
            at = there.map.from_source(source) / cell
            whole = torch.tensor(here.frame.source_size[::-1], dtype=torch.float64)
            seen = ((at >= margin) & (at <= shape - margin) & (source >= 0) & (source <= whole)).all(dim=1)
            at = torch.where(seen[:, None], at, 0.0)
            valid.append(seen & ~pad[one, b] & ~pad[other, b][_cell_numbers(at, grid)])
            places.append(at)
    cells = torch.stack(places).to(torch.float32) if places else torch.zeros(0, len(centres), len(grid))
    found = torch.stack(valid) if valid else torch.zeros(0, len(centres), dtype=torch.bool)
    names = [records[0].volume for records in batch.records]
    _, source_of = np.unique(names, return_inverse=True)
    return Matches(
        grid=grid,
        pairs=pairs,
        cells=cells.unflatten(0, (len(pairs), samples)),
        valid=found.unflatten(0, (len(pairs), samples)),
        source=torch.from_numpy(source_of.astype(np.int64)),
    ).to(batch.globals.device)


def _cell_numbers(at: Float[Tensor, "n ndim"], grid: tuple[int, ...]) -> Int64[Tensor, " n"]:
    """Row-major numbers of the cells that points fall on; a point on the far edge falls on the last cell."""
    number = torch.zeros(len(at), dtype=torch.int64)
    for axis, count in enumerate(grid):
        number = number * count + at[:, -1 - axis].long().clamp(0, count - 1)
    return number
