"""Weights of pairs and tokens, worked by hand, and the six solutions as switches of one mechanism."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchatlas.errors import ShapeError
from patchatlas.pretrain.losses.config import DinoConfig, ForegroundConfig
from patchatlas.pretrain.losses.weights import (
    background_tokens,
    counted_tokens,
    crop_weights,
    mean_total,
    pair_weights,
    ramp,
    token_weights,
)

PLAIN, DINO = ForegroundConfig(), DinoConfig()


def column(*ratios: float) -> torch.Tensor:
    """Views of one sample."""
    return torch.tensor(ratios, dtype=torch.float32)[:, None]


def test_without_switches_every_pair_of_different_views_counts_one() -> None:
    weights = pair_weights(column(0.1, 0.9), column(0.0, 0.5, 1.0), dino=DINO, foreground=PLAIN)
    assert weights.values[..., 0].tolist() == [[0, 1], [1, 0], [1, 1], [1, 1], [1, 1]]
    assert float(weights.total) == 8


def test_the_mean_is_that_of_the_whole_step_where_it_is_given() -> None:
    mean = ForegroundConfig(weighting="mean")
    alone = pair_weights(column(0.2, 0.4), column(), dino=DINO, foreground=mean)
    told = pair_weights(column(0.2, 0.4), column(), dino=DINO, foreground=mean, mean_ratio=torch.tensor(0.5))
    torch.testing.assert_close(alone.values[:, :, 0], torch.tensor([[0, 0.3], [0.3, 0]]))
    torch.testing.assert_close(told.values[:, :, 0], torch.tensor([[0, 0.5], [0.5, 0]]))


def test_locals_by_a_scale_or_only_with_their_parent() -> None:
    parent = torch.tensor([[0], [1]])
    dino = DinoConfig(local_scale=0.5, local_pairs="parent")
    weights = pair_weights(column(1, 1), column(1, 1), dino=dino, foreground=PLAIN, parent=parent)
    assert weights.values[..., 0].tolist() == [[0, 1], [1, 0], [0.5, 0], [0, 0.5]]
    with pytest.raises(ShapeError, match="parent of every local"):
        pair_weights(column(1, 1), column(1, 1), dino=dino, foreground=PLAIN)


def test_pairs_weigh_by_the_ramp_of_both_ratios() -> None:
    foreground = ForegroundConfig(weighting="pair", ramp=(0.1, 0.5))
    weights = pair_weights(column(0.3, 0.9), column(0.2, 0.0), dino=DINO, foreground=foreground)
    want = [[0, 0.5], [0.5, 0], [0.125, 0.25], [0, 0]]  # g: 0.5, 1, 0.25, 0
    torch.testing.assert_close(weights.values[..., 0], torch.tensor(want))
    assert float(weights.total) == pytest.approx(1.375)


def test_the_mean_of_ratios_is_one_number_for_the_batch() -> None:
    # The named arm: an air crop and a body crop get the same weight, and the sum is divided by the number of pairs.
    ratios = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    weights = pair_weights(ratios, torch.zeros(0, 2), dino=DINO, foreground=ForegroundConfig(weighting="mean"))
    assert weights.values[0, 1].tolist() == [0.5, 0.5]
    assert float(weights.total) == 4
    pair = pair_weights(ratios, torch.zeros(0, 2), dino=DINO, foreground=ForegroundConfig(weighting="pair"))
    assert pair.values[0, 1].tolist() == [0, 1]


def test_a_poor_local_is_compared_with_the_rich_ones() -> None:
    foreground = ForegroundConfig(hierarchical=True, hierarchical_below=0.2)
    weights = pair_weights(column(0.5, 0.5), column(0.1, 0.6, 0.3), dino=DINO, foreground=foreground)
    want = [
        [0, 1, 0, 0, 0],
        [1, 0, 0, 0, 0],
        [0, 0, 0, 1, 1],  # what it had with two globals, now with two locals
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
    ]
    assert weights.values[..., 0].tolist() == want


def test_poor_locals_among_themselves_stay_with_the_globals() -> None:
    foreground = ForegroundConfig(hierarchical=True)
    weights = pair_weights(column(0.5, 0.5), column(0.1, 0.0), dino=DINO, foreground=foreground)
    assert weights.values[2:, :2, 0].tolist() == [[1, 1], [1, 1]]
    assert not weights.values[:, 2:].any()


ratio_tables = st.integers(1, 3).flatmap(
    lambda b: st.tuples(
        st.lists(st.lists(st.floats(0, 1, width=32), min_size=b, max_size=b), min_size=2, max_size=3),
        st.lists(st.lists(st.floats(0, 1, width=32), min_size=b, max_size=b), min_size=1, max_size=4),
    )
)


@given(ratio_tables, st.floats(0.05, 1))
def test_hierarchical_matching_moves_weight_and_makes_none(tables: tuple[list, list], below: float) -> None:
    globals_, locals_ = (torch.tensor(table) for table in tables)
    plain = pair_weights(globals_, locals_, dino=DINO, foreground=PLAIN).values
    moved = pair_weights(
        globals_, locals_, dino=DINO, foreground=ForegroundConfig(hierarchical=True, hierarchical_below=below)
    ).values
    torch.testing.assert_close(moved.sum(1), plain.sum(1))  # of every student view
    assert not moved[: len(globals_), len(globals_) :].any()
    rich = locals_ >= below
    assert not moved[len(globals_) :, len(globals_) :][:, ~rich.any(1)].any()  # no target from a poor local
    assert not torch.diagonal(moved, dim1=0, dim2=1).any()


def test_ramp_is_clipped_and_straight() -> None:
    assert ramp(torch.tensor([0.0, 0.1, 0.3, 0.5, 0.9]), 0.1, 0.5).tolist() == pytest.approx([0, 0, 0.5, 1, 1])


def test_crops_weigh_by_the_ramp_only_with_pair_weights() -> None:
    ratio = torch.tensor([[0.0, 0.5]])
    assert crop_weights(ratio, PLAIN).tolist() == [[1, 1]]
    assert crop_weights(ratio, ForegroundConfig(weighting="pair")).tolist() == [[0, 1]]


def test_tokens_count_alike_within_a_crop_and_crops_alike() -> None:
    masked = torch.tensor([[[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]], dtype=torch.bool)
    weights = token_weights(masked, torch.ones_like(masked))
    assert weights.values[0].tolist() == [[0.5, 0.5, 0, 0], [0.25] * 4, [0] * 4]
    assert float(weights.total) == 3  # a crop without a mask is a crop, as in DINOv2


def test_background_and_padding_leave_the_patch_terms() -> None:
    masked = torch.tensor([[[1, 1, 1, 0], [1, 1, 0, 0]]], dtype=torch.bool)
    share = torch.tensor([[[0.5, 0.0, 0.05, 1.0], [0.0, 0.0, 1.0, 1.0]]])
    pad = torch.tensor([[[1, 0, 0, 0], [0, 0, 0, 0]]], dtype=torch.bool)
    foreground = ForegroundConfig(patches="foreground", patch_threshold=0.05)
    counted = counted_tokens(share, foreground, pad=pad)
    assert counted[0].tolist() == [[False, False, True, True], [False, False, True, True]]
    weights = token_weights(masked, counted)
    assert weights.values[0].tolist() == [[0, 0, 1, 0], [0, 0, 0, 0]]
    assert float(weights.total) == 1  # the crop that only air is masked in is left out
    assert counted_tokens(share, PLAIN, pad=pad)[0, 0].tolist() == [False, True, True, True]
    assert background_tokens(share, foreground) is None
    background = background_tokens(share, ForegroundConfig(patches="prototype"))
    assert background is not None
    assert background[0, 0].tolist() == [False, True, False, False]


def test_totals_of_micro_batches_add_up_and_are_never_zero() -> None:
    assert float(mean_total(torch.tensor(3.0), torch.tensor(1.5))) == 4.5
    assert float(mean_total(torch.tensor(0.0))) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"ramp": (0.4, 0.4)}, "must rise"), ({"hierarchical": True, "hierarchical_below": 0.0}, "does nothing")],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ForegroundConfig(**settings)
