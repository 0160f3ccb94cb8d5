"""Many crops in numbers."""

from dataclasses import replace

import pytest

from patchatlas.pretrain.crops.config import CropConfig, PhotoCropConfig
from patchatlas.pretrain.crops.summary import summarise
from tests.pretrain.crops.memory import small_config
from tests.pretrain.crops.test_records import RECORD

CONFIG = CropConfig.model_validate(small_config(locals={"count": 1}))


def test_counts_by_hand() -> None:
    good = replace(RECORD, flags=(), fg_ratio=0.5)
    free = replace(RECORD, flags=("anywhere",), fg_ratio=0.0, start_zyx=(12, 0, 8))
    bad = replace(RECORD, flags=("below_min", "padded"), fg_ratio=0.3, parent=0)
    found = summarise([(good, good, bad), (free, replace(free, start_zyx=(4, 0, 8)), good)], CONFIG)
    assert (found.samples, found.crops, found.below_min) == (2, 6, 1)
    assert found.global_ratios == (0.5, 0.5, 0.0, 0.0)
    assert found.local_ratios == (0.3, 0.5)
    assert found.overlaps == (1.0, 0.0)
    assert found.disjoint == 0.5
    assert found.flags == {
        "anywhere": 2,
        "overlap_relaxed": 0,
        "demand_relaxed": 0,
        "below_min": 1,
        "padded": 1,
        "shrunk": 0,
    }
    assert found.to_json()["mean_local_ratio"] == pytest.approx(0.4)


def test_nothing_and_photographs() -> None:
    found = summarise([], CONFIG)
    assert (found.samples, found.disjoint, found.to_json()["mean_overlap"]) == (0, 0.0, None)
    photos = PhotoCropConfig.model_validate({"globals": {"count": 1}})
    assert summarise([(replace(RECORD, flags=(), fg_ratio=0.0),)], photos).below_min == 0
