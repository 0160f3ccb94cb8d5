"""Another voxel size shows the same box of space."""

import numpy as np
import pytest
import torch

from patchatlas.geometry.frame import Frame
from patchatlas.geometry.sampling import resample
from patchatlas.io.volumes.volume import Volume
from patchatlas.pretrain.resampling import resample_volume


def ramp(size=(8, 10, 12), spacing=(3.0, 2.0, 1.0)) -> Volume:
    """HU = 10 x + 20 y + 30 z at the centre of each voxel, in mm."""
    z, y, x = (np.arange(n) + 0.5 for n in size)
    z, y, x = np.meshgrid(z * spacing[0], y * spacing[1], x * spacing[2], indexing="ij")
    affine = np.diag([*spacing[::-1], 1.0])
    return Volume((10 * x + 20 * y + 30 * z).astype(np.int16), spacing, affine)


def test_a_ramp_stays_one():
    small = resample_volume(ramp(), (2.0, 2.0, 2.0))
    assert small.values.shape == (12, 10, 6)
    assert small.spacing_zyx == (2.0, 2.0, 2.0)
    want = ramp((12, 10, 6), (2.0, 2.0, 2.0)).values
    inner = (slice(2, -2),) * 3
    np.testing.assert_allclose(small.values[inner], want[inner], atol=1)
    assert small.values.dtype == np.int16


def test_the_box_of_space_is_kept_and_the_spacing_told():
    volume = resample_volume(ramp(), (5.0, 5.0, 5.0))
    assert volume.values.shape == (5, 4, 2)
    np.testing.assert_allclose(np.multiply(volume.values.shape, volume.spacing_zyx), (24, 20, 12))
    np.testing.assert_allclose(volume.affine @ (2, 4, 5, 1), (12, 20, 24, 1))  # the far corner, mm


def test_the_same_size_is_not_touched():
    volume = ramp()
    assert resample_volume(volume, (3.0, 2.0, 1.0)) is volume


def test_values_are_rounded_not_cut_off():
    volume = ramp()
    drawn = resample(
        torch.from_numpy(volume.values.astype(np.float32))[None], Frame.whole((8, 10, 12)).resize((5, 7, 9))
    )
    found = resample_volume(volume, (24 / 5, 20 / 7, 12 / 9)).values
    np.testing.assert_array_equal(found, np.rint(drawn[0].numpy()))


def test_halves_are_averaged_not_skipped():
    values = np.zeros((4, 4, 8), np.int16)
    values[:, :, ::2] = 1000  # stripes finer than the new voxels
    volume = resample_volume(Volume(values, (1.0, 1.0, 1.0), np.eye(4)), (1.0, 1.0, 2.0))
    assert volume.values[:, :, 1:-1] == pytest.approx(500, abs=1)
