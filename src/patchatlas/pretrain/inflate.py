"""A network for volumes made from one for pictures: the same blocks, one more axis in patch embedding and positions.

* The patch embedding is averaged over colours (or summed, which keeps its answers to grey pictures), resized to the new
  patch in the plane by area with its sum kept, and repeated along depth, divided by it: a volume that is the same in
  every slice gets what its slice got (Carreira and Zisserman 2017, arXiv 1705.07750, section 2).
* A learned table of positions is repeated for every slice.
* Rotary positions over three axes have fewer periods an axis. Queries and keys are put in another order, head by head
  and both alike, which changes no product of the two: every pair of channels that turned with a row or column turns
  with one of the nearest period again, those that are left over turn with depth, and what still is left with nothing.
* Everything else is taken as it is.

Axes: d features, c channels, ph pw patch in the plane, pd depth of the patch.
"""

from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.encoders.keymaps.layout import State
from patchatlas.encoders.rope import geometric_periods
from patchatlas.encoders.vit import ViTConfig
from patchatlas.errors import UsageError
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.sampling import resample


def inflate(
    state: State, config: ViTConfig, *, patch: tuple[int, int, int], grey: Literal["mean", "sum"] = "mean"
) -> tuple[State, ViTConfig]:
    """State dict and config of a network for volumes of one channel.

    Args:
        state: of a network for pictures, in the normalised space, as `loading.translate` gives it.
        config: of that network.
        patch: of the new one, (z, h, w).
        grey: how colours become one channel.

    Raises:
        UsageError: the network is not one for pictures, or its heads have too few channels for three axes.
    """
    if config.ndim != 2:
        raise UsageError(f"weights with patch {config.patch} are for volumes already; only those for pictures inflate")
    if config.table_grid is None and config.head_dim < 6:
        raise UsageError(f"heads of {config.head_dim} channels are too short for three rotary axes; 6 are needed")
    made = dict(state)
    made["patch_embed.weight"] = inflate_patches(state["patch_embed.weight"].float(), patch=patch, grey=grey)
    grid = None
    if "positions" in state:
        # One slice: the network resamples it to as many as an input has, all alike.
        made["positions"] = state["positions"][None].clone()
        grid = (1, *state["positions"].shape[:2])
    else:
        made["rope.periods"] = geometric_periods(config.head_dim, 3, config.rope_base)
        order = channel_order(state["rope.periods"].float(), made["rope.periods"], config.head_dim)
        for key in [key for key in state if ".attention.qkv." in key]:
            made[key] = _reordered(state[key], order, config.heads)
    return made, replace(
        config, family="vit3d", patch=patch, channels=1, table_grid=grid, table_offset=0.0, table_antialias=False
    )


def inflate_patches(
    weight: Float[Tensor, "d c ph pw"], *, patch: tuple[int, int, int], grey: Literal["mean", "sum"]
) -> Float[Tensor, "d 1 pd qh qw"]:
    """The patch embedding for volumes; the sum of a kernel stays, but for the colours that `mean` divides by."""
    plane = weight.mean(1) if grey == "mean" else weight.sum(1)  # (d, ph, pw)
    depth, *size = patch
    if tuple(plane.shape[1:]) != tuple(size):
        total = plane.sum((1, 2), keepdim=True)
        frame = Frame.whole(tuple(plane.shape[1:])).resize(tuple(size))
        plane = resample(plane, frame) * (plane.shape[1] * plane.shape[2] / (size[0] * size[1]))
        plane = plane + (total - plane.sum((1, 2), keepdim=True)) / (size[0] * size[1])
    return (plane / depth)[:, None, None].repeat(1, 1, depth, 1, 1).contiguous()


def channel_order(flat: Float[Tensor, " p"], deep: Float[Tensor, " q"], head_dim: int) -> list[int]:
    """Where each channel of a head comes from, when the periods of two axes become those of three.

    Channel i turns with channel i + half; see `encoders/rope.py`.

    Args:
        flat: periods an axis of the network for pictures, rising.
        deep: periods an axis of the network for volumes, rising; not more of them.
        head_dim: channels of a head.
    """
    p, q = len(flat), len(deep)
    rows, free = [], list(range(p))
    for period in deep:  # one each, the nearest that is left, in octaves
        nearest = min(free, key=lambda i: abs(float(torch.log(flat[i] / period))))
        free.remove(nearest)
        rows.append(nearest)
    columns = [p + i for i in rows]
    rest = sorted([*free, *(p + i for i in free)], key=lambda i: float(flat[i % p]))
    turning = [(i, i + 2 * p) for i in [*rows, *columns, *rest]]
    pairs = [*turning, *((i, i + 1) for i in range(4 * p, head_dim - 1, 2))]
    deepest, other = pairs[2 * q : 3 * q], pairs[3 * q :]
    chosen = [*deepest, *pairs[: 2 * q]]  # axis order z, y, x
    used = [*(one for one, _ in chosen), *(two for _, two in chosen), *(channel for pair in other for channel in pair)]
    return [*used, *(channel for channel in range(head_dim) if channel not in used)]


def _reordered(qkv: Tensor, order: list[int], heads: int) -> Tensor:
    """Queries and keys with the channels of each head in another order; values as they are. (3 m e, ...)"""
    parts = qkv.unflatten(0, (3, heads, -1)).clone()
    parts[:2] = parts[:2][:, :, order]
    flat: Tensor = parts.flatten(0, 2)
    return flat
