"""What a crop is: its pixels, its foreground, and a record that says where it lay and makes it again.

Axes: g global crops, l local crops, b samples, c channels, then the crop (z, y, x) or (y, x); n, m patch tokens of a
global and of a local crop, row-major. Pixels run 0..1, as `dense.to_pixels` gives them: the network's own mean and
standard deviation are not yet applied.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from patchatlas.errors import ShapeError
from patchatlas.geometry.frame import Frame, Size
from patchatlas.geometry.projective import Projective
from patchatlas.pretrain.crops.config import Foreground

ANYWHERE = "anywhere"
"""Drawn from all positions, as `foreground_crop_prob` says."""
OVERLAP_RELAXED = "overlap_relaxed"
"""No position met the ratio and the overlap with the first global crop: the overlap was given up."""
DEMAND_RELAXED = "demand_relaxed"
"""No position met the ratio and all demands: the demands were given up."""
BELOW_MIN = "below_min"
"""No position met the ratio: this is one of those with most foreground."""
PADDED = "padded"
"""The volume is smaller than the crop: the rest is air, in no loss."""
SHRUNK = "shrunk"
"""The photograph, or the global crop that it is a part of, is smaller than what the crop was to show: it shows as much
as fits."""

FLAGS = (ANYWHERE, OVERLAP_RELAXED, DEMAND_RELAXED, BELOW_MIN, PADDED, SHRUNK)
"""All flags of a record."""


@dataclass(frozen=True, kw_only=True)
class CropRecord:
    """Where one crop came from; what the viewer, the losses and the tests all go by.

    Attributes:
        volume: name of the volume or photograph.
        start_zyx: first source voxel along each axis (in photographs (y, x), rounded down).
        size_zyx: source voxels along each axis, padding included.
        spacing: source millimetres a voxel along each axis; empty for photographs.
        fg_ratio: share of foreground among those of its voxels that lie in the volume, exact.
        n_valid: positions that it was drawn from.
        flags: of `FLAGS`, what did not go as asked.
        parent: number of the global crop that it is a part of, with a `warp` lies around a place in; -1 for none.
        flips: axes that were flipped, array order.
        frame: from the pixels of the crop to those of the volume, exact, flips included; with a `warp` that of the
            box around it, without flips.
        threshold: what counts as foreground in `fg_ratio`.
        demands: further thresholds in HU that it meets, each with its least ratio.
        seed: of the generator of its augmentation; with the same settings `Views.replay` needs nothing else.
        varied: short hash of the settings that its values came from, which `replay` compares.
        warp: from the points of the crop to those of the photograph where it is no box, flips included.
    """

    volume: str
    start_zyx: Size
    size_zyx: Size
    spacing: tuple[float, ...]
    fg_ratio: float
    n_valid: int
    flags: tuple[str, ...]
    parent: int
    flips: tuple[int, ...]
    frame: Frame
    threshold: Foreground
    demands: tuple[tuple[float, float], ...] = ()
    seed: tuple[int, ...] = ()
    varied: str = ""
    warp: Projective | None = None

    @property
    def map(self) -> Projective:
        """From the points of the crop to those of the volume or photograph, whatever its shape."""
        return Projective.of_frame(self.frame) if self.warp is None else self.warp

    @property
    def flag(self) -> str:
        """All flags in one word, empty if it went as asked."""
        return "+".join(self.flags)

    @property
    def voxel_mm(self) -> tuple[float, ...]:
        """Millimetres a voxel of the crop as the network sees it; empty for photographs."""
        return tuple(abs(float(s)) * mm for s, mm in zip(self.frame.scale, self.spacing, strict=False))

    def overlap(self, other: "CropRecord") -> float:
        """Share of the smaller of two crops, in source voxels, that the other one shows too; of the boxes around them
        where they are no boxes."""
        shared = 1
        for a, n, b, m in zip(self.start_zyx, self.size_zyx, other.start_zyx, other.size_zyx, strict=True):
            shared *= max(0, min(a + n, b + m) - max(a, b))
        return shared / min(math.prod(self.size_zyx), math.prod(other.size_zyx))

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers."""
        stored = {field.name: getattr(self, field.name) for field in fields(self)}
        return stored | {"frame": self.frame.to_json(), "warp": None if self.warp is None else self.warp.to_json()}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "CropRecord":
        """The inverse of `to_json`, also after a trip through JSON."""
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()
        }
        plain["frame"] = Frame.from_json(stored["frame"])
        plain["warp"] = None if stored.get("warp") is None else Projective.from_json(stored["warp"])
        plain["demands"] = tuple((float(threshold), float(ratio)) for threshold, ratio in stored["demands"])
        return CropRecord(**plain)


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample:
    """All crops of one volume or photograph.

    Attributes:
        globals: pixels of the large crops.
        locals: pixels of the small ones.
        global_foreground: share of foreground in each patch, of those of its voxels that lie in the volume.
        local_foreground: the same of the small crops.
        global_pad: patches that lie outside the volume by more than half.
        local_pad: the same of the small crops.
        records: of the large crops, then of the small ones.
    """

    globals: Float[Tensor, "g c *gsize"]
    locals: Float[Tensor, "l c *lsize"]
    global_foreground: Float[Tensor, "g n"]
    local_foreground: Float[Tensor, "l m"]
    global_pad: Bool[Tensor, "g n"]
    local_pad: Bool[Tensor, "l m"]
    records: tuple[CropRecord, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """Samples side by side.

    Attributes:
        globals: pixels of the large crops.
        locals: pixels of the small ones.
        global_foreground: share of every patch token that is foreground.
        local_foreground: the same of the small crops.
        global_ratio: share of each large crop that is foreground.
        local_ratio: the same of the small crops.
        global_pad: patch tokens that are padding, for no loss.
        local_pad: the same of the small crops.
        parent: number of the large crop that each small one is a part of, as in its record; -1 for none.
        records: one tuple a sample, its large crops, then its small ones.
    """

    globals: Float[Tensor, "g b c *gsize"]
    locals: Float[Tensor, "l b c *lsize"]
    global_foreground: Float[Tensor, "g b n"]
    local_foreground: Float[Tensor, "l b m"]
    global_ratio: Float[Tensor, "g b"]
    local_ratio: Float[Tensor, "l b"]
    global_pad: Bool[Tensor, "g b n"]
    local_pad: Bool[Tensor, "l b m"]
    parent: Int64[Tensor, "l b"]
    records: tuple[tuple[CropRecord, ...], ...]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Batch":
        """The same batch with its tensors on another device."""
        return self._with({name: tensor.to(device, non_blocking=non_blocking) for name, tensor in self._tensors()})

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory; a `DataLoader` calls it."""
        return self._with({name: tensor.pin_memory() for name, tensor in self._tensors()})

    def _tensors(self) -> list[tuple[str, Tensor]]:
        return [(field.name, getattr(self, field.name)) for field in fields(self) if field.name != "records"]

    def _with(self, tensors: dict[str, Any]) -> "Batch":
        return replace(self, **tensors)


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples of one config as a batch, in order.

    Raises:
        ShapeError: no samples, or samples whose crops have several sizes.
    """
    if not samples:
        raise ShapeError("a batch needs at least one sample, given none")
    sizes = {(tuple(sample.globals.shape), tuple(sample.locals.shape)) for sample in samples}
    if len(sizes) > 1:
        raise ShapeError(f"crops of {sorted(sizes)} do not stack; make all samples with one config")
    n_globals = len(samples[0].globals)

    def stacked(name: str) -> Tensor:
        return torch.stack([getattr(sample, name) for sample in samples], dim=1)

    def recorded(name: str, dtype: torch.dtype) -> Tensor:
        rows = [[getattr(record, name) for record in sample.records] for sample in samples]
        return torch.tensor(rows, dtype=dtype).T.contiguous()  # (g + l, b)

    ratio = recorded("fg_ratio", torch.float32)
    return Batch(
        globals=stacked("globals"),
        locals=stacked("locals"),
        global_foreground=stacked("global_foreground"),
        local_foreground=stacked("local_foreground"),
        global_ratio=ratio[:n_globals],
        local_ratio=ratio[n_globals:],
        global_pad=stacked("global_pad"),
        local_pad=stacked("local_pad"),
        parent=recorded("parent", torch.int64)[n_globals:],
        records=tuple(sample.records for sample in samples),
    )
