"""The real head CT of Debian's invesalius-examples: indexed, and its body found. `make data` fetches it."""

from pathlib import Path

import numpy as np
import pytest

from patchatlas.io.volumes.sources import read_volume
from patchatlas.pretrain.foreground import above, body_mask
from patchatlas.pretrain.index import index_volumes


def test_it_is_read_and_indexed(head_ct, tmp_path):
    report = index_volumes([head_ct / "Cranium.inv3"], tmp_path / "cache")
    (record,) = report.cache.records
    assert record.size_zyx == (108, 256, 256)
    assert record.spacing_zyx == pytest.approx((1.5, 0.95703, 0.95703), abs=1e-5)
    assert (record.low, record.high) == (-1024, 2986)
    assert record.foreground["hu>-500"] == pytest.approx(0.340, abs=0.001)
    assert record.foreground["body"] == pytest.approx(0.334, abs=0.001)
    crop = report.cache.read(record, (40, 96, 96), (32, 64, 64))
    assert -50 < np.median(crop) < 80  # brain


def test_the_headrest_goes_and_the_head_stays(head_ct: Path):
    volume = read_volume(head_ct / "Cranium.inv3")
    body = body_mask(volume.values, volume.spacing_zyx)
    tissue = above(volume.values, -500.0)
    # The headrest is an arc behind and beside the head, up to the left border of the picture.
    assert tissue[:, :, :20].any()
    assert not body[:, :, :20].any()
    assert tissue[:, :10].any()
    assert not body[:, :10].any()
    head = (50, slice(40, 216), slice(60, 196))
    np.testing.assert_array_equal(body[head] & tissue[head], tissue[head])
    assert (body & ~tissue).sum() > 30_000  # sinuses, ears, the airway
