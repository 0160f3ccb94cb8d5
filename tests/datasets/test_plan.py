"""Planning: the published tables to the last patch and byte, hours from a timing, and when storing pays."""

import time
from dataclasses import replace

import pytest
import torch

from patchatlas.datasets.plan import (
    DiskSpeed,
    Plan,
    Timing,
    break_even,
    encode_seconds,
    forward_flops,
    plan_bucket,
    plan_build,
    relative_cost,
    time_disk,
    time_encoder,
)
from patchatlas.encoders.fake import FakeEncoder
from patchatlas.errors import InputError
from patchatlas.geometry.buckets import MEGAPIXEL_BUCKETS
from patchatlas.io.codecs import encode_array
from patchatlas.io.manifest import Record, RecordError

# The two published tables: bucket (w, h), input (w, h), rows, columns, patches, and MB (1e6 bytes) of one picture at
# d = 384, 768, 1024 as fp32, fp16, int8 (values without scales).
PATCH_16 = [
    ((1024, 1024), (1024, 1024), 64, 64, 4096, "6.29/3.15/1.57 12.58/6.29/3.15 16.78/8.39/4.19"),
    ((1216, 832), (1216, 832), 52, 76, 3952, "6.07/3.04/1.52 12.14/6.07/3.04 16.19/8.09/4.05"),
    ((1280, 768), (1280, 768), 48, 80, 3840, "5.90/2.95/1.47 11.80/5.90/2.95 15.73/7.86/3.93"),
    ((1344, 704), (1344, 704), 44, 84, 3696, "5.68/2.84/1.42 11.35/5.68/2.84 15.14/7.57/3.78"),
]
PATCH_14 = [
    ((1024, 1024), (1022, 1022), 73, 73, 5329, "8.19/4.09/2.05 16.37/8.19/4.09 21.83/10.91/5.46"),
    ((1216, 832), (1218, 826), 59, 87, 5133, "7.88/3.94/1.97 15.77/7.88/3.94 21.02/10.51/5.26"),
    ((1280, 768), (1274, 770), 55, 91, 5005, "7.69/3.84/1.92 15.38/7.69/3.84 20.50/10.25/5.13"),
    ((1344, 704), (1344, 700), 50, 96, 4800, "7.37/3.69/1.84 14.75/7.37/3.69 19.66/9.83/4.92"),
]
ROWS = [(16, *row) for row in PATCH_16] + [(14, *row) for row in PATCH_14]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("patch", "bucket_wh", "input_wh", "rows", "columns", "count", "megabytes"), ROWS)
def test_the_published_tables_exactly(patch, bucket_wh, input_wh, rows, columns, count, megabytes, turned):
    order = 1 if turned else -1  # the twins of the other orientation swap everything
    for dim, cell in zip((384, 768, 1024), megabytes.split(), strict=True):
        found = plan_bucket(bucket_wh[::order], 1, patch=(patch, patch), dim=dim)
        assert found.input_size == input_wh[::order]
        assert found.grid == (rows, columns)[::-order]
        assert found.tokens == count
        values = (found.bytes["fp32"], found.bytes["fp16"], found.bytes["int8"] - 4 * dim)
        assert values == (4 * count * dim, 2 * count * dim, count * dim)
        assert "/".join(f"{size / 1e6:.2f}" for size in values) == cell


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16", "int8"])
def test_a_file_is_as_large_as_planned_with_its_header(dtype):
    found = plan_bucket((64, 96), 1, patch=(16, 16), dim=32)
    assert 0 < len(encode_array(torch.ones(24, 32), dtype)) - found.bytes[dtype] < 256


def test_seventy_thousand_squares_of_vit_large():
    """1.17 TB as fp32, 0.59 TB as fp16, 0.29 TB as int8."""
    square = plan_bucket((1024, 1024), 70_000, patch=(16, 16), dim=1024)
    whole = Plan(buckets=(square,), skipped=0, beside=0)
    assert [round(whole.total_bytes(dtype) / 1e12, 2) for dtype in ("fp32", "fp16", "int8")] == [1.17, 0.59, 0.29]


def record(k: int, bucket: tuple[int, int] | None) -> Record:
    return Record(image_path=f"{k}.jpg", image_id=str(k), aspect_bucket=bucket)


def test_a_manifest_is_counted():
    error = RecordError(type="empty", message="no bytes")
    records = [
        *(record(k, (1024, 1024)) for k in range(2)),
        *(record(k, (832, 1216)) for k in range(10, 15)),
        replace(record(99, None), status="skipped", error=error),
    ]
    found = plan_build(records, patch=(16, 16), dim=384, registers=4)
    assert [(b.bucket, b.images) for b in found.buckets] == [((832, 1216), 5), ((1024, 1024), 2)]
    assert (found.images, found.skipped, found.tokens) == (7, 1, 5 * 3952 + 2 * 4096)
    assert found.beside == 5 * 384 * 4  # CLS and registers, always fp32
    assert found.total_bytes("fp16") == found.tokens * 384 * 2 + 7 * 5 * 384 * 4
    assert plan_build(records, patch=(16, 16), dim=384, has_cls=False).beside == 0


def test_a_record_without_a_bucket_says_to_migrate():
    with pytest.raises(InputError, match=r"aspect_bucket not found for '1\.jpg'; run with --pass-filter migrate"):
        plan_build([record(1, None)], patch=(16, 16), dim=384)


@pytest.mark.parametrize(
    ("dim", "depth", "patches", "patch", "flops"),
    [
        (384, 12, 196, 16, 9.4e9),
        (384, 12, 4096, 16, 487e9),
        (768, 12, 4096, 16, 1.32e12),
        (1024, 24, 4096, 16, 4.14e12),
        (1024, 24, 5329, 14, 6.03e12),
    ],
)
def test_flops_are_the_published_ones(dim, depth, patches, patch, flops):
    """The published figures for S, B and L, with T = N + 5."""
    found = forward_flops(patches + 5, patches=patches, patch_area=patch**2, dim=dim, depth=depth)
    assert found == pytest.approx(flops, rel=0.01)


def test_hours_scale_with_the_cost_of_each_bucket():
    spec = replace(FakeEncoder().spec, family="dinov3", dim=1024, depth=24, registers=4)
    records = [record(k, MEGAPIXEL_BUCKETS[k % 7]) for k in range(70)]
    found = plan_build(records, patch=(16, 16), dim=1024, registers=4)
    timing = Timing(bucket=(1024, 1024), batch=1, seconds=2.0, forwards=3)
    costs = {b.bucket: relative_cost(b, spec) for b in found.buckets}
    assert costs[(704, 1344)] / costs[(1024, 1024)] == pytest.approx(3.59 / 4.14, rel=0.01)
    assert costs[(704, 1344)] == costs[(1344, 704)]
    expected = 10 * 2.0 * sum(cost / costs[(1024, 1024)] for cost in costs.values())
    assert encode_seconds(found, timing, spec) == pytest.approx(expected)
    assert encode_seconds(found, timing, replace(spec, family="convnext")) == pytest.approx(
        10 * 2.0 * (4096 + 2 * (3952 + 3840 + 3696)) / 4096
    )


class Slow(FakeEncoder):
    """Takes a millisecond a picture, and ten seconds' worth of warming up."""

    calls: list[tuple[int, ...]] = []  # noqa: RUF012  # of one test

    def __call__(self, pixels, /):
        self.calls.append(tuple(pixels.shape))
        time.sleep(0.2 if len(self.calls) == 1 else 0.001 * len(pixels))
        return super().__call__(pixels)


def test_timing_leaves_the_warm_up_out_and_fills_the_token_budget():
    Slow.calls = []
    bucket = plan_bucket((64, 96), 5, patch=(16, 16), dim=3)
    found = time_encoder(Slow(), bucket, token_budget=100, forwards=5)
    assert Slow.calls == [(4, 3, 64, 96)] * 6
    assert (found.batch, found.forwards, found.bucket) == (4, 5, (64, 96))
    assert 0.001 <= found.seconds < 0.04


def test_timing_stops_after_the_seconds_given_but_times_once():
    Slow.calls = []
    bucket = plan_bucket((64, 96), 5, patch=(16, 16), dim=3)
    assert time_encoder(Slow(), bucket, token_budget=1, seconds=1e-9).forwards == 1
    assert Slow.calls == [(1, 3, 64, 96)] * 2


def test_storing_pays_on_a_4090_and_not_on_an_h100():
    """8.4 MB at 1 GB/s take 8.4 ms, as long as ViT-L on an H100; a 4090 takes 50 ms."""
    disk = DiskSpeed(read=1e9, write=1e9)
    never = break_even(encode=1 / 120, size=8.39e6, disk=disk)
    assert never.epochs is None
    assert never.gain(1000) < 1
    soon = break_even(encode=0.050, size=8.39e6, disk=disk)
    assert soon.epochs == 2
    assert soon.gain(1) < 1 < soon.gain(2)
    assert soon.gain(10**6) == pytest.approx(50 / 8.39, rel=1e-3)


@pytest.mark.parametrize(
    ("encode", "size", "read", "write"), [(1.0, 1e6, 2e6, 1e5), (0.3, 7e6, 3e7, 2e7), (5.0, 1e6, 1e9, 1e9)]
)
def test_the_break_even_is_the_first_epoch_count_that_wins(encode, size, read, write):
    found = break_even(encode=encode, size=size, disk=DiskSpeed(read=read, write=write))
    assert found.gain(found.epochs) >= 1
    assert found.gain(found.epochs - 1) < 1


def test_the_disk_is_timed_and_left_clean(tmp_path):
    found = time_disk(tmp_path, size=1 << 21)
    assert found.read > 0
    assert found.write > 0
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="no folder"):
        time_disk(tmp_path / "absent")
