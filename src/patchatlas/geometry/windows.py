"""Overlapping windows that cover a picture, volume or grid of any size."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from patchatlas.errors import ShapeError
from patchatlas.geometry.frame import Size
from patchatlas.geometry.rounding import round_half_up


@dataclass(frozen=True)
class Window:
    """A box of whole pixels or cells: `start` and `size` along each axis, array order."""

    start: Size
    size: Size

    @property
    def slices(self) -> tuple[slice, ...]:
        """Index of the window in the trailing axes of an array: `array[..., *window.slices]`."""
        return tuple(slice(b, b + n) for b, n in zip(self.start, self.size, strict=True))


def cover_with_windows(size: Sequence[int], *, window: Sequence[int], overlap: Sequence[int]) -> tuple[Window, ...]:
    """The fewest equal windows that cover `size` and share at least `overlap` with each neighbour, evenly spread.

    Where `size` is below `window` the window shrinks to it, so no window reaches outside.

    Args:
        size: what to cover, in pixels or cells.
        window: largest window along each axis.
        overlap: least shared part along each axis, below `window`.

    Returns:
        Windows in row-major order; the first begins at 0, the last ends at `size`.

    Raises:
        ShapeError: a window is empty, or an overlap is negative or not below its window.
    """
    starts, sizes = [], []
    for n, w, o in zip(size, window, overlap, strict=True):
        if w < 1 or n < 1 or not 0 <= o < w:
            raise ShapeError(
                f"cannot cover {n} with windows of {w} that overlap by {o}; 0 <= overlap < window is needed"
            )
        w = min(w, n)
        o = min(o, w - 1)
        count = -(-(n - o) // (w - o))
        spread = [round_half_up(Fraction(i * (n - w), count - 1)) for i in range(count)] if count > 1 else [0]
        starts.append(spread)
        sizes.append(w)
    return tuple(Window(start, tuple(sizes)) for start in itertools.product(*starts))
