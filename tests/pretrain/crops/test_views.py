"""Samples of volumes: exact places and pixels, repeatable in any order, and every defect of the earlier project."""

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from patchatlas.errors import InputError, ShapeError, UsageError
from patchatlas.pretrain.crops.config import CropConfig, VolumeAugment
from patchatlas.pretrain.crops.records import BELOW_MIN, PADDED, Sample
from patchatlas.pretrain.crops.views import Views
from tests.pretrain.crops.memory import MemoryCache, MemoryVolume, blob, small_config

PLAIN = VolumeAugment.none().model_dump()


def cache(n: int = 3, cell: int = 4, **changes: Any) -> MemoryCache:
    """A few blobs."""
    rng = np.random.default_rng(0)
    return MemoryCache(tuple(blob(rng, name=f"v{k}", **changes) for k in range(n)), (cell,) * 3)


def views(volumes: MemoryCache, *, seed: int = 0, **changes: Any) -> Views[MemoryVolume]:
    """Crops of 16 and 8."""
    return Views(volumes, CropConfig.model_validate(small_config(**changes)), seed=seed)


def crops(sample: Sample) -> list[torch.Tensor]:
    """Pixels of all crops, in the order of the records."""
    return [*sample.globals, *sample.locals]


def starts(made: Views[MemoryVolume], index: int, epoch: int) -> list[tuple[int, ...]]:
    """Where the crops of a sample lie."""
    return [record.start_zyx for record in made.plan(index, epoch)]


def equal(one: Sample, other: Sample) -> bool:
    """Bit for bit."""
    same = all(torch.equal(a, b) for a, b in zip(crops(one), crops(other), strict=True))
    return same and one.records == other.records


def test_pixels_are_the_windowed_voxels_of_the_record() -> None:
    made = views(cache(), augment=PLAIN | {"flip_left_right": 0.5, "flip_head_foot": 0.5})
    flips = set()
    for index in range(6):
        sample = made.sample(index, 0)
        for record, pixels in zip(sample.records, crops(sample), strict=True):
            values = next(volume for volume in made.volumes.records if volume.id == record.volume).values
            box = tuple(slice(at, at + n) for at, n in zip(record.start_zyx, record.size_zyx, strict=True))
            hu = np.flip(values[box].astype(np.float32), record.flips)
            expected = torch.from_numpy(np.clip((hu + 1000) / 2000, 0, 1))
            torch.testing.assert_close(pixels[0], expected, rtol=0, atol=1e-6)
            assert record.fg_ratio == (values[box] > -500).mean()
            flips.add(record.flips)
    assert flips == {(), (0,), (2,), (0, 2)}


def test_frames_lead_back_to_the_voxels() -> None:
    """A ramp along each axis is read off at patch centres through the frame, after a resize and flips."""
    z, y, x = np.meshgrid(*[np.arange(n) for n in (48, 48, 48)], indexing="ij")
    flips = set()
    for axis, ramp in enumerate((z, y, x)):
        volume = MemoryVolume("ramp", (10 * ramp).astype(np.int16), masks={-500.0: np.ones((48, 48, 48), dtype=bool)})
        flip = PLAIN | {"flip_left_right": 0.5, "flip_front_back": 0.5, "flip_head_foot": 0.5}
        made = views(MemoryCache((volume,)), augment=flip, globals={"zoom": (1.25, 2.0)}, locals={"zoom": (0.5, 1.5)})
        sample = made.sample(0, 3)
        for record, pixels in zip(sample.records[:2], sample.globals, strict=True):  # with patches that touch no side
            flips.add(axis in record.flips)
            for patch in np.ndindex(2, 2, 2):
                begin = [4 + 4 * at for at in patch]
                centre = [[at + 2 for at in begin[::-1]]]
                point = record.frame.to_source(torch.tensor(centre, dtype=torch.float64))[0, 2 - axis].item()
                shown = pixels[0, *(slice(at, at + 4) for at in begin)].mean().item() * 2000 - 1000
                assert shown / 10 + 0.5 == pytest.approx(point, abs=0.05)
    assert flips == {False, True}


def test_token_foreground_is_that_of_the_flipped_voxels() -> None:
    made = views(cache(cell=2), augment=PLAIN | {"flip_left_right": 0.5, "flip_front_back": 0.5})
    for index in range(4):
        sample = made.sample(index, 0)
        shares = [*sample.global_foreground, *sample.local_foreground]
        for record, share in zip(sample.records, shares, strict=True):
            values = made.volumes.records[index % 3].values
            box = tuple(slice(at, at + n) for at, n in zip(record.start_zyx, record.size_zyx, strict=True))
            mask, n = np.flip(values[box] > -500, record.flips), record.size_zyx[0] // 4
            expected = mask.reshape(n, 4, n, 4, n, 4).mean(axis=(1, 3, 5)).ravel()
            np.testing.assert_array_equal(share.numpy(), expected.astype(np.float32))
    assert not sample.global_pad.any()
    assert not sample.local_pad.any()


def test_samples_do_not_depend_on_order_process_or_what_was_drawn_before() -> None:
    volumes = cache()
    one, other = views(volumes, seed=5), views(volumes, seed=5)
    for index, epoch in [(2, 1), (0, 0), (7, 3)]:
        other.sample(index, epoch)
    for index, epoch in [(0, 0), (7, 3), (2, 1)]:
        assert equal(one.sample(index, epoch), other.sample(index, epoch))
        assert equal(one.sample(index, epoch), pickle.loads(pickle.dumps(one)).sample(index, epoch))
        assert one.plan(index, epoch) == one.sample(index, epoch).records
    assert starts(one, 0, 0) != starts(one, 0, 1)
    assert starts(one, 0, 0) != starts(one, 3, 0)
    assert starts(one, 0, 0) != starts(views(volumes, seed=6), 0, 0)
    assert one.sample(0, 0).records[0].volume == one.sample(3, 0).records[0].volume == "v0"


def test_a_record_makes_its_crop_again() -> None:
    made = views(cache(), globals={"zoom": (0.8, 1.6)}, locals={"zoom": (0.8, 1.6)})
    for index in range(4):
        sample = made.sample(index, 1)
        for record, pixels in zip(sample.records, crops(sample), strict=True):
            assert torch.equal(made.replay(record), pixels)
    with pytest.raises(InputError, match="not in this cache"):
        made.replay(replace(record, volume="elsewhere"))
    with pytest.raises(InputError, match=r"had \(40, 48, 44\) of \(3.0, 0.75, 0.75\) mm"):
        made.replay(replace(record, spacing=(3.0, 0.75, 0.75)))
    other = views(cache(size=(40, 48, 48)), globals={"zoom": (0.8, 1.6)}, locals={"zoom": (0.8, 1.6)})
    with pytest.raises(InputError, match=r"has \(40, 48, 48\) voxels"):
        other.replay(record)
    for changes in ({"window": "full"}, {"augment": {"noise_hu": (50, 60)}}, {"globals": {"foreground": -600}}):
        with pytest.raises(UsageError, match="another window, foreground or augment"):
            views(cache(), **changes).replay(record)
    assert torch.equal(views(cache(), globals={"count": 3}).replay(record), pixels)  # places are in the record


def test_local_crops_read_nothing_and_are_varied_by_themselves() -> None:
    """Defect 8: locals were pixel-identical parts of their globals."""
    volumes = cache()
    made = views(volumes, augment=PLAIN | {"noise_prob": 1.0})
    sample = made.sample(0, 0)
    assert len(volumes.reads) == 2
    for record, pixels in zip(sample.records[2:], sample.locals, strict=True):
        parent = sample.records[record.parent]
        within = [at - first for at, first in zip(record.start_zyx, parent.start_zyx, strict=True)]
        part = sample.globals[record.parent][0][tuple(slice(at, at + 8) for at in within)]
        assert not torch.equal(part, pixels[0])
        torch.testing.assert_close(part, pixels[0], rtol=0, atol=0.15)  # the same place, other noise


def test_ratio_and_overlap_hold_in_every_sample() -> None:
    """Defects 1, 2, 6 and 7: the ratio was never read, and most pairs shared nothing."""
    made = views(cache(), globals={"min_overlap": 0.4})
    for index in range(60):
        first, second, *parts = made.plan(index, 0)
        assert not any(record.flags for record in (first, second, *parts))
        assert min(first.fg_ratio, second.fg_ratio) >= 0.5
        assert first.overlap(second) >= 0.4
        for record in parts:
            assert record.fg_ratio >= 0.4
            assert record.overlap((first, second)[record.parent]) == 1


@pytest.mark.parametrize("samples", [100, pytest.param(10_000, marks=pytest.mark.slow)])
def test_no_crop_of_a_sample_misses_what_was_asked(samples: int) -> None:
    """Pairs and local crops too, ten a sample, their foreground counted voxel by voxel."""
    rng = np.random.default_rng(0)
    for number in range(10):
        size = tuple(int(n) for n in rng.integers(24, 56, 3))
        volume = blob(rng, size, share=float(rng.uniform(0.2, 0.8)))
        settings: dict[str, Any] = {"globals": {"min_overlap": 0.3}, "locals": {"count": 8}}
        settings["globals"]["min_foreground_ratio"] = settings["locals"]["min_foreground_ratio"] = 0.35
        made = views(MemoryCache((volume,), (2, 4, 2)), seed=number, **settings)
        mask = volume.mask(-500.0)
        for index in range(samples // 10):
            records = made.plan(index, 0)
            assert not any(record.flags for record in records)
            assert records[0].overlap(records[1]) >= 0.3
            for record in records:
                box = tuple(slice(at, at + n) for at, n in zip(record.start_zyx, record.size_zyx, strict=True))
                assert mask[box].mean() == record.fg_ratio >= 0.35
            for record in records[2:]:
                parent = records[record.parent]
                assert record.overlap(parent) == 1
                assert all((a - b) % 4 == 0 for a, b in zip(record.start_zyx, parent.start_zyx, strict=True))


def test_flat_volumes_are_padded_not_blown_up() -> None:
    """Defect 5: a volume of few slices gave tiny cubes, enlarged; here the crop keeps its size and air is marked."""
    volumes = cache(1, size=(6, 48, 48))
    made = views(volumes, augment=PLAIN)
    sample = made.sample(0, 0)
    for record, pixels in zip(sample.records[:2], sample.globals, strict=True):
        assert record.size_zyx == (16, 16, 16)
        assert PADDED in record.flags
        values = volumes.records[0].values[:, *(slice(at, at + 16) for at in record.start_zyx[1:])]
        assert record.fg_ratio == (values > -500).mean() >= 0.5
        np.testing.assert_allclose(pixels[0, :6], np.clip((values + 1000) / 2000, 0, 1), atol=1e-6)
        assert (pixels[0, 6:] == 0).all()  # air
    pad = sample.global_pad[0].reshape(4, 4, 4)
    assert pad[:, 0, 0].tolist() == [False, False, True, True]  # the second patch lies half inside
    assert (sample.global_foreground[0].reshape(4, 4, 4)[2:] == 0).all()
    assert sample.local_pad.shape == (4, 8)


@pytest.mark.parametrize("slices", [30, 45, 60])
def test_the_shown_part_of_a_volume_is_what_was_asked(slices: int) -> None:
    """Defect 4: the crop volume formula was wrong, and depended on the volume's shape."""
    made = views(cache(1, size=(slices, 64, 64)), augment=PLAIN)
    assert {record.size_zyx for record in made.plan(0, 0)} == {(16, 16, 16), (8, 8, 8)}


def test_sizes_in_millimetres() -> None:
    scales = {"globals": {"mm": 24}, "locals": {"mm": 12}}
    first, *_, last = views(cache(cell=2), augment=PLAIN, **scales).plan(0, 0)
    assert first.size_zyx == (16, 32, 32)  # 24 mm at 1.5, 0.75 and 0.75 mm
    assert first.voxel_mm == (1.5, 1.5, 1.5)
    assert first.frame.size == (16, 16, 16)
    assert last.size_zyx == (8, 16, 16)


def test_an_empty_volume_gives_flagged_crops_or_is_refused() -> None:
    empty = MemoryVolume("air", np.full((32, 32, 32), -1000, np.int16))
    sample = views(MemoryCache((empty,))).sample(0, 0)
    assert all(record.flags == (BELOW_MIN,) and record.fg_ratio == 0 for record in sample.records)
    with pytest.raises(InputError, match="air has no crop"):
        views(MemoryCache((empty,)), strict=True).sample(0, 0)
    with pytest.raises(InputError, match="holds no volume"):
        views(MemoryCache(()))


def test_lungs_and_table_are_what_the_mask_says() -> None:
    """Defect 16: by threshold lungs are background and the table is foreground; the body mask has it right."""
    values = np.full((32, 32, 32), -1000, np.int16)
    values[:, 4:20, 4:28], values[:, 8:16, 8:24], values[:, 26:28] = 40, -800, 200  # body, lungs, table
    body = np.zeros(values.shape, dtype=bool)
    body[:, 4:20, 4:28] = True
    volumes = MemoryCache((MemoryVolume("chest", values, masks={"body": body}),))
    scales = {"globals": {"foreground": "body"}, "locals": {"foreground": "body"}}
    by_mask = {record.fg_ratio for record in views(volumes, **scales).plan(0, 0)}
    assert by_mask <= {k / 16 for k in range(17)}
    ground = views(volumes, **scales).ground(volumes.records[0])
    assert ground.tables["body"].ratio((0, 2, 2), (8, 2, 4)) == 1  # lungs
    assert ground.tables["body"].ratio((0, 6, 0), (8, 2, 8)) == 0  # table


def test_a_window_is_held_against_the_threshold_of_the_body_masks() -> None:
    """Where the body is what lies above -900 HU a window from -500 on would show a part of it as air."""
    body = {"globals": {"foreground": "body"}, "locals": {"foreground": "body"}}
    low, high = replace(cache(), body_hu=-900.0), replace(cache(), body_hu=100.0)
    with pytest.raises(UsageError, match="-500 to 1000 HU begins above the foreground threshold of -900 HU"):
        views(low, window=(-500.0, 1000.0), **body)
    assert views(low, window=(-500.0, 1000.0)).sample(0, 0).records  # by a threshold: the body is not looked at
    # Nor does a window that is moved by up to 400 HU hide what lies above the threshold.
    moved = PLAIN | {"window_prob": 1.0, "window_shift_hu": 400.0, "window_width": (1.0, 1.0)}
    dense = tuple(replace(volume, values=np.full_like(volume.values, 101)) for volume in high.records)
    made = views(replace(high, records=dense), window="soft", augment=moved, **body)
    lowest = [float(made.sample(index, 0).globals.min()) for index in range(20)]
    assert min(lowest) > 0
    assert max(lowest) > 0.5  # others begin far below


def test_two_thresholds_at_once() -> None:
    rng = np.random.default_rng(1)
    volume = blob(rng)
    values = volume.values.copy()
    values[10:20, 10:30, 10:30][values[10:20, 10:30, 10:30] > -500] = 700
    volumes = MemoryCache((replace(volume, values=values),))
    demand = {"demands": [{"threshold": 300, "min_ratio": 0.2}]}
    for index in range(20):
        for record in views(volumes, globals=demand).plan(index, 0)[:2]:
            box = tuple(slice(at, at + n) for at, n in zip(record.start_zyx, record.size_zyx, strict=True))
            assert (values[box] > 300).mean() >= 0.2
            assert (values[box] > -500).mean() >= 0.5
            assert record.demands == ((300.0, 0.2),)


def test_crops_without_locals() -> None:
    sample = views(cache(), locals={"count": 0}).sample(0, 0)
    assert sample.locals.shape == (0, 1, 8, 8, 8)
    assert sample.local_foreground.shape == sample.local_pad.shape == (0, 8)


def test_sizes_must_be_whole_cells() -> None:
    with pytest.raises(ShapeError, match="not a multiple of the cells"):
        views(cache(cell=5)).sample(0, 0)
