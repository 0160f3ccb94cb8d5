"""Places of patches in other crops: by hand for boxes, by what is to be seen there for any crop of a photograph."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from patchatlas.geometry.frame import Frame
from patchatlas.geometry.sampling import sample
from patchatlas.pretrain.crops.config import CropConfig, PhotoAugment, PhotoCropConfig
from patchatlas.pretrain.crops.photos import PhotoViews, open_photos
from patchatlas.pretrain.crops.records import Batch, CropRecord, collate
from patchatlas.pretrain.crops.views import Views
from patchatlas.pretrain.matches import Matches, find_matches
from tests.pretrain.crops.memory import MemoryCache, blob, small_config


def record(frame: Frame, volume: str = "v") -> CropRecord:
    return CropRecord(
        volume=volume,
        start_zyx=(0,) * frame.ndim,
        size_zyx=frame.size,
        spacing=(),
        fg_ratio=1.0,
        n_valid=1,
        flags=(),
        parent=-1,
        flips=(),
        frame=frame,
        threshold="body",
    )


def batch_of(samples: Sequence[Sequence[Frame]], patches: int, pad: torch.Tensor | None = None) -> Batch:
    """A batch with the records of these crops, all global, and no pixels to speak of."""
    g, b, size = len(samples[0]), len(samples), samples[0][0].size
    share = torch.ones(g, b, patches)
    return Batch(
        globals=torch.zeros(g, b, 1, *size),
        locals=torch.zeros(0, b, 1, *size),
        global_foreground=share,
        local_foreground=torch.zeros(0, b, 1),
        global_ratio=torch.ones(g, b),
        local_ratio=torch.zeros(0, b),
        global_pad=torch.zeros(g, b, patches, dtype=torch.bool) if pad is None else pad,
        local_pad=torch.zeros(0, b, 1, dtype=torch.bool),
        parent=torch.zeros(0, b, dtype=torch.int64),
        records=tuple(tuple(record(frame, f"v{k}") for frame in frames) for k, frames in enumerate(samples)),
    )


WHOLE = Frame.whole((64, 80))
ONE = WHOLE.crop((0, 0), (32, 32))


def places(found: Matches, e: int = 0) -> list[list[tuple[float, float] | None]]:
    """Row by row, (x, y) of each valid place of the first sample."""
    pairs = zip(found.cells[e, 0].tolist(), found.valid[e, 0].tolist(), strict=True)
    rows = [tuple(at) if ok else None for at, ok in pairs]
    return [rows[4 * r : 4 * r + 4] for r in range(4)]


def test_a_crop_further_right_and_down_by_hand() -> None:
    # 16 columns and 8 rows further: two cells and one. Cell (r, c) is cell (r - 1, c - 2) there.
    found = find_matches(batch_of([(ONE, WHOLE.crop((8, 16), (32, 32)))], 16), (8, 8), margin=0.25)
    assert found.pairs == ((0, 1), (1, 0))
    assert found.grid == (4, 4)
    row = [[None, None, (0.5, r - 0.5), (1.5, r - 0.5)] for r in range(1, 4)]
    assert places(found, 0) == [[None] * 4, *row]
    back = [[(2.5, r + 1.5), (3.5, r + 1.5), None, None] for r in range(3)]
    assert places(found, 1) == [*back, [None] * 4]


def test_a_mirrored_crop_of_half_the_size_by_hand() -> None:
    # The left upper quarter, twice as large and mirrored: cell 0.5 lies at 2 * 0.5 = 1, mirrored 3, in it.
    other = WHOLE.crop((0, 0), (16, 16)).resize((32, 32)).flip(1)
    found = find_matches(batch_of([(ONE, other)], 16), (8, 8), margin=0.25)
    none = [None] * 4
    assert places(found, 0) == [
        [(3, 1), (1, 1), None, None],
        [(3, 3), (1, 3), None, None],
        none,
        none,
    ]
    assert places(found, 1)[3] == [(1.75, 1.75), (1.25, 1.75), (0.75, 1.75), (0.25, 1.75)]


def test_the_margin_is_in_cells() -> None:
    other = WHOLE.crop((0, 2), (32, 32))  # a quarter of a cell: the first centre lies at 0.25
    for margin, columns in ((0.25, 4), (0.26, 3)):
        found = find_matches(batch_of([(ONE, other)], 16), (8, 8), margin=margin)
        assert int(found.valid[0].sum()) == 4 * columns


def test_padding_and_what_lies_outside_are_left_out() -> None:
    above = WHOLE.crop((-8, 0), (32, 32))  # a row of patches above the picture
    found = find_matches(batch_of([(above, above)], 16), (8, 8), margin=0.25)
    assert found.valid[0, 0].reshape(4, 4).any(1).tolist() == [False, True, True, True]
    pad = torch.zeros(2, 1, 16, dtype=torch.bool)
    pad[1, 0, 6] = True  # row 1, column 2 of the second crop
    found = find_matches(batch_of([(ONE, WHOLE.crop((8, 8), (32, 32)))], 16, pad), (8, 8), margin=0.25)
    assert not found.valid[0, 0, 11]  # row 2, column 3 of the first falls on it
    assert not found.valid[1, 0, 6]
    assert int(found.valid.sum()) == 2 * 9 - 2


def test_volumes_by_hand() -> None:
    whole = Frame.whole((32, 32, 32))
    one, other = whole.crop((0, 0, 0), (16, 16, 16)), whole.crop((8, 0, 0), (16, 16, 16)).flip(2)
    found = find_matches(batch_of([(one, other)], 8), (8, 8, 8), margin=0.25)
    assert found.valid[0, 0].tolist() == [False] * 4 + [True] * 4  # the upper half in z
    assert found.cells[0, 0, 4].tolist() == [1.5, 0.5, 0.5]  # x mirrored, z one cell less
    assert found.cells[0, 0, 5].tolist() == [0.5, 0.5, 0.5]


def test_three_crops_have_six_pairs_and_one_has_none() -> None:
    found = find_matches(batch_of([(ONE,) * 3] * 2, 16), (8, 8), margin=0.0)
    assert found.pairs == ((0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1))
    assert found.cells.shape == (6, 2, 16, 2)
    assert found.valid.all()
    assert found.source.tolist() == [0, 1]
    alone = find_matches(batch_of([(ONE,)], 16), (8, 8), margin=0.0)
    assert alone.cells.shape == (0, 1, 16, 2)


def test_hidden_patches_are_left_out_on_both_sides() -> None:
    found = find_matches(batch_of([(ONE, WHOLE.crop((0, 4), (32, 32)))], 16), (8, 8), margin=0.5)
    assert found.without(torch.zeros(2, 1, 16, dtype=torch.bool)) is found
    assert int(found.valid[0, 0, :4].sum()) == 3  # columns 1 to 3, at 1.0, 2.0 and 3.0: between two cells
    hidden = torch.zeros(2, 1, 16, dtype=torch.bool)
    hidden[1, 0, 1] = True
    assert found.without(hidden).valid[0, 0, :4].tolist() == [False, False, False, True]
    assert found.without(hidden).valid[1, 0, :4].tolist() == [True, False, True, False]
    assert found.valid[0, 0, 1]  # as it was


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture in which red is the column and green the row, and a larger one."""
    folder = tmp_path_factory.mktemp("ramps")
    for name, (rows, columns) in {"a.png": (120, 126), "b.png": (250, 240)}.items():
        pixels = np.zeros((rows, columns, 3), np.uint8)
        step = 2 if rows < 128 else 1
        pixels[..., 0], pixels[..., 1] = step * np.arange(columns), step * np.arange(rows)[:, None]
        Image.fromarray(pixels).save(folder / name)
    return folder


@pytest.mark.parametrize("flip", [0.0, 0.5])
@pytest.mark.parametrize("boxes", [False, True])
def test_the_same_is_to_be_seen_at_both_places(folder: Path, flip: float, boxes: bool) -> None:
    plain = PhotoAugment.none().model_dump() | {"flip": flip}
    settings: dict[str, Any] = {
        "patch": 8,
        "globals": {"size": (48, 32), "blur_prob": (0.0,), "solarise_prob": (0.0,)},
        "locals": {"count": 0},
        "augment": plain,
        "per_photo": 2,
    }
    if not boxes:
        settings["warp"] = {"scale": (0.5, 3.0), "any_turn": 0.3}
    views = PhotoViews(open_photos(folder), PhotoCropConfig.model_validate(settings))
    batch = collate([views.sample(k, 0) for k in range(12)])
    found = find_matches(batch, (8, 8), margin=0.25)
    assert 0.2 < float(found.valid.float().mean()) < 0.95
    assert found.source.tolist() == [0, 1] * 6
    centres = torch.stack(torch.meshgrid(torch.arange(6), torch.arange(4), indexing="ij")[::-1], dim=-1)
    centres = (centres.reshape(-1, 2) + 0.5) * 8
    for e, (one, other) in enumerate(found.pairs):
        for b in range(12):
            ok = found.valid[e, b]
            here = sample(batch.globals[one, b, :2], centres[ok])
            there = sample(batch.globals[other, b, :2], found.cells[e, b][ok] * 8)
            assert float((here - there).abs().max()) * 255 < 0.8 if ok.any() else True


def test_volumes_show_the_same_at_both_places() -> None:
    rng = np.random.default_rng(0)
    views = Views(MemoryCache((blob(rng),)), CropConfig.model_validate(small_config()))
    batch = collate([views.sample(0, epoch) for epoch in range(4)])
    found = find_matches(batch, views.config.patch, margin=0.25)
    assert found.valid.any()
    for b, records in enumerate(batch.records):
        at = records[1].frame.to_source(found.cells[0, b].double() * views.config.patch[0])
        grid = found.grid[0]
        index = torch.cartesian_prod(*[torch.arange(grid)] * 3).flip(1).double() + 0.5
        source = records[0].frame.to_source(index * views.config.patch[0])
        torch.testing.assert_close(at[found.valid[0, b]], source[found.valid[0, b]], rtol=0, atol=1e-4)
