"""Lists of positions: exact thresholds, every position as likely as any other."""

import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from patchatlas.pretrain.crops.draw import Ground, Rule
from patchatlas.pretrain.crops.table import SummedTable
from patchatlas.pretrain.crops.valid import Valid, least_voxels, meets
from tests.pretrain.crops.memory import blob, count_cells


@pytest.mark.parametrize(("share", "voxels", "least"), [(0.07, 100, 7), (0.4, 512, 205), (0.0, 9, 0), (1.0, 9, 9)])
def test_least_voxels_by_hand(share: float, voxels: int, least: int) -> None:
    assert least_voxels(share, voxels) == least


@given(share=st.decimals(0, 1, places=3), voxels=st.integers(1, 10**7))
def test_least_voxels_is_the_smallest_that_is_enough(share: object, voxels: int) -> None:
    least = least_voxels(float(str(share)), voxels)
    assert Fraction(str(share)) * voxels <= least < Fraction(str(share)) * voxels + 1


def test_positions_by_hand() -> None:
    valid = Valid.of(np.array([[True, False, True], [False, False, True]]), origin=(10, 20), step=(2, 5))
    np.testing.assert_array_equal(valid.starts(), [[10, 20], [10, 30], [12, 30]])
    drawn = {valid.draw(np.random.default_rng(k)) for k in range(50)}
    assert drawn == {(10, 20), (10, 30), (12, 30)}


def test_every_valid_position_is_drawn_alike() -> None:
    volume = blob(np.random.default_rng(5))
    table = SummedTable.of(count_cells(volume.mask("body"), (4, 4, 4)), (4, 4, 4), volume.size_zyx)
    mask = meets(table, (4, 4, 4), 0.5)
    valid, rng = Valid.of(mask), np.random.default_rng(0)
    times = np.zeros(mask.shape, int)
    for _ in range(40 * len(valid)):
        times[valid.draw(rng)] += 1
    assert not times[~mask].any()
    assert chisquare(times[mask]).pvalue > 0.01
    times[np.unravel_index(valid.flat[:8], mask.shape)] += 20  # the test would see a bias of half of eight positions
    assert chisquare(times[mask]).pvalue < 1e-3


def test_a_hundred_thousand_draws_break_no_ratio() -> None:
    rng, draws, violations = np.random.default_rng(7), 0, 0
    for _ in range(100):
        size = tuple(int(n) for n in rng.integers(18, 45, 3))
        cell = tuple(int(n) for n in rng.integers(2, 6, 3))
        cells = tuple(int(n) for n in rng.integers(1, 4, 3))
        volume = blob(rng, size, share=float(rng.uniform(0.1, 0.6)))
        mask, ratio = volume.mask(-500.0), round(float(rng.uniform(0.05, 0.95)), 3)
        ground = Ground("random", {-500.0: SummedTable.of(count_cells(mask, cell), cell, size)})
        choice = ground.choice(cells, Rule(-500.0, ratio))
        boxes = {}
        for _ in range(1000):
            start = choice.valid.draw(rng)
            if start not in boxes:
                box = tuple(slice(at * c, (at + n) * c) for at, c, n in zip(start, cell, cells, strict=True))
                boxes[start] = mask[box].mean()
            violations += not choice.flags and boxes[start] < ratio
            draws += 1
        if choice.flags:  # then the ratio is impossible, and these are the best
            table = ground.tables[-500.0]
            assert table.boxes(cells).max() < Fraction(str(ratio)) * table.voxels(cells)
            assert set(boxes.values()) <= {table.boxes(cells).max() / table.voxels(cells)}
    assert draws == 100_000
    assert violations == 0


def test_a_draw_takes_less_than_20_microseconds() -> None:
    """Of the processor, the least of a few rounds: others may be at work on the machine."""
    valid, rng = Valid.of(np.random.default_rng(0).random((38, 64, 64)) < 0.5), np.random.default_rng(1)
    rounds = []
    for _ in range(20):
        begun = time.process_time()
        for _ in range(200):
            valid.draw(rng)
        rounds.append(time.process_time() - begun)
    assert min(rounds) / 200 < 20e-6
