"""A reference picture: encoded, with the places of the landmarks that it shows."""

from collections import Counter
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from patchatlas.errors import LandmarkError, ShapeError
from patchatlas.features import FeatureMap


@dataclass(frozen=True, eq=False)
class Reference:
    """One encoded picture and its marks.

    Attributes:
        name: of the picture; a label.
        map: its features.
        uuids: whose marks, each once.
        points_source: where they are, in pixels of the picture.
        mask: patches that show what the marks are on; a place in the target never matches back to another. All if none
            is given.

    Raises:
        ShapeError: not one point a uuid, or a mask of another shape than the map's grid.
        LandmarkError: a uuid twice.
    """

    name: str
    map: FeatureMap
    uuids: tuple[str, ...]
    points_source: Float[Tensor, "p 2"]
    mask: Bool[Tensor, "rows cols"] | None = None

    def __post_init__(self) -> None:
        if len(self.uuids) != len(self.points_source):
            raise ShapeError(f"{self.name}: {len(self.points_source)} points need as many uuids, has {len(self.uuids)}")
        twice = [uuid for uuid, count in Counter(self.uuids).items() if count > 1]
        if twice:
            raise LandmarkError(f"{self.name} has {', '.join(twice)} more than once; keep one mark of each")
        if self.mask is not None and self.mask.shape != self.map.grid.shape:
            raise ShapeError(
                f"{self.name}: a mask of {tuple(self.mask.shape)} does not fit {self.map.grid.shape} patches"
            )
