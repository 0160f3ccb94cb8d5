"""Samples of photographs: places, pixels and records, in the same batches as those of volumes."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from patchatlas.errors import InputError, UsageError
from patchatlas.io.images import read_picture
from patchatlas.pretrain.crops import photos
from patchatlas.pretrain.crops.config import PhotoAugment, PhotoCropConfig, PhotoScale
from patchatlas.pretrain.crops.photos import PhotoViews, draw_box, open_photos
from patchatlas.pretrain.crops.records import OVERLAP_RELAXED, SHRUNK, CropRecord, collate


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures in which red is the column and green the row, one that is damaged, and a file of notes."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for name, (rows, columns) in {"b.png": (80, 120), "more/a.png": (100, 60)}.items():
        pixels = np.zeros((rows, columns, 3), np.uint8)
        pixels[..., 0], pixels[..., 1] = 2 * np.arange(columns), 2 * np.arange(rows)[:, None]
        Image.fromarray(pixels).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("none")
    return folder


def views(folder: Path, *, seed: int = 0, plain: bool = True, **changes: Any) -> PhotoViews:
    """Crops of 32 and 16, patches of 8."""
    settings = {"patch": 8, "globals": {"size": 32}, "locals": {"size": 16, "count": 3}} | changes
    if plain:
        settings["augment"] = PhotoAugment.none().model_dump() | {"flip": 0.5}
        for name in ("globals", "locals"):
            settings[name] = settings[name] | {"blur_prob": (0.0,), "solarise_prob": (0.0,)}
    return PhotoViews(open_photos(folder), PhotoCropConfig.model_validate(settings), seed=seed)


def test_a_folder_lists_what_it_cannot_read(folder: Path, tmp_path: Path) -> None:
    found = open_photos(folder)
    assert [(record.id, record.size_hw) for record in found.records] == [
        ("b.png", (80, 120)),
        ("more/a.png", (100, 60)),
    ]
    assert [name for name, _ in found.skipped] == ["broken.jpg"]
    with pytest.raises(InputError, match="holds no photograph"):
        open_photos(tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        open_photos(folder / "b.png")


def test_frames_lead_back_to_the_photograph(folder: Path) -> None:
    sample = views(folder).sample(0, 0)
    flips = set()
    for record, pixels in zip(sample.records, [*sample.globals, *sample.locals], strict=True):
        grid = torch.tensor([[10.0, 8.0], [5.0, 12.0]], dtype=torch.float64)
        for (x, y), (px, py) in zip(grid.tolist(), record.frame.to_source(grid).tolist(), strict=True):
            around = pixels[:, int(y) - 1 : int(y) + 1, int(x) - 1 : int(x) + 1].mean(dim=(1, 2)) * 255
            assert around[0].item() / 2 + 0.5 == pytest.approx(px, abs=0.3)
            assert around[1].item() / 2 + 0.5 == pytest.approx(py, abs=0.3)
        assert (record.frame.scale[1] < 0) == (record.flips == (1,))
        flips.add(record.flips)
    assert flips == {(), (1,)}


def test_samples_repeat_and_records_replay(folder: Path) -> None:
    made = views(folder, plain=False, globals={"size": 32, "solarise_prob": (0.0, 1.0)})
    sample, again = (
        made.sample(3, 1),
        views(folder, plain=False, globals={"size": 32, "solarise_prob": (0.0, 1.0)}).sample(3, 1),
    )
    assert sample.records == again.records == made.plan(3, 1)
    assert torch.equal(sample.globals, again.globals)
    assert torch.equal(sample.locals, again.locals)
    for record, pixels in zip(sample.records, [*sample.globals, *sample.locals], strict=True):
        assert torch.equal(made.replay(record), pixels)
    assert not torch.equal(sample.globals, made.sample(3, 2).globals)
    assert {record.volume for record in sample.records} == {"more/a.png"}


@pytest.mark.parametrize("warp", [None, {"scale": (0.6, 2.0)}])
def test_a_record_is_replayed_with_the_variation_it_was_made_with(folder: Path, warp: dict[str, Any] | None) -> None:
    made = views(folder, plain=False, warp=warp)
    record = made.plan(0, 0)[-1]
    elsewhere = views(folder, plain=False, warp=warp, locals={"size": 32, "count": 5}, per_photo=2)
    stored = CropRecord.from_json(json.loads(json.dumps(record.to_json())))
    assert torch.equal(elsewhere.replay(stored), made.replay(record))  # places and sizes are in the record
    others: list[dict[str, Any]] = [
        {"augment": {"brightness": 0.1}},
        {"augment": {"light": {}}},
        {"globals": {"size": 32, "blur_prob": (0.2,)}},
        {"locals": {"size": 16, "count": 3, "solarise_prob": (0.2,)}},
        {"globals": {"size": 32, "count": 3}},
        {"warp": {"scale": (0.6, 2.0)} if warp is None else None},
    ]
    for changes in others:
        with pytest.raises(UsageError, match=r"b\.png was made with another augment.* replay it with the settings"):
            views(folder, plain=False, **{"warp": warp, **changes}).replay(record)


def test_chances_go_crop_by_crop(folder: Path) -> None:
    plain = views(folder, globals={"size": 32, "area": (1.0, 1.0)})
    scales = {
        "globals": plain.config.globals.model_copy(update={"solarise_prob": (0.0, 1.0)}),
        "locals": plain.config.locals.model_copy(update={"solarise_prob": (1.0, 0.0, 0.0)}),
    }
    still = plain.sample(0, 0)
    changed = PhotoViews(plain.photos, plain.config.model_copy(update=scales)).sample(0, 0)
    same = [torch.equal(a, b) for a, b in zip(still.globals, changed.globals, strict=True)]
    assert same == [True, False]
    same = [torch.equal(a, b) for a, b in zip(still.locals, changed.locals, strict=True)]
    assert same == [False, True, True]


def test_batches_are_those_of_volumes(folder: Path) -> None:
    made = views(folder)
    batch = collate([made.sample(k, 0) for k in range(2)])
    assert batch.globals.shape == (2, 2, 3, 32, 32)
    assert batch.locals.shape == (3, 2, 3, 16, 16)
    assert (batch.global_foreground == 1).all()
    assert batch.global_foreground.shape == (2, 2, 16)
    assert batch.local_foreground.shape == batch.local_pad.shape == (3, 2, 4)
    assert (batch.global_ratio == 1).all()
    assert not batch.global_pad.any()


def test_overlap_and_parts(folder: Path) -> None:
    made = views(folder, min_overlap=0.5, locals_inside=True)
    for index in range(100):
        first, second, *parts = made.plan(index, 0)
        assert first.overlap(second) >= 0.5 or second.flags == (OVERLAP_RELAXED,)
        for record in parts:
            assert record.overlap((first, second)[record.parent]) == 1


areas = st.tuples(*[st.floats(0.02, 1)] * 2).map(lambda pair: (min(pair), max(pair)))


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(*[st.integers(1, 300)] * 2),
    area=areas,
    overlap=st.floats(0.05, 1),
)
def test_boxes_lie_inside_and_overlap(
    seed: int, size: tuple[int, int], area: tuple[float, float], overlap: float
) -> None:
    rng, scale = np.random.default_rng(seed), PhotoScale(count=1, size=(16, 16), area=area)
    first = draw_box(size, scale, rng)
    second = draw_box(size, scale, rng, beside=first.box, overlap=overlap)
    part = draw_box(size, scale, rng, within=first.box)
    for (start, sides), limit in [(first.box, ((0, 0), size)), (second.box, ((0, 0), size)), (part.box, first.box)]:
        for at, n, low, whole in zip(start, sides, *limit, strict=True):
            assert low <= at < at + n <= low + whole
    shared = 1
    for at, n, begin, m in zip(*first.box, *second.box, strict=True):
        shared *= max(0, min(at + n, begin + m) - max(at, begin))
    smaller = min(first.box[1][0] * first.box[1][1], second.box[1][0] * second.box[1][1])
    assert shared >= overlap * smaller * (1 - 1e-9) or second.flags == (OVERLAP_RELAXED,)


def test_areas_are_those_asked_for_also_in_long_photographs() -> None:
    rng, scale = np.random.default_rng(0), PhotoScale(count=1, size=(16, 16), area=(0.3, 0.6))
    for size in [(400, 400), (100, 1600), (1600, 100)]:
        shares = [np.prod(draw_box(size, scale, rng).box[1]) / np.prod(size) for _ in range(200)]
        assert 0.29 < min(shares) < 0.33
        assert 0.57 < max(shares) < 0.61


# -- crops that are no boxes ------------------------------------------------------------------------------------------


def warped(folder: Path, **changes: Any) -> PhotoViews:
    """Two global crops and two local ones of any shape, colours as they are."""
    settings = {"warp": {"scale": (0.6, 2.0)}, "locals": {"size": 16, "count": 2}, **changes}
    return views(folder, **settings)


def test_warps_lead_back_to_the_photograph(folder: Path) -> None:
    points = torch.tensor([[10.0, 8.0], [5.0, 12.0]], dtype=torch.float64)
    flips = set()
    for index in range(4):
        sample = warped(folder).sample(index, 0)
        for record, pixels in zip(sample.records, [*sample.globals, *sample.locals], strict=True):
            assert record.warp is not None
            seen = torch.stack(
                [pixels[:2, int(y) - 1 : int(y) + 1, int(x) - 1 : int(x) + 1].mean((1, 2)) for x, y in points.tolist()]
            )
            torch.testing.assert_close(seen.double() * 255 / 2 + 0.5, record.map.to_source(points), rtol=0, atol=0.3)
            flips.add(record.flips)
    assert flips == {(), (1,)}


def test_warped_crops_lie_inside_their_box_and_the_photograph(folder: Path) -> None:
    made = warped(folder)
    for index in range(50):
        for record in made.plan(index, 0):
            h, w = record.frame.size
            corners = record.map.to_source(torch.tensor([(0, 0), (w, 0), (w, h), (0, h)], dtype=torch.float64))
            box = record.frame.to_source(torch.tensor([(0, 0), (w, h)], dtype=torch.float64))
            assert (corners >= box[0] - 1e-6).all()
            assert (corners <= box[1] + 1e-6).all()
            assert (box[0] >= 0).all()
            assert (box[1] <= torch.tensor(record.frame.source_size[::-1])).all()


def test_warped_samples_repeat_and_records_replay(folder: Path) -> None:
    light: dict[str, Any] = {"augment": {"light": {}}}
    made = warped(folder, plain=False, **light)
    sample = made.sample(3, 1)
    again = pickle.loads(pickle.dumps(warped(folder, plain=False, **light)))
    assert again.sample(3, 1).records == sample.records == made.plan(3, 1)
    for record, pixels in zip(sample.records, [*sample.globals, *sample.locals], strict=True):
        stored = CropRecord.from_json(json.loads(json.dumps(record.to_json())))
        assert torch.equal(again.replay(stored), pixels)
    assert not torch.equal(sample.globals, made.sample(3, 2).globals)


def test_warped_global_crops_show_one_place_and_local_ones_lie_around_places_in_them(folder: Path) -> None:
    made = warped(folder, warp={"scale": (0.3, 0.8), "shift": 0.25, "any_turn": 0.2})
    shared, inside, over = [], [], []
    for index in range(60):
        first, second, *parts = made.plan(index, 0)
        middle = torch.tensor([[16.0, 16.0]], dtype=torch.float64)
        there = second.map.from_source(first.map.to_source(middle))
        shared.append(bool(((there > 0) & (there < 32)).all()))
        for record in parts:
            assert record.parent == (record.seed[-1] % 2)
            at = (first, second)[record.parent].map.from_source(record.map.to_source(middle / 2))
            inside.append(bool(((at > -1) & (at < 33)).all()))
            corners = torch.tensor([(0, 0), (16, 0), (16, 16), (0, 16)], dtype=torch.float64)
            edge = (first, second)[record.parent].map.from_source(record.map.to_source(corners))
            over.append(bool(((edge < -1) | (edge > 33)).any()))
    assert np.mean(shared) > 0.95
    assert all(inside)
    assert 0.1 < np.mean(over) < 0.6  # as the docs say: not all of them are parts


def test_a_small_photograph_is_shown_whole_and_flagged(folder: Path) -> None:
    made = warped(folder, warp={"scale": (9.0, 9.0), "rotate": 0, "any_turn": 0, "perspective": 0, "stretch": 1})
    record = made.plan(0, 0)[0]
    assert record.flags == (SHRUNK,)
    assert (record.start_zyx[0], record.size_zyx[0]) == (0, 80)


def test_photographs_may_be_taken_several_times_an_epoch(folder: Path) -> None:
    made = views(folder, per_photo=3)
    assert len(made) == 6
    samples = [made.plan(index, 0) for index in range(6)]
    assert [records[0].volume for records in samples] == ["b.png", "more/a.png"] * 3
    assert len({records[0].start_zyx + records[0].size_zyx for records in samples}) == 6


def test_a_photograph_is_read_once_while_it_is_held(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(path: Path) -> Any:
        read.append(path)
        return read_picture(path)

    monkeypatch.setattr(photos, "read_picture", counted)
    for keep_bytes, times in ((2**20, 2), (0, 6)):
        read.clear()
        made = PhotoViews(open_photos(folder), views(folder).config, keep_bytes=keep_bytes)
        for index in range(6):
            made.sample(index, 0)
        assert len(read) == times


def test_a_photograph_that_was_changed_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    made = views(tmp_path)
    Image.new("RGB", (30, 40)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="start again"):
        made.sample(0, 0)
