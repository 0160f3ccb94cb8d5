"""A pixel rectangle and the exact map that ties it to the picture or volume it was made from.

Sizes, indices and per-axis facts run in array order, (h, w) or (z, h, w); points run (x, y) or (x, y, z). The plane is
continuous: pixel (r, c) covers [c, c+1) x [r, r+1). So a resize multiplies, a crop subtracts, a pad adds, and no half
pixel appears anywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.errors import ShapeError

Size = tuple[int, ...]

# EXIF 2.32, tag 0x0112: how the stored raster becomes upright, as "swap the axes first?", then the flipped axes.
_EXIF_STEPS: dict[int, tuple[bool, tuple[int, ...]]] = {
    1: (False, ()),
    2: (False, (1,)),
    3: (False, (0, 1)),
    4: (False, (0,)),
    5: (True, ()),
    6: (True, (1,)),
    7: (True, (0, 1)),
    8: (True, (0,)),
}


@dataclass(frozen=True)
class Frame:
    """A rectangle of pixels, and for each of its axes the line of the source that it runs along.

    Along axis k a coordinate f of this frame is the coordinate `scale[k] * f + shift[k]` of source axis `axes[k]`.
    The numbers are fractions, so composition and inverse are exact.

    Attributes:
        size: pixels of this rectangle along each axis.
        source_size: pixels of the source along each axis.
        axes: source axis that each frame axis runs along.
        scale: source pixels per frame pixel, negative where the axis is flipped.
        shift: source coordinate of the frame's zero corner.
    """

    size: Size
    source_size: Size
    axes: tuple[int, ...]
    scale: tuple[Fraction, ...]
    shift: tuple[Fraction, ...]

    def __post_init__(self) -> None:
        if not len(self.size) == len(self.source_size) == len(self.axes) == len(self.scale) == len(self.shift):
            raise ShapeError(f"a frame needs one number an axis, given size {self.size}, source {self.source_size}")
        if sorted(self.axes) != list(range(len(self.size))):
            raise ShapeError(f"axes {self.axes} are not an order of {list(range(len(self.size)))}")
        for name, size in (("size", self.size), ("source_size", self.source_size)):
            if min(size) < 1:
                raise ShapeError(f"{name} {size} has an empty side; every side needs at least one pixel")
        if 0 in self.scale:
            raise ShapeError(f"scale {self.scale} has a zero; a frame must be invertible")

    # -- making frames ------------------------------------------------------------------------------------------------

    @classmethod
    def whole(cls, size: Sequence[int]) -> "Frame":
        """The source itself."""
        n = len(size)
        return Frame(tuple(size), tuple(size), tuple(range(n)), (Fraction(1),) * n, (Fraction(0),) * n)

    @classmethod
    def from_exif(cls, stored_hw: Sequence[int], orientation: int) -> "Frame":
        """The upright picture of a stored raster.

        Args:
            stored_hw: rows and columns as they lie in the file.
            orientation: EXIF orientation, 1 to 8.

        Raises:
            ShapeError: the orientation is not 1 to 8.
        """
        if orientation not in _EXIF_STEPS:
            raise ShapeError(f"EXIF orientation {orientation} does not exist; 1 to 8 do")
        swap, flips = _EXIF_STEPS[orientation]
        frame = Frame.whole(stored_hw)
        if swap:
            frame = frame.transpose((1, 0))
        for axis in flips:
            frame = frame.flip(axis)
        return frame

    def resize(self, size: Sequence[int]) -> "Frame":
        """The same rectangle with other pixels; each axis has its own scale."""
        scale = tuple(s * Fraction(old, new) for s, old, new in zip(self.scale, self.size, size, strict=True))
        return replace(self, size=tuple(size), scale=scale)

    def crop(self, start: Sequence[int | Fraction], size: Sequence[int]) -> "Frame":
        """The part that begins at `start` (frame pixels, may be a fraction or negative) and has `size` pixels."""
        shift = tuple(t + s * Fraction(b) for t, s, b in zip(self.shift, self.scale, start, strict=True))
        return replace(self, size=tuple(size), shift=shift)

    def pad(self, before: Sequence[int], after: Sequence[int]) -> "Frame":
        """The rectangle with `before` and `after` more pixels along each axis."""
        grown = tuple(n + b + a for n, b, a in zip(self.size, before, after, strict=True))
        return self.crop([-b for b in before], grown)

    def flip(self, axis: int) -> "Frame":
        """The mirror image along `axis` (array order: -1 is left-right)."""
        axis = range(len(self.size))[axis]
        scale, shift = list(self.scale), list(self.shift)
        shift[axis] += scale[axis] * self.size[axis]
        scale[axis] = -scale[axis]
        return replace(self, scale=tuple(scale), shift=tuple(shift))

    def transpose(self, order: Sequence[int]) -> "Frame":
        """The rectangle with its axes in another order: new axis k is old axis `order[k]`."""
        return replace(
            self,
            size=tuple(self.size[k] for k in order),
            axes=tuple(self.axes[k] for k in order),
            scale=tuple(self.scale[k] for k in order),
            shift=tuple(self.shift[k] for k in order),
        )

    def then(self, outer: "Frame") -> "Frame":
        """This frame seen from the source of `outer`, where `outer` is the picture that this frame was made from.

        Raises:
            ShapeError: `outer` has not the size that this frame was made from.
        """
        if outer.size != self.source_size:
            raise ShapeError(f"cannot compose: this frame was made from {self.source_size}, the other has {outer.size}")
        return replace(
            self,
            source_size=outer.source_size,
            axes=tuple(outer.axes[a] for a in self.axes),
            scale=tuple(outer.scale[a] * s for a, s in zip(self.axes, self.scale, strict=True)),
            shift=tuple(outer.scale[a] * t + outer.shift[a] for a, t in zip(self.axes, self.shift, strict=True)),
        )

    def inverse(self) -> "Frame":
        """The source as a rectangle of this frame's plane."""
        back = [self.axes.index(a) for a in range(len(self.axes))]
        return replace(
            self,
            size=self.source_size,
            source_size=self.size,
            axes=tuple(back),
            scale=tuple(1 / self.scale[k] for k in back),
            shift=tuple(-self.shift[k] / self.scale[k] for k in back),
        )

    # -- mapping ------------------------------------------------------------------------------------------------------

    @property
    def ndim(self) -> int:
        """2 for pictures, 3 for volumes."""
        return len(self.size)

    def to_source(self, points: Float[Tensor, "p ndim"]) -> Float[Tensor, "p ndim"]:
        """Points of this frame as points of the source, float64."""
        points = self._checked(points)
        out = torch.empty_like(points)
        for k in range(self.ndim):
            # Points run x first, axes run x last.
            out[:, -1 - self.axes[k]] = float(self.scale[k]) * points[:, -1 - k] + float(self.shift[k])
        return out

    def from_source(self, points: Float[Tensor, "p ndim"]) -> Float[Tensor, "p ndim"]:
        """Points of the source as points of this frame, float64."""
        return self.inverse().to_source(points)

    def boxes_to_source(self, boxes: Float[Tensor, "p corners"]) -> Float[Tensor, "p corners"]:
        """Boxes (x0, y0, x1, y1) or (x0, y0, z0, x1, y1, z1) of this frame as ordered boxes of the source, float64."""
        if boxes.shape[1] != 2 * self.ndim:
            raise ShapeError(f"a box of a {self.ndim}-D frame has {2 * self.ndim} numbers, given {boxes.shape[1]}")
        one, other = self.to_source(boxes[:, : self.ndim]), self.to_source(boxes[:, self.ndim :])
        return torch.cat([torch.minimum(one, other), torch.maximum(one, other)], dim=1)

    def boxes_from_source(self, boxes: Float[Tensor, "p corners"]) -> Float[Tensor, "p corners"]:
        """Boxes of the source as ordered boxes of this frame, float64."""
        return self.inverse().boxes_to_source(boxes)

    def content(self) -> tuple[tuple[Fraction, Fraction], ...]:
        """For each axis the half-open interval of this frame that shows source, not padding; empty as (0, 0)."""
        spans = []
        for k, n in enumerate(self.size):
            ends = sorted(
                (-self.shift[k] / self.scale[k], (self.source_size[self.axes[k]] - self.shift[k]) / self.scale[k])
            )
            low, high = max(ends[0], Fraction(0)), min(ends[1], Fraction(n))
            spans.append((low, high) if low < high else (Fraction(0), Fraction(0)))
        return tuple(spans)

    # -- storing ------------------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Plain lists; fractions as text such as `3/4`, so nothing is rounded."""
        return {
            "size": list(self.size),
            "source_size": list(self.source_size),
            "axes": list(self.axes),
            "scale": [str(s) for s in self.scale],
            "shift": [str(t) for t in self.shift],
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Frame":
        """The inverse of `to_json`."""
        return Frame(
            tuple(stored["size"]),
            tuple(stored["source_size"]),
            tuple(stored["axes"]),
            tuple(Fraction(s) for s in stored["scale"]),
            tuple(Fraction(t) for t in stored["shift"]),
        )

    def _checked(self, points: Tensor) -> Tensor:
        if points.shape[1] != self.ndim:
            raise ShapeError(f"points of a {self.ndim}-D frame have {self.ndim} coordinates, given {points.shape[1]}")
        return points.to(torch.float64)
