"""What `place` and `extract` accept: nothing is repeated, cut to fit or guessed.

Axes: n tiles, ndim = 1, 2 or 3. Positions are (x[, y[, z]]); corners are the same in array order,
([z,] [y,] x), float64.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from patchatlas.errors import InputError, ShapeError, UsageError

FARTHEST = 2.0**31
"""Pixels. No canvas is that large, and positions in metres or motor steps tend to be noticed here."""


# So near to a whole pixel a position is off by the rounding of whatever computed it: 3 * 1.1 is 4e-16 above 3.3. Kept,
# it would cost a row of pixels that hold next to nothing, and copies would be interpolations.
_WHOLE = 1e-9


def in_array_order(positions: Tensor, tile_size: Sequence[int], *, count: int | None = None) -> Tensor:
    """Checked positions as corners (n, ndim), differentiable; whole where they are within 1e-9 pixels of it.

    Args:
        positions: (n, ndim).
        tile_size: pixels of a tile, array order.
        count: number of tiles, where there are some.

    Raises:
        ShapeError: not one position of as many coordinates as the tile has axes a tile.
        InputError: no positions, some that are not finite or absurdly far, or half precision.
    """
    size = tuple(tile_size)
    if not 1 <= len(size) <= 3 or min(size) < 1:
        raise ShapeError(f"tiles have one to three axes and no empty side, given {size}")
    if positions.ndim != 2 or positions.shape[1] != len(size):
        raise ShapeError(
            f"positions must be (n, {len(size)}), one {('x', '(x, y)', '(x, y, z)')[len(size) - 1]} a tile, for tiles "
            f"of {size}; given {tuple(positions.shape)}"
        )
    if count is not None and len(positions) != count:
        raise ShapeError(f"{count} tiles need as many positions, given {len(positions)}; none are repeated or left out")
    if not len(positions):
        raise InputError("there are no positions; an empty scan has no canvas")
    if positions.dtype in (torch.float16, torch.bfloat16):
        raise InputError(f"positions in {positions.dtype} are off by whole pixels; give float64 (or float32)")
    bad = ~(positions.detach().abs() <= FARTHEST).all(dim=1)  # NaN compares false
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise InputError(
            f"{int(bad.sum())} of {len(bad)} positions are not finite or beyond {FARTHEST:.0f} pixels, the first is "
            f"row {row}: {positions[row].tolist()}; give pixels, not metres or motor steps, and leave such tiles out"
        )
    corners = positions.to(torch.float64).flip(1)
    missing = (corners.round() - corners).detach()
    return corners + torch.where(missing.abs() < _WHOLE, missing, 0)


def check_canvas(channels: int, dtype: torch.dtype) -> None:
    """What a canvas can be made of.

    Raises:
        ShapeError: no channels.
        UsageError: a dtype in which sums are not kept.
    """
    if dtype not in (torch.float32, torch.float64, torch.complex64, torch.complex128):
        raise UsageError(f"a canvas sums in float32, float64, complex64 or complex128, not in {dtype}")
    if channels < 1:
        raise ShapeError(f"{channels} channels: tiles have at least one")


def check_fill(fill: int | float | complex, dtype: torch.dtype) -> None:
    """A fill for values of that type.

    Raises:
        UsageError: a complex fill for real values.
    """
    if fill.imag and not dtype.is_complex:
        raise UsageError(f"a fill of {fill} is complex, the canvas is real")


def check_read(tiles: Tensor, *, count: int, channels: int, tile_size: Sequence[int]) -> None:
    """What was read is what was asked for.

    Raises:
        ShapeError: another number of tiles, or other axes, channels or sides.
    """
    if tuple(tiles.shape) != (count, channels, *tile_size):
        raise ShapeError(
            f"read gave {tuple(tiles.shape)}; asked for {count} tiles of {tuple(tile_size)} with {channels} channels"
        )


def check_tiles(tiles: Tensor, *, channels: int, ndim: int, is_complex: bool) -> None:
    """Tiles (n, channels, *tile) for a canvas.

    Raises:
        ShapeError: other axes or channels.
        InputError: neither floats nor complex numbers, or complex ones for a real canvas.
    """
    if tiles.ndim != 2 + ndim:
        raise ShapeError(
            f"tiles for a {ndim}-D canvas are (n, channels, {('x', 'y, x', 'z, y, x')[ndim - 1]}), given "
            f"{tuple(tiles.shape)}"
        )
    if tiles.shape[1] != channels:
        raise ShapeError(f"tiles of {tiles.shape[1]} channels do not fit a canvas of {channels}")
    if not (tiles.is_floating_point() or tiles.is_complex()):
        raise InputError(f"tiles are {tiles.dtype}; give floats or complex numbers")
    if tiles.is_complex() and not is_complex:
        raise InputError("complex tiles need a complex canvas; give it a complex dtype, or place their parts apart")


def check_weights(window: Tensor | None, weights: Tensor | None, *, count: int, tile_size: Sequence[int]) -> None:
    """A window of the tile's size, positive somewhere, and one weight a tile, none of them negative.

    Raises:
        ShapeError: other sizes.
        InputError: a number that is negative or not finite, or a window of zeros.
    """
    if window is not None and tuple(window.shape) != tuple(tile_size):
        raise ShapeError(f"a window of {tuple(window.shape)} does not fit tiles of {tuple(tile_size)}")
    if weights is not None and tuple(weights.shape) != (count,):
        raise ShapeError(f"{count} tiles need weights of ({count},), given {tuple(weights.shape)}")
    for name, given in (("window", window), ("weights", weights)):
        if given is not None and not bool(((given >= 0) & (given < math.inf)).all()):
            low, high = float(given.min()), float(given.max())
            raise InputError(f"the {name} must be finite and not negative; given {low:g} to {high:g}")
    if window is not None and not bool((window > 0).any()):
        raise InputError("the window is 0 everywhere, so that no tile would count; give one that is positive somewhere")


def all_finite(numbers: Tensor) -> bool:
    """Whether there is no NaN and no infinity; in one pass that only reads, where the sum does not overflow."""
    flat = torch.view_as_real(numbers.detach().resolve_conj()) if numbers.is_complex() else numbers.detach()
    # The sum of finite numbers may overflow; that of others is never finite.
    return bool(flat.sum(dtype=torch.promote_types(flat.dtype, torch.float32)).isfinite()) or bool(
        flat.isfinite().all()
    )


def check_finite(tiles: Tensor) -> None:
    """Refuse tiles with a NaN or an infinity.

    Raises:
        InputError: names the first of them.
    """
    if all_finite(tiles):
        return
    rows = torch.tensor([not all_finite(tile) for tile in tiles]).nonzero()[:, 0].tolist()
    raise InputError(
        f"{len(rows)} of {len(tiles)} tiles hold a NaN or an infinity, the first is row {rows[0]}; leave such tiles "
        "out, or mend them"
    )
