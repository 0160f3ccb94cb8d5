"""How much of a tile pixel each object pixel around it gets: nearest, linear, cubic and Fourier on one anchor.

A tile at p puts pixel j at the object coordinate p + j, and object pixel u gets K(u - p - j) of it. K is 1 at 0 and 0
at every other whole number, so whole positions copy. Along each axis this leaves a whole start and a few weights: tile
pixel j goes to start + j + t with weight t.

Axes: n tiles, ndim axes in array order, t taps.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchatlas.errors import UsageError

Interpolation = Literal["nearest", "linear", "cubic", "fourier"]

# Half the taps of the Fourier kernel and the shape of its Kaiser taper. Together they move frequencies up to 0.35
# cycles a pixel (0.7 of Nyquist) true to 1e-7, as measured; Kaiser 1974 relates length, taper and error.
FOURIER_REACH = 16
_KAISER_BETA = 15.0


@dataclass(frozen=True)
class Taps:
    """Where tiles begin and how each pixel is shared out.

    Args:
        start: object pixel that gets the first share of tile pixel 0, array order.
        weights: for each axis (n, t), or None where every position is whole and pixels are copied.
    """

    start: Int[Tensor, "n ndim"]
    weights: tuple[Tensor | None, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Taps along each axis."""
        return tuple(1 if w is None else w.shape[1] for w in self.weights)

    def absolute(self) -> "Taps":
        """The same kernel without its signs, summing to 1 again."""
        sizes = [None if w is None else w.abs() for w in self.weights]
        return Taps(self.start, tuple(None if w is None else w / w.sum(dim=1, keepdim=True) for w in sizes))

    def some(self, tiles: slice) -> "Taps":
        """Those of some tiles."""
        return Taps(self.start[tiles], tuple(None if w is None else w[tiles] for w in self.weights))


def find_taps(corners: Float[Tensor, "n ndim"], interpolation: Interpolation, dtype: torch.dtype) -> Taps:
    """Split positions into whole pixels and weights.

    Floor and fraction are taken in float64; only the weights are then cast.

    Args:
        corners: float64, array order, see `in_array_order`. Weights are differentiable in them.
        interpolation: which kernel.
        dtype: of the weights.

    Raises:
        UsageError: there is no such kernel.
    """
    check_interpolation(interpolation)
    if interpolation == "nearest":
        return Taps(torch.floor(corners.detach() + 0.5).long(), (None,) * corners.shape[1])
    whole = torch.floor(corners.detach())
    start = whole.long()
    weights: list[Tensor | None] = []
    for axis in range(corners.shape[1]):
        fraction = corners[:, axis] - whole[:, axis]
        if not corners.requires_grad and not bool(fraction.any()):
            weights.append(None)
            continue
        share = _share(fraction, interpolation)
        start[:, axis] -= share.shape[1] // 2 - 1
        weights.append(share.to(dtype))
    return Taps(start, tuple(weights))


def _share(fraction: Tensor, interpolation: Interpolation) -> Tensor:
    """Weights (n, t) of the object pixels 1 - t/2 ... t/2 around the pixel below, for fractions in [0, 1)."""
    f = fraction[:, None]
    if interpolation == "linear":
        return torch.cat([1 - f, f], dim=1)
    if interpolation == "cubic":
        # Keys 1981, eq. 15 with a = -1/2: the one cubic convolution that is exact on parabolas. The four pieces, in f.
        return torch.cat(
            [
                -0.5 * f * (1 - f) ** 2,
                1 + f**2 * (1.5 * f - 2.5),
                f * (0.5 + f * (2 - 1.5 * f)),
                -0.5 * f**2 * (1 - f),
            ],
            dim=1,
        )
    return _fourier(f)


def _fourier(f: Tensor) -> Tensor:
    """The phase ramp exp(-2 pi i v f) as weights: sinc (Shannon 1949), tapered to a finite reach, summing to 1.

    The taper is Kaiser's window, so that nothing wraps round and a constant stays constant.
    """
    reach = FOURIER_REACH
    distance = torch.arange(1 - reach, reach + 1, dtype=f.dtype, device=f.device) - f
    taper = torch.i0(_KAISER_BETA * (1 - (distance / reach) ** 2).clamp(min=1e-300).sqrt()) / torch.i0(
        f.new_tensor(_KAISER_BETA)
    )
    weights = torch.sinc(distance) * taper
    return weights / weights.sum(dim=1, keepdim=True)


def check_interpolation(interpolation: str) -> None:
    """Refuse what is none, wherever no type checker did.

    Raises:
        UsageError: there is no such kernel.
    """
    if interpolation not in get_args(Interpolation):
        raise UsageError(f"interpolation {interpolation!r} is not nearest, linear, cubic or fourier")


def reach(interpolation: Interpolation) -> int:
    """Pixels that a kernel reaches beyond what its tile covers (see `plan_canvas`)."""
    return {"nearest": 0, "linear": 0, "cubic": 1, "fourier": FOURIER_REACH - 1}[interpolation]
