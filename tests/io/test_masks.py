"""Masks: mel's rule, upright like the picture, and which patches they leave."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from patchatlas.errors import FormatError, ShapeError
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.grid import PatchGrid
from patchatlas.io.masks import Mask, mask_path, read_mask

ROTOMAP = Path(__file__).parents[1] / "data" / "mel" / "rotomap1"


def mask_of(inside: torch.Tensor) -> Mask:
    return Mask(inside, Path("photo.jpg.mask.png"), "0" * 64)


def save(folder: Path, levels: np.ndarray) -> Path:
    Image.fromarray(levels).save(folder / "photo.jpg.mask.png")
    return folder / "photo.jpg"


def test_its_name_is_that_of_the_picture_and_more():
    assert mask_path("a/photo.JPG") == Path("a/photo.JPG.mask.png")


def test_a_picture_without_a_mask_has_none(tmp_path):
    assert read_mask(tmp_path / "photo.jpg", size_hw=(4, 4)) is None


def test_the_example_of_mel():
    mask = read_mask(ROTOMAP / "image1.jpg", size_hw=(72, 96))
    assert mask is not None
    with Image.open(ROTOMAP / "image1.jpg.mask.png") as stored:
        assert np.array_equal(mask.inside.numpy(), np.array(stored) > 127)
    assert 0 < mask.inside.float().mean() < 1


def test_127_is_outside_and_128_inside(tmp_path):
    picture = save(tmp_path, np.array([[0, 127], [128, 255]], dtype=np.uint8))
    mask = read_mask(picture, size_hw=(2, 2))
    assert mask is not None
    assert mask.inside.tolist() == [[False, False], [True, True]]


def test_a_mask_that_lies_as_the_raster_is_stored_is_told(tmp_path):
    picture = save(tmp_path, np.full((4, 6), 255, dtype=np.uint8))
    with pytest.raises(FormatError, match=r"6 x 4 pixels, the upright picture has 4 x 6.*turned by a quarter"):
        read_mask(picture, size_hw=(6, 4))


def test_a_mask_of_another_size_is_refused(tmp_path):
    picture = save(tmp_path, np.full((4, 6), 255, dtype=np.uint8))
    with pytest.raises(FormatError, match=r"make the mask anew, or remove it to search the whole picture\.$"):
        read_mask(picture, size_hw=(8, 12))


def test_a_coloured_mask_is_refused(tmp_path):
    picture = save(tmp_path, np.array([[[255, 255, 255], [255, 0, 255]]], dtype=np.uint8))
    with pytest.raises(FormatError, match="coloured"):
        read_mask(picture, size_hw=(1, 2))


def test_a_damaged_mask_and_a_dangling_link_are_refused_not_passed_over(tmp_path):
    mask = tmp_path / "photo.jpg.mask.png"
    mask.write_bytes(b"no picture")
    with pytest.raises(FormatError, match="mask"):
        read_mask(tmp_path / "photo.jpg", size_hw=(1, 2))
    mask.unlink()
    mask.symlink_to(tmp_path / "nowhere")
    with pytest.raises(FormatError, match="no picture file"):
        read_mask(tmp_path / "photo.jpg", size_hw=(1, 2))


def test_patches_that_are_mostly_inside_count():
    inside = torch.zeros(4, 8, dtype=torch.bool)
    inside[:, :5] = True  # patch 0 wholly, patch 1 a quarter
    inside[2:, 5] = True  # the lower one half: 2 of 4 columns in 2 rows
    grid = PatchGrid.on(Frame.whole((4, 8)), (2, 4))
    assert mask_of(inside).over(grid).tolist() == [[True, False], [True, True]]


def test_patches_of_a_scaled_shifted_and_flipped_picture():
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[:, :8] = True
    half = Frame.whole((16, 16)).resize((8, 8))
    assert mask_of(inside).over(PatchGrid.on(half, (4, 4))).tolist() == [[True, False]] * 2
    assert mask_of(inside).over(PatchGrid.on(half.flip(1), (4, 4))).tolist() == [[False, True]] * 2
    moved = half.crop((Fraction(0), Fraction(-3)), (8, 12))  # three columns of padding, which repeat the border
    assert mask_of(inside).over(PatchGrid.on(moved, (4, 4))).tolist() == [[True, True, False]] * 2


def test_patches_that_overlap():
    inside = torch.zeros(4, 8, dtype=torch.bool)
    inside[:, :4] = True
    grid = PatchGrid(Frame.whole((4, 8)), patch=(4, 4), stride=(4, 1), offset=(0, 1), shape=(1, 4))
    assert mask_of(inside).over(grid).tolist() == [[True, True, False, False]]  # 3, 2, 1 and 0 of 4 columns


def test_a_grid_of_another_picture_is_refused():
    with pytest.raises(ShapeError, match="not of"):
        mask_of(torch.ones(4, 4, dtype=torch.bool)).over(PatchGrid.on(Frame.whole((8, 8)), (4, 4)))
