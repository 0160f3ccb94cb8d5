"""Volumes of another voxel size: linear, antialiased, through the one resampler of the house."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import torch

from patchatlas.geometry.frame import Frame
from patchatlas.geometry.rounding import round_half_up
from patchatlas.geometry.sampling import resample
from patchatlas.io.volumes.volume import Volume


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
