"""Volumes of another voxel size: linear, antialiased, through the one resampler of the house."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import Bool

from patchatlas.geometry.frame import Frame
from patchatlas.geometry.rounding import round_half_up
from patchatlas.geometry.sampling import resample
from patchatlas.io.volumes.volume import Volume

_FULL = np.int16(1000)
"""What a voxel that is all mask counts, so that shares survive the rounding to whole numbers."""


def resample_volume(volume: Volume, spacing_zyx: Sequence[float]) -> Volume:
    """The same box of space in voxels of about another size.

    Sides are whole voxels, so the spacing that comes out fills the box exactly and may differ from the one asked for by
    half a voxel over a whole side; it stands in the result.

    Args:
        volume: what to resample.
        spacing_zyx: mm between voxels, asked for.
    """
    size = volume.values.shape
    wanted = [
        max(2, round_half_up(Fraction(n) * Fraction(old) / Fraction(new)))
        for n, old, new in zip(size, volume.spacing_zyx, spacing_zyx, strict=True)
    ]
    if tuple(wanted) == size:
        return volume
    frame = Frame.whole(size).resize(wanted)
    drawn = resample(torch.from_numpy(volume.values.astype(np.float32))[None], frame)[0]
    scale_zyx = [float(scale) for scale in frame.scale]
    z, y, x = (old * scale for old, scale in zip(volume.spacing_zyx, scale_zyx, strict=True))
    affine = volume.affine @ np.diag([*scale_zyx[::-1], 1.0])  # points run (x, y, z); the zero corner stays
    return replace(volume, values=drawn.round().to(torch.int16).numpy(), spacing_zyx=(z, y, x), affine=affine)


def resample_mask(
    mask: Bool[np.ndarray, "z y x"], volume: Volume, spacing_zyx: Sequence[float]
) -> Bool[np.ndarray, "new_z new_y new_x"]:
    """A mask of a volume on the voxels of `resample_volume`: true where half of what is seen there is.

    Args:
        mask: on the voxels of the volume.
        volume: as it was before.
        spacing_zyx: as there.
    """
    drawn = resample_volume(replace(volume, values=mask.astype(np.int16) * _FULL), spacing_zyx)
    return drawn.values * 2 >= _FULL
