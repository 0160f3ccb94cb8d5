"""Find a marked point of one volume in another, such as a follow-up scan, in the way it is done in pictures.

`locate_in_volume` takes the two volumes and one point. For many points encode both over `volume_frame` once and call
`search.locate_points`, which knows any number of axes. Axes: c channels, z slices, h w rows and columns; points are
(x, y, z) in the continuous space of voxels: voxel (i, r, c) covers [c, c+1) x [r, r+1) x [i, i+1).
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.dense import encode
from patchatlas.encoders.protocol import Encoder
from patchatlas.errors import LandmarkError, ShapeError
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.rounding import ceil_to_multiple, round_half_up
from patchatlas.locate.centring import centred_on
from patchatlas.locate.result import Finding
from patchatlas.locate.search import locate_points
from patchatlas.matching.confidence import Calibration

Point = tuple[float, float, float]

AS_IT_IS = (1.0, 1.0, 1.0)


def locate_in_volume(
    source: Float[Tensor, "c *source"],
    target: Float[Tensor, "c *target"],
    point_xyz_source: Point,
    encoder: Encoder,
    *,
    uuid: str,
    source_scale: Sequence[float] = AS_IT_IS,
    target_scale: Sequence[float] = AS_IT_IS,
    windows: int | None = None,
    max_memory: int | None = None,
    calibration: Calibration | None = None,
) -> Finding:
    """Find the point of `source` in `target`.

    Args:
        source: floats in 0..1, (c, z, h, w), in which the point is known.
        target: likewise, in which it is looked for.
        point_xyz_source: the point, in source voxels.
        encoder: of volumes.
        uuid: whose point it is; a label.
        source_scale: what `volume_frame` takes, for the source. Where the voxels of the two scans differ in size, scale
            both to the same: size of a voxel over the size that the encoder is to see, along (z, rows, columns).
        target_scale: likewise.
        windows: see `dense.encode`.
        max_memory: see `dense.encode`.
        calibration: makes probabilities of cues; that of the encoder if not given.

    Raises:
        LandmarkError: the point is outside the source.
        ShapeError: the encoder is not one of volumes, or a volume is smaller than a patch.
        ResourceError: see `dense.encode`.
    """
    patch = encoder.spec.patch
    if len(patch) != 3 or source.ndim != 4 or target.ndim != 4:
        raise ShapeError(
            f"{encoder.spec.name} encodes {len(patch)}-D input, the volumes are {tuple(source.shape)} and "
            f"{tuple(target.shape)}; locating in a volume needs a 3-D encoder and arrays (c, z, h, w)"
        )
    size_xyz = source.shape[:0:-1]
    if not all(0 <= at < n for at, n in zip(point_xyz_source, size_xyz, strict=True)):
        raise LandmarkError(f"the point {point_xyz_source} is outside the source of {tuple(size_xyz)} voxels (x, y, z)")
    drawn = volume_frame(source.shape[1:], patch=patch, scale=source_scale)
    source_frame = centred_on(drawn, point_xyz_source, patch=patch)
    target_frame = volume_frame(target.shape[1:], patch=patch, scale=target_scale)
    target_map = encode(target, encoder, frame=target_frame, windows=windows, max_memory=max_memory)
    source_map = encode(source, encoder, frame=source_frame, windows=windows, max_memory=max_memory)
    point = torch.tensor([point_xyz_source], dtype=torch.float64)
    (finding,) = locate_points(
        source_map,
        target_map,
        point,
        uuids=[uuid],
        image_size=max(drawn.size),
        calibration=calibration,
    )
    return finding


def volume_frame(size_zhw: Sequence[int], *, patch: Sequence[int], scale: Sequence[float] = AS_IT_IS) -> Frame:
    """A volume, scaled, and padded at the far ends to whole patches.

    Args:
        size_zhw: voxels along each axis.
        patch: of the encoder, (z, h, w).
        scale: input voxels a voxel along each axis; sides are rounded to voxels, halves up.

    Raises:
        ShapeError: not three axes, a scale that is not above 0, or a scaled volume smaller than a patch.
    """
    if not len(size_zhw) == len(patch) == len(scale) == 3 or not all(math.isfinite(s) and s > 0 for s in scale):
        raise ShapeError(f"size {tuple(size_zhw)}, patch {tuple(patch)}, scale {tuple(scale)}; give three above 0 each")
    scaled = [round_half_up(Fraction(s) * n) for n, s in zip(size_zhw, scale, strict=True)]
    if any(n < p for n, p in zip(scaled, patch, strict=True)):
        raise ShapeError(
            f"a volume of {tuple(size_zhw)} voxels, scaled to {tuple(scaled)}, is smaller than a patch of "
            f"{tuple(patch)}; scale it up or take more slices"
        )
    after = [ceil_to_multiple(n, p) - n for n, p in zip(scaled, patch, strict=True)]
    return Frame.whole(size_zhw).resize(scaled).pad((0, 0, 0), after)
