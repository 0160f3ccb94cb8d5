"""Where patches lie in their picture, as numbers that a network can take.

Axes: n patches, row-major.
"""

import torch
from jaxtyping import Float32
from torch import Tensor

from patchatlas.geometry.frame import Frame
from patchatlas.geometry.grid import PatchGrid


def grid_coordinates(rows: int, columns: int) -> Float32[Tensor, "n 2"]:
    """Patch centres (x, y), the picture's centre being (0, 0) and its long side running from -1 to 1.

    Both axes have one scale, so equal distances in a picture are equal numbers whatever its aspect.
    """
    extent = torch.tensor([columns, rows], dtype=torch.float64)
    centres = PatchGrid.on(Frame.whole((rows, columns)), (1, 1)).centres()
    return ((2 * centres - extent) / max(rows, columns)).float()
