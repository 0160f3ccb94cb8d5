"""Rotary position embedding on a grid of 2 or 3 axes: where a patch stands turns its queries and keys.

Every axis gets the same `p` periods. A patch whose centre sits at u in -1..1 along an axis (each axis scaled by its own
length) is turned by the angle 2 pi u / period, for every axis and period. The angles of one patch, axis after axis,
fill half of the turned channels; channel i turns together with channel i + half (Su et al. 2021, arXiv:2104.09864, in
the "halves" pairing; normalisation and periods as DINOv3 has them, arXiv:2508.10104). Channels that are left over
because head_dim is no multiple of 2 x axes stay as they are.

Axes: b batch, m heads, t all tokens (class, registers, patches), n patches, p periods, e head_dim, a angles = axes x p.
"""

import math
from collections import OrderedDict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

CACHED_GRIDS = 8
"""Tables of this many grids are kept: a run sees a handful of aspect buckets, and one table is a few MB."""

Table = tuple[Float[Tensor, "t a"], Float[Tensor, "t a"]]


def geometric_periods(head_dim: int, ndim: int, base: float = 100.0) -> Float[Tensor, " p"]:
    """Periods base^(i / p) for i = 0 .. p - 1, with p = head_dim // (2 ndim), float32.

    Base 100 is DINOv3's. Its released files hold these numbers rounded to bfloat16: where a file holds periods they are
    read from it and not computed (the difference moves tokens by about 1e-2).
    """
    count = head_dim // (2 * ndim)
    # Computed on the CPU: arithmetic on the meta device imports torch's compiler, which takes a second or two.
    steps = torch.arange(count, dtype=torch.float32, device="cpu") / count
    return torch.pow(torch.tensor(base, device="cpu"), steps).to(torch.get_default_device())


def patch_centres(grid: tuple[int, ...]) -> Float[Tensor, "n ndim"]:
    """Centres of the patches of a grid, row-major, in -1..1 along every axis, axis order as the grid's."""
    axes = [2 * (torch.arange(side, dtype=torch.float32) + 0.5) / side - 1 for side in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)


def patch_angles(centres: Float[Tensor, "n ndim"], periods: Float[Tensor, " p"]) -> Float[Tensor, "n a"]:
    """Angles in radians of every patch: all periods of the first axis, then of the next."""
    return (2 * math.pi * centres[:, :, None] / periods).flatten(1)


def rotate(
    x: Float[Tensor, "b m t e"], cos: Float[Tensor, "t a"], sin: Float[Tensor, "t a"]
) -> Float[Tensor, "b m t e"]:
    """Turn channels i and a + i of every token by its i-th angle; computed in the table's dtype, given back in x's."""
    half = cos.shape[-1]
    first, second, rest = x.to(cos.dtype).tensor_split((half, 2 * half), dim=-1)
    turned = (torch.addcmul(first * cos, second, sin, value=-1), torch.addcmul(second * cos, first, sin))
    return torch.cat((*turned, rest) if rest.shape[-1] else turned, dim=-1).to(x.dtype)


class Rope(nn.Module):
    """The periods of a network, and the tables of cosines and sines of the grids it met lately.

    Args:
        head_dim: channels of one attention head.
        ndim: axes of the grid.
        prefix: tokens before the patches (class, registers), which are not turned.
        base: ratio that the periods span.
    """

    periods: Tensor

    def __init__(self, head_dim: int, ndim: int, *, prefix: int, base: float) -> None:
        super().__init__()
        self.prefix = prefix
        self.register_buffer("periods", geometric_periods(head_dim, ndim, base))
        self._tables: OrderedDict[tuple[tuple[int, ...], torch.device], Table] = OrderedDict()

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """Forget the tables of the old periods. (A hook would not be right in a deep copy.)"""
        super()._load_from_state_dict(*args, **kwargs)
        self._tables.clear()

    def forward(self, grid: tuple[int, ...]) -> Table:
        """Cosines and sines, float32, for all tokens of an input with this patch grid; prefix rows are 1 and 0."""
        key = (grid, self.periods.device)
        table = self._tables.pop(key, None)
        if table is None:
            with torch.inference_mode(False), torch.no_grad():
                centres = patch_centres(grid).to(self.periods.device)
                angles = nn.functional.pad(patch_angles(centres, self.periods.float()), (0, 0, self.prefix, 0))
                table = (angles.cos(), angles.sin())
        self._tables[key] = table  # as the latest; each step is whole by itself, for several threads may be here
        while len(self._tables) > CACHED_GRIDS:
            self._tables.popitem(last=False)
        return table
