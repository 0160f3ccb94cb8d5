"""Stored numbers become HU, and what cannot be HU is refused."""

import numpy as np
import pytest

from patchatlas.io.volumes.hounsfield import to_int16
from patchatlas.io.volumes.reasons import VolumeError


def block(low: float, high: float, dtype=np.float32) -> np.ndarray:
    return np.linspace(low, high, 64).reshape(4, 4, 4).astype(dtype)


def test_slope_and_intercept_are_applied_once_and_rounded():
    stored = np.array([[[0, 1024, 1026, 3000]]], np.uint16)
    np.testing.assert_array_equal(to_int16(stored, intercept=-1024.0), [[[-1024, 0, 2, 1976]]])
    np.testing.assert_array_equal(to_int16(stored, slope=0.5, intercept=-700.0), [[[-700, -188, -187, 800]]])


def test_values_are_rounded_to_the_nearest():
    stored = np.array([[[-1000.4, -1000.6, 10.4, 10.6]]], np.float32)
    np.testing.assert_array_equal(to_int16(stored), [[[-1000, -1001, 10, 11]]])


def test_padding_outside_the_field_becomes_air():
    stored = np.array([[[-3024, -1000, 40, 1200]]], np.int16)
    np.testing.assert_array_equal(to_int16(stored), [[[-1024, -1000, 40, 1200]]])
    np.testing.assert_array_equal(stored[0, 0, 0], -3024)  # the input is left alone


def test_whole_numbers_pass_unchanged():
    stored = block(-1024, 3071, np.int16)
    np.testing.assert_array_equal(to_int16(stored), stored)


@pytest.mark.parametrize(
    ("low", "high", "dtype", "said"),
    [
        (0.0, 1.0, np.float32, "scaled"),
        (-1.0, 1.0, np.float32, "scaled"),
        (-2.7, 9.1, np.float32, "z-scored"),
        (0, 255, np.uint8, "8-bit"),
        (0, 4095, np.uint16, "without the intercept"),
        (-160, 240, np.int16, "windowed"),
        (-1024, -900, np.int16, "nothing but air"),
        (-1024, 1e6, np.float32, "16 bits"),
    ],
)
def test_wrong_units_are_named(low, high, dtype, said):
    with pytest.raises(VolumeError, match=said) as raised:
        to_int16(block(low, high, dtype))
    assert raised.value.reason == "wrong_units"


def test_any_units_pass_where_asked():
    labels = block(0, 8, np.uint8)
    np.testing.assert_array_equal(to_int16(labels, units="any"), labels)
    with pytest.raises(VolumeError, match="16 bits"):
        to_int16(block(0, 1e6), units="any")


def test_not_finite_and_no_numbers_are_refused():
    broken = block(-1000, 1000)
    broken[0, 0, 0] = np.nan
    with pytest.raises(VolumeError) as raised:
        to_int16(broken)
    assert raised.value.reason == "not_finite"
    with pytest.raises(VolumeError) as raised:
        to_int16(broken.astype(np.complex64))
    assert raised.value.reason == "not_a_volume"
