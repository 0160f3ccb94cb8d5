"""Names for the arrays that cross public doors.

Axes: b batch, c channels, z h w voxels or pixels, gz gh gw patch grid, n tokens, r registers, d feature size,
k queries, p points. Points are (x, y) or (x, y, z); sizes and indices run (z,) row, column.
"""

from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

ImageU8 = UInt8[ndarray, "_h _w 3"]
"""An RGB picture, EXIF-upright, 8 bits a channel. Two pictures in one signature may differ in size (hence the _)."""

Pixels = Float[Tensor, "c *size"]
"""One picture or volume, float, channels first; RGB pictures run 0..1."""

PixelBatch = Float[Tensor, "b c *size"]
"""Several pictures or volumes of one size."""

Points = Float[Tensor, "p ndim"]
"""Points (x, y) or (x, y, z) in the continuous plane: pixel (r, c) covers [c, c+1) x [r, r+1)."""

Vectors = Float[Tensor, "k d"]
"""Feature vectors, one a row."""
