"""What an index of volumes is made with: how values are drawn, and what is counted of them."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from patchatlas.io.volumes.hounsfield import Units
from patchatlas.io.volumes.orientation import affine_of_axes
from patchatlas.io.volumes.volume import COARSEST_MM, FINEST_MM, Declared
from patchatlas.pretrain.cache import BODY, table_key
from patchatlas.pretrain.foreground import BODY_HU, DETACH_MM

Mm = Annotated[float, Field(ge=FINEST_MM, le=COARSEST_MM, allow_inf_nan=False)]
Side = Annotated[int, Field(ge=1, le=1024)]


class Drawing(BaseModel):
    """What decides the stored values; another choice means reading the sources again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spacing_zyx: tuple[Mm, Mm, Mm] | None = None
    """Resample to this many mm between voxels; as they are if not given."""
    assume_spacing_zyx: tuple[Mm, Mm, Mm] | None = None
    """mm between voxels of arrays that do not tell."""
    assume_axes: str = "SAR"
    """Where the axes of such arrays grow to."""
    units: Units = "hounsfield"
    """`any` takes other values than Hounsfield units as they are."""

    @field_validator("assume_axes")
    @classmethod
    def _axes(cls, axes: str) -> str:
        affine_of_axes(axes, (1.0, 1.0, 1.0))
        return axes

    def declared(self) -> Declared:
        """The same for the readers."""
        return Declared(spacing_zyx=self.assume_spacing_zyx, axes=self.assume_axes, units=self.units)


class Counting(BaseModel):
    """What decides the tables; another choice means counting again, from the cache."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    cell_zyx: tuple[Side, Side, Side] = (8, 8, 8)
    """Voxels in a cell; positions of crops and patches are whole cells, so the patch or a divisor of it."""
    thresholds: tuple[float, ...] = (BODY_HU,)
    """One table of the voxels above each of these HU."""
    body: bool = True
    """Also a table of the body mask, or of the mask that is given in its place."""
    body_threshold: float = BODY_HU
    """The body is above it, HU."""
    detach_mm: Annotated[float, Field(ge=0)] = DETACH_MM
    """Bridges between body and table up to so thick are cut."""
    mask: str | None = None
    """What `body` counts in place of the body: `files`, or `function NAME`. `index_volumes` sets it by what it is
    given."""

    @model_validator(mode="after")
    def _something(self) -> "Counting":
        if not self.body and not self.thresholds:
            raise ValueError("nothing to count; give a threshold or the body mask")
        if self.mask is not None and (not self.body or (self.body_threshold, self.detach_mm) != (BODY_HU, DETACH_MM)):
            raise ValueError(
                "a mask that is given takes the place of the body mask: leave body, body_threshold and detach_mm as "
                "they are"
            )
        return self

    def keys(self) -> dict[str, float | None]:
        """The names of the tables, and the threshold of each; `None` is the body mask."""
        named: dict[str, float | None] = {BODY: None} if self.body else {}
        return {**named, **{table_key(threshold): threshold for threshold in self.thresholds}}


class IndexSettings(BaseModel):
    """All of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    drawing: Drawing = Drawing()
    counting: Counting = Counting()
