"""A canvas: the weighted sum of tiles placed at sub-pixel positions, and the sum of their weights.

Axes: n tiles, c channels, *tile axes of a tile, ndim of them, *size axes of the canvas, array order.
"""

import math

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from patchatlas.canvas.blocks import add_blocks, sum_blocks
from patchatlas.canvas.compiled import Backend, add_tiles, use_compiled
from patchatlas.canvas.contract import (
    all_finite,
    check_canvas,
    check_fill,
    check_finite,
    check_tiles,
    check_weights,
    in_array_order,
)
from patchatlas.canvas.coverage import Even, WindowSum, count_tiles, sum_of_shifted
from patchatlas.canvas.mean import mean, write_mean
from patchatlas.canvas.numbers import channels_last, for_every_number, to_numbers, to_values
from patchatlas.canvas.plan import CanvasPlan
from patchatlas.canvas.spread import spread
from patchatlas.canvas.taps import Interpolation, Taps, check_interpolation, find_taps
from patchatlas.errors import ResourceError, UsageError

Tiles = Float[Tensor, "n c *tile"] | Complex[Tensor, "n c *tile"]
Values = Float[Tensor, "c *size"] | Complex[Tensor, "c *size"]
Fill = int | float | complex

# Bytes of tiles handled at a time where they are copied: they should still be in the cache when they are added.
CHUNK = 1 << 20

# Cubic and Fourier kernels are negative in places. Where positive and negative parts cancel to less than this part of
# what they would add up to without signs, the quotient would blow up ringing and rounding: the pixel has no value.
_LEAST_PART = 0.5

# Fourier kernels also leave a trace of all of a shifted tile at its rim, some 1e-7 of it. Where the weight is below
# this part of what these tiles count at their best, the trace would show: the pixel has no value.
_LEAST_OF_BEST = 0.03


class Canvas:
    """Collects tiles in any order; the order changes nothing but the last bits.

    Attributes:
        plan: where the canvas lies in the object.
        interpolation: how tiles are shifted by parts of a pixel.
        fill: what `value` puts where no tile lies.
        backend: what does the work, see `canvas.compiled`.
    """

    def __init__(
        self,
        plan: CanvasPlan,
        *,
        channels: int = 1,
        dtype: torch.dtype = torch.complex64,
        device: torch.device | None = None,
        interpolation: Interpolation = "linear",
        fill: Fill = 0.0,
        backend: Backend = "auto",
    ) -> None:
        """An empty canvas.

        Args:
            plan: where it lies.
            channels: of the tiles to come.
            dtype: of the sum: float32, float64, complex64 or complex128.
            device: where it is kept; tiles must be there too.
            interpolation: one for all tiles of a canvas.
            fill: what `value` puts where no tile lies.
            backend: `numba` for the compiled CPU path, `torch` for the one that runs everywhere, `auto` for the former
                where it is installed and can do the work.

        Raises:
            UsageError: a dtype in which sums are not kept, a complex fill for real values, or no such interpolation.
            ShapeError: no channels.
            ResourceError: the canvas does not fit into memory.
        """
        check_canvas(channels, dtype)
        check_fill(fill, dtype)
        check_interpolation(interpolation)
        self.plan = plan
        self.interpolation = interpolation
        self.backend: Backend = backend
        self._dtype, self._complex, self._real = dtype, dtype.is_complex, dtype.to_real()
        self.fill = fill
        size = (*plan.size, channels * (2 if dtype.is_complex else 1))
        try:
            self._sum = torch.zeros(size, dtype=self._real, device=device)
        except (RuntimeError, MemoryError) as error:
            raise ResourceError(
                f"a canvas of {plan.size} with {channels} channels of {dtype} does not fit into memory; are the "
                "positions in pixels?"
            ) from error
        # The even sums and the mean can be compiled whatever the interpolation of the tiles.
        self._compiled = use_compiled(backend, device=self._sum.device, interpolation="linear", differentiable=False)
        self._weight = WindowSum(plan, interpolation, self._sum, compiled=self._compiled)
        self._unsigned: WindowSum | None = None
        if interpolation in ("cubic", "fourier"):
            self._unsigned = WindowSum(plan, interpolation, self._sum, compiled=self._compiled, absolute=True)
        self._placed: list[Even] = []
        self._closed = ""

    @property
    def channels(self) -> int:
        """Channels of the tiles."""
        return self._sum.shape[-1] // (2 if self._complex else 1)

    @property
    def tile_count(self) -> int:
        """Number of tiles added."""
        return sum(len(some.corners) for some in self._placed)

    def add(
        self,
        tiles: Tiles,
        positions: Float[Tensor, "_n _ndim"],
        *,
        window: Float[Tensor, "..."] | None = None,
        weights: Float[Tensor, " _n"] | None = None,
        crop: bool = False,
    ) -> None:
        """Add tiles.

        Args:
            tiles: real or complex, any float type; summed in the canvas's own.
            positions: (x[, y[, z]]) of each tile's first corner in object pixels; handled in float64, and whole where
                they are within 1e-9 of it. Gradients flow to tiles, positions, window and weights where these ask for
                them.
            window: weight of each pixel of a tile, finite, not negative and positive somewhere; None counts all alike.
            weights: of each tile, such as a confidence, finite and not negative; None counts all alike.
            crop: drop what lies outside the plan instead of refusing tiles that reach there.

        Raises:
            ShapeError: counts, channels or axes that do not fit each other or the canvas, or a tile outside the plan.
            InputError: positions that are not finite, negative weights, a window of zeros, complex tiles for a real
                canvas, or tiles with a NaN or an infinity, whatever they count; of these some canvases learn only when
                they are in the sum, and refuse all use from then on.
            UsageError: the canvas was consumed, or its backend cannot do this.
            MissingExtraError: its backend is not installed.
        """
        self._check_alive()
        check_tiles(tiles, channels=self.channels, ndim=self.plan.ndim, is_complex=self._complex)
        size = tuple(tiles.shape[2:])
        corners = in_array_order(positions, size, count=len(tiles)).to(tiles.device)
        check_weights(window, weights, count=len(tiles), tile_size=size)
        if not crop:
            self.plan.check_holds(corners, size, self.interpolation)

        given = (tiles, positions, window, weights)
        differentiable = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in given)
        compiled = use_compiled(
            self.backend,
            device=self._sum.device,
            interpolation=self.interpolation,
            differentiable=differentiable or self._sum.requires_grad,
        )
        taps = find_taps(corners, self.interpolation, self._real)
        # What no border and no weight of 0 keeps out shows in the sum, so that the smaller of the two can be looked at.
        all_count = not crop and (weights is None or bool((weights.to(self._real) > 0).all()))
        look_at_sum = all_count and self._sum.numel() < tiles.numel()
        if not look_at_sum:
            check_finite(tiles)
        if compiled:
            self._add_compiled(tiles, taps, window, weights)
        else:
            self._add_by_torch(tiles, corners, taps, window, weights, differentiable=differentiable)
        if look_at_sum and not all_finite(self._sum):
            self._closed = "took tiles that are not finite; make another without them"
            check_finite(tiles)
            self._closed = ""  # numbers so large that their sum overflows
        even = Even(corners.detach(), _greatest_weights(window, weights, corners), size)
        if window is None and not differentiable:
            self._weight.add_even(even)
            if self._unsigned is not None:
                self._unsigned.add_even(even)
        self._placed.append(even)

    @property
    def sum(self) -> Values:
        """The weighted sum of all tiles; the canvas's own memory."""
        self._check_alive()
        return self._values(self._sum)

    @property
    def weight(self) -> Float[Tensor, "*size"]:
        """What the sum is divided by: windows times tile weights, shifted as the tiles were."""
        return self._weight.total()

    @property
    def coverage(self) -> Float[Tensor, "*size"]:
        """How much of the tiles lies on each pixel: the weight, and 0 outside all tiles; nowhere negative."""
        weight = self.weight.detach()
        return weight if self._unsigned is None else torch.where(self.counts > 0, weight.clamp(min=0), 0)

    @property
    def covered(self) -> Bool[Tensor, "*size"]:
        """Pixels that have a value.

        All that tiles cover, except where the positive and negative parts of cubic and Fourier kernels cancel, which
        happens at the rim of steep windows; with Fourier kernels also except where tiles between pixels count for less
        than 3 % of the greatest weight in their window.
        """
        return self._trusted() > 0

    @property
    def counts(self) -> Int[Tensor, "*size"]:
        """Number of tiles that cover each pixel, whatever their weights."""
        return count_tiles(self.plan, self._placed, self.interpolation).to(self._sum.device)

    @property
    def lit_box(self) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """First object pixel and one past the last with a value, array order; None while there is none."""
        places = self.covered.nonzero()
        if not len(places):
            return None
        first, last = places.amin(dim=0).tolist(), (places.amax(dim=0) + 1).tolist()
        origin = self.plan.origin
        return tuple(o + i for o, i in zip(origin, first, strict=True)), tuple(
            o + i for o, i in zip(origin, last, strict=True)
        )

    def value(self, *, fill: Fill | None = None, consume: bool = False) -> Values:
        """The weighted mean where tiles lie, and the fill elsewhere.

        Args:
            fill: instead of the canvas's own.
            consume: write the mean over the sum, which saves the memory of one; the canvas then has no sum and takes no
                more tiles. Where the sum requires gradients nothing is overwritten or saved.

        Raises:
            UsageError: a complex fill for real values, or a canvas that was consumed.
        """
        self._check_alive()
        fill = self.fill if fill is None else fill
        check_fill(fill, self._dtype)
        parts = [fill.real, fill.imag] if self._complex else [fill.real]
        filling = self._sum.new_tensor(parts * self.channels)
        weight = self._trusted()
        if self._sum.requires_grad or weight.requires_grad:
            return self._values(mean(self._sum, weight, filling))
        out = self._sum if consume else torch.empty_like(self._sum)
        write_mean(out, self._sum, weight, filling, compiled=self._compiled)
        if consume:
            self._closed = "was consumed by value(consume=True); keep the values, or do not consume it"
        return self._values(out)

    def _trusted(self) -> Tensor:
        """The weight, and 0 or less where there is no value."""
        weight = self.weight
        if self._unsigned is None:
            return weight
        trusted = (self.counts > 0) & (weight > _LEAST_PART * self._unsigned.total())
        if self.interpolation == "fourier":
            best = sum_of_shifted(self.plan, self._placed, self._real, compiled=self._compiled)
            trusted &= weight > _LEAST_OF_BEST * best
        return torch.where(trusted, weight, 0)

    def _add_compiled(self, tiles: Tensor, taps: Taps, window: Tensor | None, weights: Tensor | None) -> None:
        """Add tiles and their windows by compiled code."""
        as_they_are = tiles.dtype.to_real() == self._real and tiles.movedim(1, -1).is_contiguous()
        tile_bytes = math.prod(tiles.shape[2:]) * self._sum.shape[-1] * self._real.itemsize
        step = len(tiles) if as_they_are else max(1, CHUNK // tile_bytes)
        for first in range(0, len(tiles), step):
            some = slice(first, first + step)
            each = None if weights is None else weights[some]
            numbers = self._numbers(tiles[some])
            add_tiles(self._sum, numbers, taps.some(some), origin=self.plan.origin, window=window, weights=each)
        if window is not None:
            self._weight.add_one_window(window, taps, weights)

    def _add_by_torch(
        self,
        tiles: Tensor,
        corners: Tensor,
        taps: Taps,
        window: Tensor | None,
        weights: Tensor | None,
        *,
        differentiable: bool,
    ) -> None:
        """Add tiles and, unless they are even ones to be summed later, their windows."""
        size = tuple(tiles.shape[2:])
        every = None if window is None else for_every_number(window, self._sum)
        tile_bytes = math.prod(size) * self._sum.shape[-1] * self._real.itemsize
        step = len(tiles) if differentiable else max(1, CHUNK // tile_bytes)
        for first in range(0, len(tiles), step):
            some = slice(first, first + step)
            numbers = self._numbers(tiles[some])
            factor = every
            if weights is not None:
                each = weights[some].to(self._sum).reshape(-1, *[1] * (numbers.ndim - 1))
                factor = each if factor is None else factor * each
            if factor is not None:
                numbers = numbers * factor
            self._add_numbers(numbers, taps.some(some))
            if window is not None or differentiable:
                self._add_windows(factor, corners[some], size)

    def _add_numbers(self, numbers: Tensor, taps: Taps) -> None:
        """Add tiles (n, *tile, numbers), already weighted."""
        start = taps.start - torch.tensor(self.plan.origin, device=taps.start.device)
        blocks = spread(numbers, taps)
        if torch.is_grad_enabled() and (blocks.requires_grad or self._sum.requires_grad):
            self._sum = self._sum + sum_blocks(blocks, start, self.plan.size)
        else:
            add_blocks(self._sum, blocks, start)

    def _add_windows(self, factor: Tensor | None, corners: Tensor, size: tuple[int, ...]) -> None:
        """Add the weights of tiles whose numbers were multiplied by `factor`."""
        one = self._sum.new_ones(1)
        windows = (one if factor is None else factor[..., 0].contiguous()).expand(len(corners), *size)
        self._weight.add_windows(windows, corners)
        if self._unsigned is not None:
            self._unsigned.add_windows(windows.detach(), corners.detach())

    def _numbers(self, tiles: Tensor) -> Tensor:
        """Tiles (n, c, *tile) as reals (n, *tile, numbers) of the canvas's type."""
        return to_numbers(channels_last(tiles.to(self._real.to_complex() if self._complex else self._real)))

    def _values(self, numbers: Tensor) -> Values:
        """Reals (*size, numbers) as (c, *size)."""
        return to_values(numbers, is_complex=self._complex).movedim(-1, 0)

    def _check_alive(self) -> None:
        if self._closed:
            raise UsageError(f"this canvas {self._closed}")


def _greatest_weights(window: Tensor | None, weights: Tensor | None, corners: Tensor) -> Tensor | None:
    """What each tile counts at most; None for 1."""
    greatest = None if weights is None else weights.detach().to(corners)
    if window is None:
        return greatest
    return (corners.new_ones(len(corners)) if greatest is None else greatest) * window.detach().max().to(corners)
