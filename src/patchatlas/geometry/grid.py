"""The patches of a frame: which cell sees which part of the source.

Cell coordinates are continuous like pixels: cell (r, c) has its centre at (c + 0.5, r + 0.5) and, where patches touch,
covers [c, c+1) x [r, r+1). Points in cells run (x, y[, z]) as everywhere; indices run ([z,] row, column).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from patchatlas.errors import ShapeError
from patchatlas.geometry.frame import Frame, Size
from patchatlas.geometry.rounding import ceil_to_multiple, round_to_multiple


@dataclass(frozen=True)
class PatchGrid:
    """Rows x columns (or z x rows x columns) of patches on a frame.

    Attributes:
        frame: the encoder's input rectangle.
        patch: patch size in frame pixels, one number an axis.
        stride: frame pixels between neighbouring patches.
        offset: frame pixel where the first patch begins.
        shape: number of patches along each axis.
    """

    frame: Frame
    patch: Size
    stride: Size
    offset: Size
    shape: Size

    def __post_init__(self) -> None:
        lengths = {len(self.patch), len(self.stride), len(self.offset), len(self.shape), self.frame.ndim}
        if len(lengths) != 1:
            raise ShapeError(f"a grid needs one number an axis: patch {self.patch}, frame {self.frame.size}")
        for axis, n in enumerate(self.frame.size):
            end = self.offset[axis] + (self.shape[axis] - 1) * self.stride[axis] + self.patch[axis]
            if self.shape[axis] < 1 or self.offset[axis] < 0 or end > n:
                raise ShapeError(
                    f"{self.shape} patches of {self.patch} (stride {self.stride}, offset {self.offset}) do not fit "
                    f"a frame of {self.frame.size}"
                )

    @classmethod
    def on(cls, frame: Frame, patch: Sequence[int]) -> "PatchGrid":
        """The patches that tile a frame without rest.

        Raises:
            ShapeError: a side of the frame is not a multiple of the patch.
        """
        patch = tuple(patch)
        if len(patch) != frame.ndim:
            raise ShapeError(f"a {frame.ndim}-D frame of {frame.size} cannot have patches of {patch}")
        for n, p in zip(frame.size, patch, strict=True):
            if n % p:
                near = round_to_multiple(n, p)
                raise ShapeError(
                    f"side {n} of the input {frame.size} is not a multiple of the patch {p}; "
                    f"resize it to {near} or pad it to {ceil_to_multiple(n, p)}"
                )
        shape = tuple(n // p for n, p in zip(frame.size, patch, strict=True))
        return PatchGrid(frame, patch, patch, (0,) * frame.ndim, shape)

    @property
    def count(self) -> int:
        """Number of patches."""
        return math.prod(self.shape)

    def centres(self) -> Float64[Tensor, "n ndim"]:
        """Patch centres as source points, row-major."""
        axes = [torch.arange(n, dtype=torch.float64) + 0.5 for n in self.shape]
        mesh = torch.meshgrid(*axes, indexing="ij")
        return self.from_cells(torch.stack([m.reshape(-1) for m in reversed(mesh)], dim=1))

    def cells_of(self, points_source: Float[Tensor, "p ndim"]) -> Float64[Tensor, "p ndim"]:
        """Source points in cell coordinates; may lie outside 0..shape."""
        at = self.frame.from_source(points_source)
        patch, stride, offset = self._xy(self.patch), self._xy(self.stride), self._xy(self.offset)
        return (at - offset - patch / 2) / stride + 0.5

    def from_cells(self, points_cells: Float[Tensor, "p ndim"]) -> Float64[Tensor, "p ndim"]:
        """Cell coordinates as source points."""
        patch, stride, offset = self._xy(self.patch), self._xy(self.stride), self._xy(self.offset)
        return self.frame.to_source(offset + (points_cells.to(torch.float64) - 0.5) * stride + patch / 2)

    def boxes(self) -> Float64[Tensor, "n corners"]:
        """What each patch sees: source boxes (low corner, high corner, x first), row-major; padding included."""
        axes = [torch.arange(n, dtype=torch.float64) for n in self.shape]
        index = torch.stack([m.reshape(-1) for m in reversed(torch.meshgrid(*axes, indexing="ij"))], dim=1)
        low = self._xy(self.offset) + index * self._xy(self.stride)
        return self.frame.boxes_to_source(torch.cat([low, low + self._xy(self.patch)], dim=1))

    def real_part(self) -> Float64[Tensor, "*shape"]:
        """For each patch the part of it that shows source rather than padding, 0..1."""
        part = torch.ones(self.shape, dtype=torch.float64)
        for axis, (low, high) in enumerate(self.frame.content()):
            start = self.offset[axis] + torch.arange(self.shape[axis], dtype=torch.float64) * self.stride[axis]
            seen = (start + self.patch[axis]).clamp(max=float(high)) - start.clamp(min=float(low))
            along = [1] * len(self.shape)
            along[axis] = -1
            part = part * (seen.clamp(min=0) / self.patch[axis]).reshape(along)
        return part

    def to_json(self) -> dict[str, Any]:
        """Plain lists, exact."""
        return {
            "frame": self.frame.to_json(),
            "patch": list(self.patch),
            "stride": list(self.stride),
            "offset": list(self.offset),
            "shape": list(self.shape),
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "PatchGrid":
        """The inverse of `to_json`."""
        sizes = (tuple(stored[name]) for name in ("patch", "stride", "offset", "shape"))
        return PatchGrid(Frame.from_json(stored["frame"]), *sizes)

    @staticmethod
    def _xy(size: Size) -> Float64[Tensor, " ndim"]:
        return torch.tensor(size[::-1], dtype=torch.float64)
