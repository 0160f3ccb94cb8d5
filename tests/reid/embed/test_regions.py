"""Boxes read from one map: exact shares by hand, distinct boxes give distinct vectors, masks count."""

import numpy as np
import pytest
import torch

from patchatlas.dense import encode
from patchatlas.encoders.fake import FakeEncoder
from patchatlas.errors import ShapeError, UsageError
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.grid import PatchGrid
from patchatlas.reid.embed.crops import CropEmbedder
from patchatlas.reid.embed.regions import RegionEmbedder, area_shares, mask_shares, pool_boxes

ENCODER = FakeEncoder(patch=(10, 10))


def boxes(*rows: tuple[float, float, float, float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 4)


def quilt(rows: int = 4, columns: int = 6, cell: int = 10) -> np.ndarray:
    colours = np.random.default_rng(3).integers(20, 256, (rows, columns, 3), np.uint8)
    return np.repeat(np.repeat(colours, cell, axis=0), cell, axis=1)


def test_shares_by_hand() -> None:
    grid = PatchGrid.on(Frame.whole((20, 30)), (10, 10))
    found = area_shares(grid, boxes((5, 5, 22.5, 10), (-10, 12, 2, 100), (40, 0, 50, 9)))
    assert found.tolist() == [
        [0.25, 0.5, 0.125, 0, 0, 0],
        [0, 0, 0, 0.2 * 0.8, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]


def test_shares_of_a_scaled_and_padded_frame() -> None:
    """Source 40 x 60 at half the size is 20 x 30, padded to 20 x 40 below patches of 20."""
    grid = PatchGrid.on(Frame.whole((40, 60)).resize((20, 30)).pad((0, 0), (0, 10)), (20, 20))
    torch.testing.assert_close(
        area_shares(grid, boxes((30, 0, 60, 40))), boxes((0, 0, 0, 0))[:, :2] + boxes((0.25, 0.5, 0, 0))[:, :2]
    )


def test_shares_sum_to_the_area_of_the_box() -> None:
    grid = PatchGrid.on(Frame.whole((60, 80)), (10, 10))
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(20, 2, generator=generator, dtype=torch.float64) * 30
    some = torch.cat([start, start + 1 + torch.rand(20, 2, generator=generator, dtype=torch.float64) * 25], dim=1)
    area = (some[:, 2:] - some[:, :2]).prod(dim=1) / 100
    torch.testing.assert_close(area_shares(grid, some).sum(dim=1), area)


@pytest.mark.parametrize("pooling", ["mean", "gem"])
def test_distinct_boxes_give_distinct_vectors(pooling) -> None:
    """Defect 5: every box of a frame pooled to the same embedding."""
    picture = quilt()
    some = boxes((0, 0, 10, 10), (10, 0, 20, 10), (40, 30, 60, 40), (5, 5, 25, 35))
    vectors, valid = RegionEmbedder(ENCODER, pooling=pooling).embed_boxes(picture, some)
    assert bool(valid.all())
    likeness = vectors @ vectors.T
    assert float(likeness.fill_diagonal_(0).max()) < 0.9999
    colour = torch.tensor(picture[0, 15] / 255).float()
    torch.testing.assert_close(vectors[1], colour / colour.norm())


def test_gem_of_a_box_by_hand() -> None:
    picture = np.zeros((10, 20, 3), np.uint8)
    picture[:, :10], picture[:, 10:] = (255, 0, 0), (0, 255, 0)
    vectors, _ = RegionEmbedder(ENCODER, pooling="gem").embed_boxes(picture, boxes((0, 0, 15, 10)))
    want = torch.tensor([2 ** (1 / 3), 1.0, 0.0])  # cubes count 2 to 1
    torch.testing.assert_close(vectors[0], want / want.norm())


def test_a_box_is_like_its_crop_more_than_like_others() -> None:
    picture = quilt(8, 12)
    some = boxes((0, 0, 30, 40), (50, 10, 80, 60), (90, 30, 120, 80))
    regions, _ = RegionEmbedder(ENCODER).embed_boxes(picture, some)
    crops = [picture[y0:y1, x0:x1] for x0, y0, x1, y1 in some.int().tolist()]
    alone, _ = CropEmbedder(ENCODER, pooling="mean", size=50).embed_crops(crops)
    assert (regions @ alone.T).argmax(dim=1).tolist() == [0, 1, 2]
    torch.testing.assert_close((regions * alone).sum(dim=1), torch.ones(3), atol=1e-3, rtol=0)


def test_a_frame_of_any_size_is_padded_and_scaled() -> None:
    picture = quilt()[:37, :53]
    some = boxes((40, 30, 53, 37))
    want = torch.tensor(picture[30:37, 40:53].mean(axis=(0, 1)) / 255).float()
    own, _ = RegionEmbedder(ENCODER).embed_boxes(picture, some)
    # The last column of patches is mostly padding, which repeats the rim.
    torch.testing.assert_close(own[0], want / want.norm(), atol=0.02, rtol=0)
    larger, valid = RegionEmbedder(ENCODER, size=100).embed_boxes(picture, some)
    assert valid.tolist() == [True]
    assert float(larger[0] @ own[0]) > 0.95  # a third of a patch of the row above is in it at this size
    with pytest.raises(UsageError, match="a frame size of 105 px is no multiple"):
        RegionEmbedder(ENCODER, size=105)


def test_masks_leave_the_background_out() -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:, :20], picture[:, 20:] = (255, 0, 0), (0, 0, 255)
    mask = torch.zeros(2, 40, 60, dtype=torch.bool)
    mask[0, :, :20] = True
    mask[1, :, 15:25] = True
    both = boxes((10, 0, 30, 40)).expand(2, 4)
    vectors, valid = RegionEmbedder(ENCODER).embed_boxes(picture, both, masks=mask)
    assert valid.tolist() == [True, True]
    torch.testing.assert_close(vectors[0], torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(vectors[1], torch.tensor([0.5**0.5, 0.0, 0.5**0.5]))
    empty = RegionEmbedder(ENCODER).embed_boxes(picture, both, masks=torch.zeros_like(mask))
    assert empty[1].tolist() == [False, False]


def test_mask_shares_by_hand() -> None:
    grid = PatchGrid.on(Frame.whole((20, 15)).pad((0, 0), (0, 5)), (10, 10))
    mask = torch.zeros(1, 20, 15, dtype=torch.bool)
    mask[0, 5:, 8:] = True
    torch.testing.assert_close(mask_shares(grid, mask), torch.tensor([[0.1, 0.25, 0.2, 0.5]]).double())
    with pytest.raises(ShapeError, match=r"masks of \(9, 9\) do not lie on a source of \(20, 15\)"):
        mask_shares(grid, torch.ones(1, 9, 9, dtype=torch.bool))


def test_a_box_outside_is_marked_and_shifts_nobody() -> None:
    picture = quilt()
    vectors, valid = RegionEmbedder(ENCODER).embed_boxes(
        picture, boxes((0, 0, 10, 10), (70, 0, 80, 10), (10, 10, 10, 20), (10, 0, 20, 10))
    )
    assert valid.tolist() == [True, False, False, True]
    assert bool(vectors[1:3].isnan().all())
    alone, _ = RegionEmbedder(ENCODER).embed_boxes(picture, boxes((10, 0, 20, 10)))
    torch.testing.assert_close(vectors[3], alone[0])
    assert RegionEmbedder(ENCODER).embed_boxes(picture, boxes())[0].shape == (0, 3)


def test_the_class_token_is_refused() -> None:
    with pytest.raises(UsageError, match="of the whole frame and alike for all boxes"):
        RegionEmbedder(ENCODER, pooling="cls+mean")
    with pytest.raises(UsageError, match="pooling cls takes the class token"):
        pool_boxes(encode(quilt(), ENCODER), boxes((0, 0, 9, 9)), pooling="cls")


def test_regions_and_crops_are_different_spaces() -> None:
    """Their tokens saw different surroundings, so their stamps differ."""
    assert RegionEmbedder(ENCODER).stamp != CropEmbedder(ENCODER, pooling="mean", size=50).stamp
    assert RegionEmbedder(ENCODER).stamp != RegionEmbedder(ENCODER, size=100).stamp
