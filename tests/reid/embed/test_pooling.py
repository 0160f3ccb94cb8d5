"""Pooling by hand, and rows that are not vectors."""

import math

import pytest
import torch

from patchatlas.encoders.fake import FakeEncoder
from patchatlas.encoders.protocol import Tokens
from patchatlas.errors import UsageError
from patchatlas.reid.embed.pooling import in_rows, patch_mean, pool, pooled_dim, unit_rows

PATCHES = torch.tensor([[[1.0, -2.0], [3.0, 0.0], [100.0, 100.0]]])
SHARES = torch.tensor([[1.0, 3.0, 0.0]])
TOKENS = Tokens(PATCHES, cls=torch.tensor([[0.0, 7.0]]))


def test_the_mean_counts_patches_by_their_share() -> None:
    torch.testing.assert_close(patch_mean(PATCHES, SHARES), torch.tensor([[2.5, -0.5]]))


def test_gem_by_hand_with_signs() -> None:
    """((1 + 3 * 27) / 4)^(1/3), and -((8 + 0) / 4)^(1/3)."""
    want = torch.tensor([[20.5 ** (1 / 3), -(2.0 ** (1 / 3))]])
    torch.testing.assert_close(pool(TOKENS, SHARES, pooling="gem"), want)


def test_a_map_that_all_share_is_read_as_copies_of_it_would_be() -> None:
    shares = torch.tensor([[1.0, 0.0, 1.0], [0.0, 2.0, 0.0]])
    copies = patch_mean(PATCHES.expand(2, -1, -1), shares, power=3.0)
    torch.testing.assert_close(patch_mean(PATCHES[0], shares, power=3.0), copies)


def test_cls_and_mean_count_alike() -> None:
    torch.testing.assert_close(pool(TOKENS, SHARES, pooling="cls"), torch.tensor([[0.0, 7.0]]))
    both = pool(TOKENS, SHARES, pooling="cls+mean")
    length = math.hypot(2.5, 0.5)
    torch.testing.assert_close(both, torch.tensor([[0.0, 1.0, 2.5 / length, -0.5 / length]]))


def test_the_length_of_a_vector_comes_from_the_encoder() -> None:
    """Defect 21: only 768 and 1024 were taken."""
    spec = FakeEncoder(channels=5).spec
    assert [pooled_dim(spec, one) for one in ("cls", "mean", "gem", "cls+mean")] == [5, 5, 5, 10]
    with pytest.raises(UsageError, match=r"pooling cls\+mean needs a class token, fake has none"):
        pooled_dim(FakeEncoder(has_cls=False).spec, "cls+mean")


def test_a_row_without_direction_is_never_a_vector() -> None:
    """Defect 7: zero vectors went unnoticed, and each became an identity."""
    nan, inf = math.nan, math.inf
    vectors, valid = unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0], [nan, 1.0], [inf, 1.0]]))
    assert valid.tolist() == [True, False, False, False]
    torch.testing.assert_close(vectors[0], torch.tensor([0.6, 0.8]))
    assert bool(vectors[1:].isnan().all())


def test_no_share_at_all_is_no_vector() -> None:
    _, valid = unit_rows(patch_mean(PATCHES, torch.zeros(1, 3)))
    assert valid.tolist() == [False]


def test_rows_stay_where_they_belong() -> None:
    vectors, valid = in_rows(torch.tensor([[2.0, 0.0], [0.0, 5.0]]), [3, 1], 4)
    assert valid.tolist() == [False, True, False, True]
    assert vectors[1].tolist() == [0, 1]
    assert vectors[3].tolist() == [1, 0]
    assert in_rows(torch.zeros(0, 2), [], 0)[0].shape == (0, 2)
