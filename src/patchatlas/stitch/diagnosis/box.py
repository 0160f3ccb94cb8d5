"""D3: the box that positions predict against the box that is lit: catches a collapse from a saved picture alone.

Axes: c channels, *size of the picture, array order; boxes run (x[, y[, z]]) low corner, then high corner, end excluded,
in pixels of the picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from patchatlas.canvas.plan import plan_canvas
from patchatlas.errors import ShapeError
from patchatlas.stitch.diagnosis.fault import Fault
from patchatlas.stitch.diagnosis.limits import Limits

# Part of the outermost pixels that must share one value for it to be taken for the background.
_BACKGROUND = 0.2

# A value differs from the background by more than this part of the largest difference: about one level of 8 bits.
_LEVEL = 0.005

# Pixels that a side may be longer than a tile and still show one: the share of a tile between pixels.
_TAPS = 2


@dataclass(frozen=True, kw_only=True)
class Box:
    """Where a picture should be lit, and where it is.

    Attributes:
        size: of the picture, (x[, y[, z]]).
        tile: of a tile, in the same order.
        tiles: number of tiles.
        predicted: box that the tiles need; where the origin is not known it starts at the low corner of the lit box.
        lit: box around all pixels that are not background; `None` where there are none.
        origin_known: whether `predicted` says where, or only how large.
        ratio: area of `lit` over that of `predicted`.
        from_coverage: whether `lit` was read from a coverage map, not guessed from the colours.
        limits: thresholds.
    """

    size: tuple[int, ...]
    tile: tuple[int, ...]
    tiles: int
    predicted: tuple[int, ...]
    lit: tuple[int, ...] | None
    origin_known: bool
    ratio: float
    from_coverage: bool
    limits: Limits

    @property
    def predicted_size(self) -> tuple[int, ...]:
        """Sides of the predicted box."""
        return _sides(self.predicted)

    @property
    def lit_size(self) -> tuple[int, ...]:
        """Sides of the lit box; zeros where nothing is lit."""
        return _sides(self.lit) if self.lit is not None else (0,) * len(self.size)

    @property
    def shows_one_tile(self) -> bool:
        """Whether the lit box has room for one tile only, though positions predict more."""
        small = all(0 < side <= tile + _TAPS for side, tile in zip(self.lit_size, self.tile, strict=True))
        return small and any(side > tile + _TAPS for side, tile in zip(self.predicted_size, self.tile, strict=True))

    @property
    def fault(self) -> Fault | None:
        """What the boxes alone tell."""
        wanted, found = _by(self.predicted_size), _by(self.lit_size)
        if self.lit is None:
            return Fault("dropped", f"nothing is lit, where {self.tiles} tiles should cover {wanted} px")
        if self.shows_one_tile:
            return Fault(
                "one_tile",
                f"the lit box is {found} px, one tile of {_by(self.tile)}; {self.tiles} tiles should cover {wanted}",
            )
        apart = [side - want for side, want in zip(self.lit_size, self.predicted_size, strict=True)]
        if max(apart) > _TAPS and self.ratio > 1 / self.limits.box:
            return Fault("unlike", f"the lit box is {found} px, larger than the {wanted} that the positions predict")
        if self.ratio < self.limits.box and min(apart) < -_TAPS:
            return Fault(
                "dropped",
                f"the lit box is {found} px, {100 * self.ratio:.0f} % of the {wanted} that the positions predict",
            )
        ndim = len(self.size)
        moved = [(a - b + c - d) / 2 for a, b, c, d in zip(*(_corners(self.lit, self.predicted, ndim)), strict=True)]
        if self.origin_known and max(abs(one) for one in moved) > _TAPS:
            return Fault("displaced", f"the lit box lies {_signed(moved)} px from where the positions predict it")
        return None


def bounding_box(
    picture: Shaped[Tensor, "*c_size"],
    positions: Float64[Tensor, "n ndim"],
    tile_size: Sequence[int],
    *,
    origin: Sequence[float | int] | None = None,
    coverage: Float[Tensor, "*size"] | None = None,
    limits: Limits | None = None,
) -> Box:
    """Compare the box that positions predict with the one that is lit.

    Args:
        picture: (*size) or (c, *size), any numbers. NaN is background; so is the value that most of the outermost
            pixels share, if a fifth of them do. Without such a value everything is lit.
        positions: of the tiles' first corners, in pixels of the picture.
        tile_size: pixels of a tile, array order.
        origin: object coordinate (x[, y[, z]]) of the picture's zero corner.
        coverage: of each pixel; it then says what is lit, for phase 0 and black are values like any other.
        limits: thresholds.

    Raises:
        ShapeError: a picture or coverage of other axes than the tiles.
        InputError: positions without rows, or not finite.
    """
    ndim = len(tuple(tile_size))
    if picture.ndim == ndim:
        picture = picture[None]
    if picture.ndim != ndim + 1 or (coverage is not None and coverage.shape != picture.shape[1:]):
        raise ShapeError(
            f"a picture of {tuple(picture.shape)} with coverage {None if coverage is None else tuple(coverage.shape)} "
            f"does not fit tiles of {tuple(tile_size)}; give (*size) or (channels, *size), and one coverage a pixel"
        )
    return compare_boxes(
        _around(coverage > 0 if coverage is not None else _foreground(picture)),
        positions,
        tile_size,
        size=tuple(picture.shape[:0:-1]),
        origin=origin,
        from_coverage=coverage is not None,
        limits=limits,
    )


def compare_boxes(
    lit: tuple[int, ...] | None,
    positions: Float64[Tensor, "n ndim"],
    tile_size: Sequence[int],
    *,
    size: tuple[int, ...],
    origin: Sequence[float | int] | None,
    from_coverage: bool,
    limits: Limits | None,
) -> Box:
    """`bounding_box` where the lit box (x[, y[, z]] low, then high) of a picture of `size` (x[, y[, z]]) is known."""
    ndim = len(tuple(tile_size))
    shift = (
        torch.zeros(ndim, dtype=torch.float64) if origin is None else torch.tensor(tuple(origin), dtype=torch.float64)
    )
    plan = plan_canvas(positions - shift, tile_size)
    low, sides = plan.origin[::-1], plan.size[::-1]
    if origin is None:
        low = (0,) * ndim if lit is None else lit[:ndim]
    area = float(torch.tensor(_sides(lit)).double().prod()) if lit is not None else 0.0
    return Box(
        size=size,
        tile=tuple(tile_size)[::-1],
        tiles=len(positions),
        predicted=(*low, *(a + b for a, b in zip(low, sides, strict=True))),
        lit=lit,
        origin_known=origin is not None,
        ratio=area / plan.pixels,
        from_coverage=from_coverage,
        limits=limits if limits is not None else Limits(),
    )


def _foreground(picture: Tensor) -> Tensor:
    """Pixels (*size) that are not background."""
    values = picture.to(torch.complex128 if picture.is_complex() else torch.float64)
    there = torch.isfinite(values.abs()).all(dim=0)
    values = torch.where(there, values, 0)
    rim = torch.zeros(picture.shape[1:], dtype=torch.bool)
    for axis, side in enumerate(rim.shape):
        rim.index_fill_(axis, torch.tensor([0, side - 1]), True)
    outermost = values[:, rim & there].T  # (pixels, c)
    if not len(outermost):
        return there
    parts = torch.view_as_real(outermost).flatten(1) if picture.is_complex() else outermost
    colours, count = parts.unique(dim=0, return_counts=True)
    if float(count.max()) < _BACKGROUND * len(outermost):
        return there
    commonest = colours[count.argmax()]
    background = torch.view_as_complex(commonest.reshape(-1, 2)) if picture.is_complex() else commonest
    difference = (values - background.reshape(-1, *([1] * rim.ndim))).abs().amax(dim=0)
    return there & (difference > _LEVEL * difference[there].max())


def _around(lit: Tensor) -> tuple[int, ...] | None:
    low, high = [], []
    for axis in reversed(range(lit.ndim)):
        others = [a for a in range(lit.ndim) if a != axis]
        on = (lit.any(dim=others) if others else lit).nonzero()
        if not len(on):
            return None
        low.append(int(on[0]))
        high.append(int(on[-1]) + 1)
    return (*low, *high)


def _sides(box: Sequence[int]) -> tuple[int, ...]:
    half = len(box) // 2
    return tuple(high - low for low, high in zip(box[:half], box[half:], strict=True))


def _corners(lit: Sequence[int], predicted: Sequence[int], ndim: int) -> tuple[Sequence[int], ...]:
    return lit[:ndim], predicted[:ndim], lit[ndim:], predicted[ndim:]


def _by(sides: Sequence[int]) -> str:
    return " x ".join(str(side) for side in sides)


def _signed(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:+.3g}" for value in values) + ")"
