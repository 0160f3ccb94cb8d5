"""An exact map between the points of two planes that keeps straight lines straight: turned, slanted, stretched views.

What a `Frame` says of upright rectangles this says of any quadrilateral, and of volumes under any affine map. Points
run (x, y[, z]); the plane is continuous, as everywhere: the first pixel begins at 0 and has its centre at 0.5.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from patchatlas.errors import ShapeError
from patchatlas.geometry.frame import Frame

Matrix = Float64[np.ndarray, "n n"]
"""Homogeneous: (x, y, 1) times it is (X w, Y w, w)."""


@dataclass(frozen=True)
class Projective:
    """A projective map from the points of a crop to those of its source.

    Points (x, y) go to (X / w, Y / w) with (X, Y, w) = `rows` (x, y, 1). Multiplying all entries by one number changes
    nothing but the sign of w, which says what lies in front: only points with w > 0 have an image.

    Attributes:
        rows: of the matrix, float64; three of three for pictures, four of four for volumes.
    """

    rows: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        n = len(self.rows)
        if n not in (3, 4) or any(len(row) != n for row in self.rows):
            raise ShapeError(f"a projective map has 3 rows of 3 or 4 of 4, given {[len(row) for row in self.rows]}")
        if not np.isfinite(self.rows).all() or not np.linalg.det(np.array(self.rows)):
            raise ShapeError(f"a projective map must be invertible, given {self.rows}")

    # -- making maps --------------------------------------------------------------------------------------------------

    @classmethod
    def of(cls, matrix: Matrix) -> "Projective":
        """The map with this matrix."""
        return Projective(tuple(tuple(float(entry) for entry in row) for row in matrix))

    @classmethod
    def of_frame(cls, frame: Frame) -> "Projective":
        """What a frame says of its points and those of its source."""
        matrix = np.zeros((frame.ndim + 1, frame.ndim + 1))
        for k, axis in enumerate(frame.axes):  # points run x first, axes run x last
            at = frame.ndim - 1 - axis
            matrix[at, frame.ndim - 1 - k] = float(frame.scale[k])
            matrix[at, frame.ndim] = float(frame.shift[k])
        matrix[-1, -1] = 1
        return cls.of(matrix)

    @classmethod
    def onto(cls, size_hw: Sequence[int], corners: Float64[np.ndarray, "4 2"]) -> "Projective":
        """The map that lays a rectangle of pixels onto a quadrilateral.

        Args:
            size_hw: rows and columns of the rectangle.
            corners: where (0, 0), (w, 0), (w, h) and (0, h) go, as (x, y); convex.

        Raises:
            ShapeError: three of the corners lie on a line.
        """
        h, w = size_hw
        # Eight equations for eight numbers, the ninth being 1: X (g x + h y + 1) = a x + b y + c, and so for Y
        # (Hartley and Zisserman, Multiple View Geometry, 2nd ed., section 4.1).
        given = np.array([(0, 0), (w, 0), (w, h), (0, h)], dtype=np.float64)
        left, right = np.zeros((8, 8)), corners.reshape(8)
        left[0::2, 0:2] = left[1::2, 3:5] = given
        left[0::2, 2] = left[1::2, 5] = 1
        left[:, 6:] = -right[:, None] * given.repeat(2, axis=0)
        try:
            entries = np.linalg.solve(left, right)
        except np.linalg.LinAlgError as error:
            raise ShapeError(f"corners {corners.tolist()} are no quadrilateral: three lie on a line") from error
        return cls.of(np.append(entries, 1.0).reshape(3, 3))

    def inverse(self) -> "Projective":
        """From the source back to the crop; w > 0 for all that the crop shows."""
        return Projective.of(np.linalg.inv(self.matrix))

    def then(self, outer: "Projective") -> "Projective":
        """This map and after it `outer`, from the source of this one to a source of its own."""
        if outer.ndim != self.ndim:
            raise ShapeError(f"cannot compose a map of {self.ndim} axes with one of {outer.ndim}")
        return Projective.of(outer.matrix @ self.matrix)

    # -- mapping ------------------------------------------------------------------------------------------------------

    @property
    def ndim(self) -> int:
        """2 for pictures, 3 for volumes."""
        return len(self.rows) - 1

    @property
    def matrix(self) -> Matrix:
        """The rows as an array."""
        return np.array(self.rows, dtype=np.float64)

    def to_source(self, points: Float[Tensor, "p ndim"]) -> Float64[Tensor, "p ndim"]:
        """Points of the crop as points of the source; NaN for those on the horizon or behind it."""
        images, w = self._images(points)
        return images / torch.where(w > 0, w, torch.nan)

    def from_source(self, points: Float[Tensor, "p ndim"]) -> Float64[Tensor, "p ndim"]:
        """Points of the source as points of the crop; NaN for those that no crop of this plane can show."""
        return self.inverse().to_source(points)

    def scale(self, points: Float[Tensor, "p ndim"]) -> Float64[Tensor, " p"]:
        """Source area (volume) that a unit of the crop's covers around each point; NaN as in `to_source`.

        The determinant of the map's derivative: that of the matrix over w to the power of its rows.
        """
        _, w = self._images(points)
        det = abs(float(np.linalg.det(self.matrix)))
        return det / torch.where(w > 0, w, torch.nan)[:, 0] ** len(self.rows)

    # -- storing ------------------------------------------------------------------------------------------------------

    def to_json(self) -> list[list[float]]:
        """Plain lists; JSON keeps every bit of a Python float."""
        return [list(row) for row in self.rows]

    @classmethod
    def from_json(cls, stored: Sequence[Sequence[Any]]) -> "Projective":
        """The inverse of `to_json`."""
        return Projective(tuple(tuple(float(entry) for entry in row) for row in stored))

    def _images(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Homogeneous images, (p, ndim) and (p, 1)."""
        if points.shape[1] != self.ndim:
            raise ShapeError(f"points of a map of {self.ndim} axes have {self.ndim} numbers, given {points.shape[1]}")
        matrix = torch.from_numpy(self.matrix).to(points.device)
        images = points.to(torch.float64) @ matrix[:, :-1].T + matrix[:, -1]
        return images[:, :-1], images[:, -1:]
