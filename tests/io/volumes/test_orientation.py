"""Any orientation of the same body becomes the same array, and its affine finds the same millimetres."""

from itertools import permutations, product

import nibabel
import numpy as np
import pytest

from patchatlas.io.volumes.orientation import affine_of_axes, orient
from patchatlas.io.volumes.reasons import VolumeError
from tests.io.volumes.volume_files import SPACING_ZYX, affine_ras, example

ALL_48 = ["".join(letters) for order in permutations(("RL", "AP", "SI")) for letters in product(*order)]


@pytest.mark.parametrize("axes", ALL_48)
def test_all_48_orientations_become_one(axes):
    image = nibabel.Nifti1Image(np.ascontiguousarray(example().transpose(2, 1, 0)), affine_ras())
    start = nibabel.orientations.io_orientation(image.affine)
    turned = image.as_reoriented(
        nibabel.orientations.ornt_transform(start, nibabel.orientations.axcodes2ornt(tuple(axes)))
    )
    found = orient(np.asanyarray(turned.dataobj), turned.affine)
    np.testing.assert_array_equal(found.values, example())
    assert found.spacing_zyx == SPACING_ZYX
    # The centre of voxel (z, y, x) = (1, 2, 3) is the point (3.5, 2.5, 1.5), at 10 + 3, 20 + 4 and 30 + 3 mm.
    np.testing.assert_allclose(found.affine @ (3.5, 2.5, 1.5, 1), (13.0, 24.0, 33.0, 1.0))


def test_agrees_with_nibabel_on_oblique_affines():
    rng = np.random.default_rng(0)
    for _ in range(50):
        rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        affine = np.eye(4)
        affine[:3, :3] = rotation * rng.uniform(0.5, 3, 3)
        affine[:3, 3] = rng.normal(size=3) * 50
        values = rng.integers(0, 99, (3, 4, 5)).astype(np.int16)
        theirs = nibabel.as_closest_canonical(nibabel.Nifti1Image(values, affine))
        ours = orient(values, affine)
        directions = np.abs(rotation)
        if np.sort(directions, axis=0)[1].max() > 0.9 * directions.max(axis=0).min():
            continue  # two axes fit one direction about as well, and each rule may choose its own
        np.testing.assert_array_equal(ours.values, np.asanyarray(theirs.dataobj).transpose(2, 1, 0))
        half = np.eye(4)
        half[:3, 3] = -0.5
        np.testing.assert_allclose(ours.affine, theirs.affine @ half)


def test_a_tilted_gantry_is_refused():
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    affine[1, 2] = 0.5  # every slice lies half a millimetre further back
    with pytest.raises(VolumeError, match="right angles") as raised:
        orient(np.zeros((3, 3, 3), np.int16), affine)
    assert raised.value.reason == "sheared"


def test_an_affine_without_size_is_refused():
    for broken in (np.diag([1.0, 0.0, 1.0, 1.0]), np.diag([1.0, np.nan, 1.0, 1.0])):
        with pytest.raises(VolumeError) as raised:
            orient(np.zeros((3, 3, 3), np.int16), broken)
        assert raised.value.reason == "no_spacing"


def test_axes_of_bare_arrays():
    values = example()[::-1, ::-1]  # slices grow to Inferior, rows to Posterior
    np.testing.assert_array_equal(orient(values, affine_of_axes("IPR", SPACING_ZYX)).values, example())


@pytest.mark.parametrize("axes", ["SA", "SAA", "SAX", "SSS", ""])
def test_axes_that_name_no_three_directions_are_refused(axes):
    with pytest.raises(VolumeError) as raised:
        affine_of_axes(axes, (1.0, 1.0, 1.0))
    assert raised.value.reason == "no_orientation"
