"""Histograms of HU and the percentiles read from them."""

import numpy as np
import pytest

from patchatlas.pretrain.histogram import EDGES, count_values, percentile


def test_every_voxel_is_counted_once_in_its_bin():
    values = np.array([[[-2000, -1024, -1009, -1008, 0, 15, 16, 3071, 5000]]], np.int16)
    counts = count_values(values)
    assert len(counts) == len(EDGES) - 1 == 256
    assert counts.sum() == 9
    assert counts[0] == 3  # what lies below, -1024 and -1009
    assert counts[1] == 1
    assert counts[64] == 2  # 0 and 15
    assert counts[65] == 1
    assert counts[-1] == 2


def test_the_ends_of_int16_do_not_wrap():
    counts = count_values(np.array([[[-32768, 32767]]], np.int16))
    assert counts[0] == counts[-1] == 1


def test_percentiles_are_those_of_the_values():
    values = np.random.default_rng(0).normal(0, 300, (4, 50, 50)).astype(np.int16)
    counts = count_values(values)
    for share in (0.05, 0.5, 0.95):
        assert percentile(counts, share) == pytest.approx(np.quantile(values, share), abs=16)
    assert np.isnan(percentile(np.zeros(256, np.int64), 0.5))
