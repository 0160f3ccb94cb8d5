"""Crops are laid before the encoder whole, in RGB, and a bad one harms nobody else."""

import numpy as np
import pytest
import torch

from patchatlas.encoders.fake import CLS_VALUE, FakeEncoder
from patchatlas.encoders.protocol import Tokens
from patchatlas.encoders.vit import ViTConfig
from patchatlas.errors import UsageError
from patchatlas.reid.embed.crops import CropEmbedder, cut, letterbox
from tests.encoders.test_vit import encoder as vit


def flat(h: int, w: int, colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((h, w, 3), colour, np.uint8)


def noise(h: int, w: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)


def embedder(**changes: object) -> CropEmbedder:
    return CropEmbedder(FakeEncoder(), **{"pooling": "mean", "size": 64, **changes})


@pytest.mark.parametrize(
    ("size_hw", "scaled", "size"),
    [
        ((300, 100), (64, 21), (64, 32)),
        ((100, 300), (21, 64), (32, 64)),
        ((50, 50), (64, 64), (64, 64)),
        ((400, 2), (64, 1), (64, 16)),
        ((20, 16), (64, 51), (64, 64)),
    ],
)
def test_the_whole_crop_is_seen_in_its_shape(size_hw, scaled, size) -> None:
    """No centre crop, as the processors of V-JEPA 2 and DINOv2 make it, and no squash, as that of DINOv3."""
    frame = letterbox(size_hw, long_side=64, patch=(16, 16))
    assert frame.size == size
    spans = frame.content()
    assert tuple(high - low for low, high in spans) == scaled
    for (low, high), n in zip(spans, size, strict=True):
        assert abs(low - (n - high)) <= 1  # in the middle


def test_a_box_is_cut_with_all_pixels_it_touches() -> None:
    picture = noise(20, 30)
    np.testing.assert_array_equal(cut(picture, (2.3, 4.0, 7.1, 9.0)), picture[4:9, 2:8])
    np.testing.assert_array_equal(cut(picture, (-5.0, 15.0, 3.0, 99.0)), picture[15:, :3])
    assert cut(picture, (40.0, 2.0, 50.0, 8.0)).size == 0
    assert cut(picture, (5.0, -9.0, 8.0, -2.0)).size == 0
    assert cut(picture, (-9.0, 5.0, -2.0, 8.0)).size == 0


def test_top_and_bottom_of_a_tall_crop_count_as_the_middle_does() -> None:
    """Of a 100 x 300 person V-JEPA 2's own processor keeps 29 % of the height."""
    crop = flat(300, 100, (0, 0, 0))
    crop[:100], crop[100:200], crop[200:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    vectors, _ = embedder().embed_crops([crop])
    torch.testing.assert_close(vectors[0], torch.full((3,), 3**-0.5), atol=5e-3, rtol=0)


def test_padding_counts_only_as_far_as_it_shows_crop() -> None:
    class Marked(FakeEncoder):
        """Paints its outermost columns of patches."""

        def __call__(self, pixels: torch.Tensor, /) -> Tokens:
            found = super().__call__(pixels)
            columns = pixels.shape[3] // 16
            grid = found.patches.reshape(len(pixels), -1, columns, 3).clone()
            grid[:, :, [0, -1]] = torch.tensor([0.0, 0.0, 1.0])
            return Tokens(grid.flatten(1, 2), found.cls, found.registers)

    crop = flat(64, 40, (255, 0, 0))  # 4 x 3 patches, 4 px of padding left and right: columns count 12, 16, 12
    vectors, _ = CropEmbedder(Marked(), pooling="mean", size=64).embed_crops([crop])
    want = torch.tensor([16.0, 0.0, 24.0])
    torch.testing.assert_close(vectors[0], want / want.norm())


def test_red_is_red() -> None:
    """Defects 9 and 10: BGR in one place and RGB in another."""
    vectors, _ = embedder().embed_crops([flat(40, 20, (255, 0, 0)), flat(40, 20, (0, 0, 255))])
    torch.testing.assert_close(vectors, torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))


def test_an_empty_crop_is_marked_and_shifts_nobody() -> None:
    """Defects 6 to 8: it made zeros of its whole batch, zeros were taken for vectors, rows moved up."""
    crops = [noise(40, 20, 1), flat(0, 20, (0, 0, 0)), noise(20, 40, 2), flat(40, 1, (9, 9, 9)), noise(40, 20, 3)]
    one = embedder()
    vectors, valid = one.embed_crops(crops)
    assert valid.tolist() == [True, False, True, False, True]
    assert bool(vectors[[1, 3]].isnan().all())
    for row in (0, 2, 4):
        torch.testing.assert_close(vectors[row], one.embed_crops([crops[row]])[0][0])
    assert not torch.allclose(vectors[0], vectors[4], atol=1e-5)
    torch.testing.assert_close(torch.linalg.vector_norm(vectors[valid], dim=1), torch.ones(3))
    assert one.embed_crops([])[0].shape == (0, 3)


def test_a_black_crop_of_an_encoder_that_sees_nothing_is_marked() -> None:
    vectors, valid = embedder().embed_crops([flat(40, 20, (0, 0, 0)), flat(40, 20, (9, 9, 9))])
    assert valid.tolist() == [False, True]
    assert bool(vectors[0].isnan().all())


def test_numbers_that_are_not_finite_are_marked_row_by_row() -> None:
    class Broken(FakeEncoder):
        def __call__(self, pixels: torch.Tensor, /) -> Tokens:
            found = super().__call__(pixels)
            found.patches[0, 0, 0] = torch.nan
            return found

    broken = CropEmbedder(Broken(), pooling="mean", size=64)
    assert broken.embed_crops([noise(40, 20, k) for k in range(3)])[1].tolist() == [False, True, True]


def test_an_embedding_is_one_vector_and_follows_the_pooling() -> None:
    """Defect 3: a matrix of tokens was listed as an embedding; defect 21: two lengths were allowed."""
    crop = noise(40, 20)
    made = {kind: embedder(pooling=kind).embed_crops([crop])[0] for kind in ("cls", "mean", "gem", "cls+mean")}
    assert {kind: tuple(one.shape) for kind, one in made.items()} == {
        "cls": (1, 3),
        "mean": (1, 3),
        "gem": (1, 3),
        "cls+mean": (1, 6),
    }
    assert embedder(pooling="cls+mean").dim == 6
    torch.testing.assert_close(made["cls"], torch.full((1, 3), CLS_VALUE / 3**0.5))
    half = 0.5**0.5
    torch.testing.assert_close(made["cls+mean"], torch.cat([made["cls"] * half, made["mean"] * half], dim=1))


def test_a_vector_does_not_depend_on_its_batch() -> None:
    config = ViTConfig(family="dinov3", patch=(16, 16), dim=48, depth=2, heads=3, registers=4, ffn_hidden=96)
    network = vit(config, layer=1, norm="final")
    crops = [noise(40 + 7 * k, 20 + k % 3 * 9, k) for k in range(7)]
    runs = [
        CropEmbedder(network, pooling="cls+mean", size=64, batch=batch).embed_crops(crops)[0] for batch in (1, 2, 16)
    ]
    for other in runs[1:]:
        torch.testing.assert_close(other, runs[0], atol=1e-5, rtol=0)


def test_the_stamp_names_what_changes_the_vectors() -> None:
    stamps = {
        one.stamp.digest
        for one in (
            embedder(),
            embedder(pooling="gem"),
            embedder(size=32),
            CropEmbedder(FakeEncoder(registers=0), pooling="mean", size=64),
        )
    }
    assert len(stamps) == 4
    assert embedder(batch=1).stamp == embedder(batch=9).stamp


def test_a_size_that_is_not_whole_patches_is_refused() -> None:
    with pytest.raises(UsageError, match=r"crop size of 70 px is no multiple of the patch 16 of fake; take 64"):
        embedder(size=70)
