"""Phantoms: as the seed says, mostly air, organs alike in mean and spread and unlike in texture."""

import numpy as np
import pytest

from benchmarks.pretrain.phantoms import LABELS, Phantom, make_phantom, write_phantoms
from patchatlas.io.volumes.sources import read_volume
from patchatlas.io.volumes.volume import Declared

SOFT = ("muscle", "heart", "liver", "spleen", "kidney")


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(np.random.default_rng([0, 0]))


def test_the_seed_decides_all():
    first, again, other = (
        make_phantom(np.random.default_rng([0, number]), size_zyx=(24, 48, 48)) for number in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.values, again.values)
    assert (other.labels != first.labels).mean() > 0.01


def test_most_is_air_and_every_organ_is_there(phantom):
    shares = np.bincount(phantom.labels.ravel(), minlength=len(LABELS)) / phantom.labels.size
    assert 0.60 <= shares[0] <= 0.76
    assert (shares[1:] > 0.002).all()


def test_soft_organs_have_one_mean_and_one_spread(phantom):
    for name in SOFT:
        inside = phantom.values[phantom.labels == LABELS.index(name)]
        assert abs(inside.mean() - 50) < 8
        assert abs(inside.std() - 32) < 4  # 20 within and 25 of noise


def test_organs_lie_where_they_should(phantom):
    def centre(name):
        return np.argwhere(phantom.labels == LABELS.index(name)).mean(axis=0)

    assert centre("liver")[2] > centre("spleen")[2]  # the liver is on the right
    assert centre("heart")[0] > centre("kidney")[0]  # and the heart above the kidneys
    assert centre("spine")[1] < centre("heart")[1]  # the spine behind it


def test_files_hold_the_same(tmp_path, phantom):
    (path,) = write_phantoms(tmp_path, count=1, seed=0)
    volume = read_volume(path)
    want = phantom
    np.testing.assert_array_equal(volume.values, np.maximum(want.values, -1024))
    assert volume.spacing_zyx == want.spacing_zyx
    labels = read_volume(tmp_path / "labels" / path.name, Declared(units="any"))
    np.testing.assert_array_equal(labels.values, want.labels)
