"""Labelled volumes: read with their labels, in an arm's window, and refused where they would mislead."""

import hashlib
import shutil

import numpy as np
import pytest

from benchmarks.pretrain.phantoms import Phantom, make_phantom, write_phantom
from patchatlas.errors import InputError
from patchatlas.io.volumes.reasons import VolumeError
from patchatlas.pretrain.ablation.labelled import fingerprint, read_labelled

SPACING = (3.0, 3.0, 3.0)


@pytest.fixture
def held(tmp_path):
    for part in ("volumes", "labels"):
        (tmp_path / part).mkdir()
    for number in range(2):
        phantom = make_phantom(np.random.default_rng(number), size_zyx=(16, 48, 48))
        write_phantom(phantom, tmp_path / "volumes" / f"{number}.nii.gz", tmp_path / "labels" / f"{number}.nii.gz")
    return tmp_path


def test_values_labels_and_body_lie_on_each_other(held):
    phantom = make_phantom(np.random.default_rng(1), size_zyx=(16, 48, 48))
    one = read_labelled(held, spacing_mm=SPACING)[1]
    assert one.name == "1.nii.gz"
    np.testing.assert_array_equal(one.values, phantom.values)
    np.testing.assert_array_equal(one.labels, phantom.labels)
    assert (one.foreground == (phantom.labels > 0)).mean() > 0.97


def test_pixels_are_in_the_window_of_the_arm(held):
    one = read_labelled(held, spacing_mm=SPACING)[0]
    pixels = one.case((-1000.0, 1000.0)).pixels
    assert pixels.shape == (1, 16, 48, 48)
    np.testing.assert_allclose(pixels[0], np.clip((one.values + 1000) / 2000, 0, 1), atol=1e-6)
    assert not one.case((500.0, 3000.0)).pixels[0][one.labels == 2].any()  # muscle is black


def test_the_fingerprint_follows_the_labels(held):
    before = fingerprint(read_labelled(held, spacing_mm=SPACING))
    shutil.copy(held / "labels/0.nii.gz", held / "labels/1.nii.gz")
    assert fingerprint(read_labelled(held, spacing_mm=SPACING)) != before


def test_a_volume_that_runs_learn_from_is_refused(held):
    digest = hashlib.sha256((held / "volumes/1.nii.gz").read_bytes()).hexdigest()
    with pytest.raises(InputError, match=r"1\.nii\.gz is among the volumes that runs learn from"):
        read_labelled(held, spacing_mm=SPACING, learnt_from={digest})


def test_other_spacing_is_refused(held):
    with pytest.raises(InputError, match="resample it"):
        read_labelled(held, spacing_mm=(3.0, 3.0, 1.5))


def test_labels_that_are_absent_or_do_not_fit(held):
    other = make_phantom(np.random.default_rng(0), size_zyx=(16, 48, 40))
    write_phantom(other, held / "unused.nii.gz", held / "labels/0.nii.gz")
    with pytest.raises(InputError, match="one for each of"):
        read_labelled(held, spacing_mm=SPACING)
    below = np.full((16, 48, 48), -1, np.int16)
    write_phantom(Phantom(other.values, below, SPACING), held / "unused.nii.gz", held / "labels/0.nii.gz")
    with pytest.raises(VolumeError, match=r"0\.nii\.gz: its values run from -1 to -1; a mask has whole numbers"):
        read_labelled(held, spacing_mm=SPACING)
    (held / "labels/0.nii.gz").unlink()
    with pytest.raises(InputError, match=r"0\.nii\.gz has no labels"):
        read_labelled(held, spacing_mm=SPACING)


def test_one_volume_is_too_few(held):
    (held / "volumes/1.nii.gz").unlink()
    with pytest.raises(InputError, match="holds 1 volumes"):
        read_labelled(held, spacing_mm=SPACING)
