"""Records go to JSON and back; samples become batches without losing what belongs together."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from patchatlas.errors import ShapeError
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.projective import Projective
from patchatlas.pretrain.crops.config import CropConfig
from patchatlas.pretrain.crops.records import CropRecord, collate
from patchatlas.pretrain.crops.views import Views
from tests.pretrain.crops.memory import MemoryCache, blob, small_config

RECORD = CropRecord(
    volume="a",
    start_zyx=(4, 0, 8),
    size_zyx=(8, 8, 8),
    spacing=(1.5, 0.75, 0.75),
    fg_ratio=0.25,
    n_valid=7,
    flags=("below_min", "padded"),
    parent=-1,
    flips=(2,),
    frame=Frame.whole((32, 32, 32)).crop((4, 0, 8), (8, 8, 8)).resize((16, 16, 16)).flip(2),
    threshold=-500.0,
    demands=((300.0, 0.05),),
    seed=(0, 1, 2, 3),
)


def test_json_round_trip() -> None:
    assert CropRecord.from_json(json.loads(json.dumps(RECORD.to_json()))) == RECORD


def test_a_warp_goes_to_json_and_back_bit_for_bit() -> None:
    warp = Projective.onto((16, 16), np.array([(1 / 3, 0.1), (40, 5), (37, 44), (3, 39)]))
    warped = replace(RECORD, warp=warp, frame=Frame.whole((64, 64)))
    again = CropRecord.from_json(json.loads(json.dumps(warped.to_json())))
    assert again == warped
    assert again.map == warp
    stored = RECORD.to_json()
    del stored["warp"]  # as records were written before there were any
    assert CropRecord.from_json(stored) == RECORD


def test_a_box_has_its_frame_as_its_map() -> None:
    points = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    torch.testing.assert_close(RECORD.map.to_source(points), RECORD.frame.to_source(points))


def test_a_record_says_its_flags_and_voxels() -> None:
    assert RECORD.flag == "below_min+padded"
    assert RECORD.voxel_mm == (0.75, 0.375, 0.375)


def test_overlap_by_hand() -> None:
    other = replace(RECORD, start_zyx=(8, 0, 8), size_zyx=(8, 16, 8))
    assert RECORD.overlap(other) == other.overlap(RECORD) == 0.5
    assert RECORD.overlap(replace(RECORD, start_zyx=(12, 0, 8))) == 0


def test_collate_keeps_crops_and_records_together() -> None:
    rng = np.random.default_rng(0)
    cache = MemoryCache(tuple(blob(rng, name=name) for name in "abc"))
    views = Views(cache, CropConfig.model_validate(small_config()))
    samples = [views.sample(k, 0) for k in range(3)]
    batch = collate(samples)
    assert batch.globals.shape == (2, 3, 1, 16, 16, 16)
    assert batch.locals.shape == (4, 3, 1, 8, 8, 8)
    assert batch.global_foreground.shape == (2, 3, 64)
    assert batch.local_foreground.shape == (4, 3, 8)
    for b, sample in enumerate(samples):
        torch.testing.assert_close(batch.globals[:, b], sample.globals, rtol=0, atol=0)
        torch.testing.assert_close(batch.locals[:, b], sample.locals, rtol=0, atol=0)
        assert batch.records[b] == sample.records
        assert {record.volume for record in batch.records[b]} == {"abc"[b]}
        for k in range(2):
            assert batch.global_ratio[k, b].item() == pytest.approx(batch.records[b][k].fg_ratio)
            assert batch.global_foreground[k, b].mean().item() == pytest.approx(batch.records[b][k].fg_ratio)
        for k in range(4):
            assert batch.local_ratio[k, b].item() == pytest.approx(batch.records[b][2 + k].fg_ratio)
            assert batch.parent[k, b].item() == batch.records[b][2 + k].parent == k % 2
    moved = batch.to("meta")
    assert moved.globals.device.type == moved.parent.device.type == "meta"
    assert moved.records == batch.records


def test_samples_of_two_configs_do_not_stack() -> None:
    cache = MemoryCache((blob(np.random.default_rng(0)),))
    one = Views(cache, CropConfig.model_validate(small_config())).sample(0, 0)
    other = Views(cache, CropConfig.model_validate(small_config(locals={"count": 2}))).sample(0, 0)
    with pytest.raises(ShapeError, match="do not stack"):
        collate([one, other])
    with pytest.raises(ShapeError, match="at least one"):
        collate([])
