"""What may be drawn: rules, demands and what happens where they cannot be met."""

import numpy as np
import pytest

from patchatlas.errors import InputError
from patchatlas.pretrain.crops.config import Demand, GlobalCrops
from patchatlas.pretrain.crops.draw import Ground, Rule, allowed, asked, draw_zoom, extent, place
from patchatlas.pretrain.crops.records import ANYWHERE, BELOW_MIN, DEMAND_RELAXED
from patchatlas.pretrain.crops.table import SummedTable

CELL = (1, 1)


def ground(tissue: list[list[int]], bone: list[list[int]] | None = None, *, strict: bool = False) -> Ground:
    """Cells of one pixel, foreground -500 and bone 300."""
    given = {-500.0: np.array(tissue)} | ({300.0: np.array(bone)} if bone else {})
    tables = {key: SummedTable.of(counts, CELL, counts.shape) for key, counts in given.items()}
    return Ground("hand", tables, strict)


TISSUE = [[0, 1, 1, 1], [0, 0, 1, 1]]
BONE = [[0, 1, 0, 0], [0, 0, 0, 1]]


def test_a_ratio_by_hand() -> None:
    choice = ground(TISSUE).choice((2, 2), Rule(-500.0, 0.75))
    np.testing.assert_array_equal(choice.mask, [[False, True, True]])
    assert choice.flags == ()


def test_demands_narrow_the_positions() -> None:
    choice = ground(TISSUE, BONE).choice((1, 2), Rule(-500.0, 1.0, ((300.0, 0.5),)))
    np.testing.assert_array_equal(choice.mask, [[False, True, False], [False, False, True]])


def test_an_impossible_demand_is_given_up_before_the_ratio() -> None:
    choice = ground(TISSUE, BONE).choice((2, 2), Rule(-500.0, 0.75, ((300.0, 0.75),)))
    assert choice.flags == (DEMAND_RELAXED,)
    np.testing.assert_array_equal(choice.mask, [[False, True, True]])


def test_the_best_positions_stand_in_for_an_impossible_ratio() -> None:
    tied = [[1, 0, 1, 0], [0, 0, 0, 0]]
    choice = ground(tied).choice((1, 1), Rule(-500.0, 1.0))
    assert (choice.flags, len(choice.valid)) == ((), 2)
    choice = ground(tied).choice((2, 2), Rule(-500.0, 0.5))
    assert choice.flags == (BELOW_MIN,)
    np.testing.assert_array_equal(choice.mask, [[True, True, True]])
    drawn = {place(choice, (2, 2), None, np.random.default_rng(k)).start for k in range(40)}
    assert len(drawn) == 3  # ties are broken at random
    choice = ground([[1, 0, 0, 1], [1, 0, 0, 0]]).choice((2, 2), Rule(-500.0, 0.75))
    assert choice.flags == (BELOW_MIN,)
    np.testing.assert_array_equal(choice.mask, [[True, False, False]])


def test_strict_refuses_and_names_volume_and_remedy() -> None:
    with pytest.raises(InputError, match=r"hand has no crop of \(2, 4\) voxels.*best has 0\.625.*strict"):
        ground(TISSUE, strict=True).choice((2, 4), Rule(-500.0, 0.7))


def test_without_a_rule_every_position_is_allowed() -> None:
    choice = ground(TISSUE).choice((1, 1), None)
    assert len(choice.valid) == 8
    assert choice.flags == (ANYWHERE,)


def test_a_choice_is_made_once() -> None:
    one = ground(TISSUE)
    assert one.choice((2, 2), Rule(-500.0, 0.5)) is one.choice((2, 2), Rule(-500.0, 0.5))
    assert one.choice((2, 2), Rule(-500.0, 0.5)) is not one.choice((2, 2), Rule(-500.0, 0.75))


def test_steps_and_origin() -> None:
    choice = allowed(ground(TISSUE), (1, 1), Rule(-500.0, 1.0), origin=(4, 6), step=(1, 2))
    np.testing.assert_array_equal(choice.valid.starts(), [[4, 8], [5, 8]])


@pytest.mark.parametrize(
    ("scale", "zoom", "cell", "spacing", "cells"),
    [
        (GlobalCrops(size=32), 1.0, (8, 8, 8), (1.5, 1.0, 1.0), (4, 4, 4)),
        (GlobalCrops(size=32), 1.2, (4, 4, 4), (1.0, 1.0, 1.0), (10, 10, 10)),
        (GlobalCrops(size=32, mm=96), 1.0, (8, 8, 8), (1.5, 0.8, 0.75), (8, 15, 16)),
        (GlobalCrops(size=32, mm=(12, 30, 1)), 1.0, (8, 8, 8), (1.0, 1.0, 1.0), (2, 4, 1)),
    ],
)
def test_extent_by_hand(
    scale: GlobalCrops, zoom: float, cell: tuple[int, ...], spacing: tuple[float, ...], cells: tuple[int, ...]
) -> None:
    assert extent(scale, zoom, cell, spacing) == cells


def test_zooms_fill_their_range() -> None:
    rng = np.random.default_rng(0)
    zooms = np.array([draw_zoom(GlobalCrops(zoom=(0.5, 2.0)), rng) for _ in range(400)])
    assert 0.5 <= zooms.min() < 0.52 < 1.9 < zooms.max() <= 2
    assert np.median(zooms) == pytest.approx(1, abs=0.1)  # evenly over the logarithm


def test_certain_demands_take_no_random_number() -> None:
    rng = np.random.default_rng(0)
    assert asked([Demand(threshold=300, min_ratio=0.1)], rng) == ((300.0, 0.1),)
    assert rng.random() == np.random.default_rng(0).random()
    seen = [len(asked([Demand(threshold=300, min_ratio=0.1, prob=0.3)], rng)) for _ in range(1000)]
    assert sum(seen) / 1000 == pytest.approx(0.3, abs=0.05)
