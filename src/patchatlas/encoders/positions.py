"""Learned position tables: one vector for every cell of the grid seen in training, resampled to other grids.

This is the one resampling outside `geometry/`: it repeats what the released weights were made with, slips included
(STYLE 16: a wrapper for foreign weights keeps their rule inside). Axes: gz gh gw grid cells, n patches, d features.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from patchatlas.errors import ShapeError


def resample_table(
    table: Float[Tensor, "*cells d"], grid: tuple[int, ...], *, offset: float, antialias: bool
) -> Float[Tensor, "n d"]:
    """The table at another grid, row-major; at its own grid it is given back untouched.

    In 2-D bicubic. With `offset` > 0 the table is enlarged by (cells + offset) / table cells along each axis, which is
    what DINOv2 without registers does (offset 0.1, no antialias): positions lie a little off the exact ones. With
    `offset` 0 the size is exact (DINOv2 with registers, antialias on). In 3-D trilinear at the exact size.

    Source: facebookresearch/dinov2 at b8931f7, `interpolate_pos_encoding` and the hub entry points.

    Raises:
        ShapeError: `grid` has another number of axes than the table, or 3-D is asked with offset or antialias.
    """
    cells = tuple(table.shape[:-1])
    if len(grid) != len(cells):
        raise ShapeError(f"a position table of {len(cells)} axes cannot serve a grid of {len(grid)} axes")
    if grid == cells:
        return table.flatten(0, -2)
    planes = table.movedim(-1, 0)[None]  # (1, d, *cells)
    if len(grid) == 3:
        if offset or antialias:
            raise ShapeError("3-D position tables are resampled at the exact size, without antialias")
        moved = F.interpolate(planes, size=grid, mode="trilinear", align_corners=False)
    elif offset:
        factors = tuple((wanted + offset) / have for wanted, have in zip(grid, cells, strict=True))
        moved = F.interpolate(planes, scale_factor=factors, mode="bicubic", align_corners=False, antialias=antialias)
    else:
        moved = F.interpolate(planes, size=grid, mode="bicubic", align_corners=False, antialias=antialias)
    return moved[0].flatten(1).T
