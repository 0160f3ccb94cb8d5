"""Crops or the whole frame: the count of operations by hand, and the choice at its limits."""

import math
from dataclasses import replace

import pytest
import torch

from patchatlas.encoders.fake import FakeEncoder
from patchatlas.reid.embed.choice import break_even, choose_regions, crop_flop, forward_flop
from patchatlas.spec import EncoderSpec

SMALL: EncoderSpec = replace(FakeEncoder().spec, dim=384, depth=12, layer=11, family="dinov3")
FRAME = (448, 768)


def people(count: int, size: float = 100.0) -> torch.Tensor:
    at = torch.arange(count, dtype=torch.float64)[:, None] * 2
    return torch.cat([at, at, at + size, at + size], dim=1)


def test_operations_of_a_known_network() -> None:
    """A ViT-S/16 at 224 px has 197 tokens and is published with 4.6 G multiplications (DeiT, arXiv 2012.12877)."""
    plain = replace(SMALL, registers=0)
    assert forward_flop((14, 14), plain) / 2 == pytest.approx(4.6e9, rel=0.02)
    assert forward_flop((2, 3), SMALL) == 12 * (24 * 11 * 384**2 + 4 * 11**2 * 384)
    assert forward_flop((2, 3), replace(SMALL, layer=5)) == forward_flop((2, 3), SMALL) / 2
    assert forward_flop((4, 4), replace(SMALL, family="convnext", registers=0, has_cls=False)) == 12 * 24 * 16 * 384**2


@pytest.mark.parametrize(
    ("frame", "count"), [((448, 768), 10), ((576, 1024), 21), ((720, 1280), 42), ((1088, 1920), 168)]
)
def test_the_measured_break_even(frame, count) -> None:
    """Frames against crops of 224 px through a ViT-S/16, counted by torch's profiler for the research report."""
    assert break_even(frame, SMALL, crop_hw=(224, 224), frame_size=None) == pytest.approx(count, abs=0.6, rel=0.011)


def test_a_narrow_crop_costs_less() -> None:
    assert crop_flop((300, 100), SMALL, crop_size=224) < 0.4 * crop_flop((300, 300), SMALL, crop_size=224)
    narrow = break_even(FRAME, SMALL, crop_hw=(224, 75), frame_size=None)
    assert narrow > 2.5 * break_even(FRAME, SMALL, crop_hw=(224, 224), frame_size=None)


def test_many_boxes_are_read_from_the_frame_and_few_are_not() -> None:
    limit = break_even(FRAME, SMALL, crop_hw=(224, 224), frame_size=None)
    told = {"pooling": "mean", "crop_size": 224}
    few = choose_regions([people(math.floor(limit))] * 3, FRAME, SMALL, **told)
    many = choose_regions([people(math.ceil(limit))] * 3, FRAME, SMALL, **told)
    assert (few.regions, many.regions) == ("crops", "frame")
    assert many.frames_flop == few.frames_flop == 3 * forward_flop((28, 48), SMALL)
    assert many.crops_flop == pytest.approx(math.ceil(limit) * 3 * forward_flop((14, 14), SMALL))
    assert "frames cost less" in many.reason
    assert "crops cost no more" in few.reason


def test_each_box_counts_with_its_own_shape() -> None:
    some = torch.tensor([[0.0, 0, 30.2, 100], [0, 0, 100, 30]], dtype=torch.float64)
    one = choose_regions([some], FRAME, SMALL, pooling="mean", crop_size=224)
    assert one.crops_flop == sum(crop_flop(size, SMALL, crop_size=224) for size in ((100, 31), (30, 100)))
    tall = choose_regions([some[:1]], FRAME, replace(SMALL, patch=(8, 16)), pooling="mean", crop_size=224)
    assert tall.crops_flop == forward_flop((28, 5), SMALL)


def test_frames_without_boxes_cost_nothing() -> None:
    nothing = torch.zeros(0, 4, dtype=torch.float64)
    one = choose_regions([nothing, people(30), nothing], FRAME, SMALL, pooling="mean", crop_size=224)
    assert one.frames_flop == forward_flop((28, 48), SMALL)
    none = choose_regions([nothing], FRAME, SMALL, pooling="gem", crop_size=224)
    assert (none.regions, none.crops_flop, none.frames_flop) == ("crops", 0, 0)


def test_small_boxes_are_cropped_however_many() -> None:
    told = {"pooling": "mean", "crop_size": 224}
    assert choose_regions([people(50, 64.0)], FRAME, SMALL, **told).regions == "frame"  # 16 patches
    small = choose_regions([people(50, 63.0)], FRAME, SMALL, **told)
    assert small.regions == "crops"
    assert "cover 15.5 patches" in small.reason
    assert choose_regions([people(50, 64.0)], FRAME, SMALL, frame_size=384, **told).regions == "crops"


@pytest.mark.parametrize("pooling", ["cls", "cls+mean"])
def test_a_class_token_is_of_a_crop(pooling) -> None:
    one = choose_regions([people(50)], FRAME, SMALL, pooling=pooling, crop_size=224)
    assert one.regions == "crops"
    assert "class token" in one.reason
