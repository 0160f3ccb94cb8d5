"""Global crops that overlap: exact shares, uniform choice, and a flag where there is no place."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from patchatlas.errors import InputError
from patchatlas.pretrain.crops.config import GlobalCrops
from patchatlas.pretrain.crops.draw import Ground, Placed
from patchatlas.pretrain.crops.pairs import around, draw_globals, overlapping
from patchatlas.pretrain.crops.records import ANYWHERE, OVERLAP_RELAXED
from patchatlas.pretrain.crops.table import SummedTable
from tests.pretrain.crops.memory import blob, count_cells

MM = (1.0, 1.0, 1.0)
sides = st.tuples(*[st.integers(1, 5)] * 3)


def solid(size: tuple[int, ...] = (8, 8, 8), *, strict: bool = False) -> Ground:
    """Foreground everywhere, cells of one voxel."""
    return Ground("solid", {-500.0: SummedTable.of(np.ones(size, int), (1,) * len(size), size)}, strict)


def share(first: Placed, start: tuple[int, ...], cells: tuple[int, ...]) -> Fraction:
    """Overlap, by counting cells."""
    shared = 1
    for at, n, begin, m in zip(first.start, first.cells, start, cells, strict=True):
        shared *= len(set(range(at, at + n)) & set(range(begin, begin + m)))
    return Fraction(shared, min(math.prod(first.cells), math.prod(cells)))


@settings(max_examples=40)
@given(
    start=st.tuples(*[st.integers(0, 6)] * 3),
    first=sides,
    cells=sides,
    least=st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0]),
    most=st.sampled_from([0.5, 0.9, 1.0]),
)
def test_the_window_holds_all_positions_that_overlap_as_asked(
    start: tuple[int, ...], first: tuple[int, ...], cells: tuple[int, ...], least: float, most: float
) -> None:
    one = Placed(start, first, None, 1, ())
    origin, window = around(one, cells, (7, 7, 7), least=least, most=most)
    found = {tuple(int(n) for n in np.add(origin, at)) for at in np.argwhere(window)}
    wanted = {at for at in np.ndindex(7, 7, 7) if Fraction(str(least)) <= share(one, at, cells) <= Fraction(str(most))}
    assert found == wanted


def test_pairs_overlap_and_keep_their_ratio() -> None:
    volume = blob(np.random.default_rng(3))
    table = SummedTable.of(count_cells(volume.mask("body"), (4, 4, 4)), (4, 4, 4), volume.size_zyx)
    scale = GlobalCrops(size=16, count=3, min_foreground_ratio=0.4, min_overlap=0.3, max_overlap=0.8)
    ground, rng = Ground("blob", {"body": table}), np.random.default_rng(0)
    for _ in range(300):
        first, *others = draw_globals(ground, scale, MM, rng)
        for placed in (first, *others):
            assert table.ratio(placed.start, placed.cells) >= 0.4
            assert placed.flags == ()
        for placed in others:
            assert Fraction(3, 10) <= share(first, placed.start, placed.cells) <= Fraction(8, 10)


def test_without_overlap_control_most_pairs_share_nothing() -> None:
    rng, scale = np.random.default_rng(0), GlobalCrops(size=3, min_overlap=0.0, foreground=-500.0)
    pairs = [draw_globals(solid((16, 16, 16)), scale, MM, rng) for _ in range(300)]
    assert np.mean([share(a, b.start, b.cells) == 0 for a, b in pairs]) > 0.6


def test_the_second_crop_is_drawn_evenly_from_the_window() -> None:
    ground, first = solid(), Placed((3, 3, 3), (4, 4, 4), None, 1, ())
    choice = overlapping(ground, ground.choice((4, 4, 4), None), first, (4, 4, 4), least=0.4, most=1.0)
    rng, times = np.random.default_rng(0), dict.fromkeys(map(tuple, choice.valid.starts().tolist()), 0)
    for _ in range(40 * len(times)):
        times[choice.valid.draw(rng)] += 1
    assert chisquare(list(times.values())).pvalue > 0.01


def test_no_place_for_the_overlap_is_flagged_or_refused() -> None:
    counts = np.zeros((1, 1, 9), int)
    counts[0, 0, [0, 8]] = 1
    table = SummedTable.of(counts, (1, 1, 1), counts.shape)
    scale = GlobalCrops(size=1, foreground=-500.0, min_foreground_ratio=1.0, min_overlap=0.0, max_overlap=0.5)
    first, second = draw_globals(Ground("two", {-500.0: table}), scale, MM, np.random.default_rng(0))
    assert first.start != second.start  # with one place forbidden the other one is taken
    counts[0, 0, 8] = 0
    table = SummedTable.of(counts, (1, 1, 1), counts.shape)
    first, second = draw_globals(Ground("one", {-500.0: table}), scale, MM, np.random.default_rng(0))
    assert (first.flags, second.flags) == ((), (OVERLAP_RELAXED,))
    with pytest.raises(InputError, match="one has no second crop"):
        draw_globals(Ground("one", {-500.0: table}, strict=True), scale, MM, np.random.default_rng(0))


def test_some_samples_come_from_anywhere() -> None:
    counts = np.zeros((4, 4, 4), int)
    counts[0, 0, 0] = 1
    ground = Ground("corner", {-500.0: SummedTable.of(counts, (1, 1, 1), counts.shape)})
    scale = GlobalCrops(size=1, foreground=-500.0, min_foreground_ratio=1.0, foreground_crop_prob=0.7, min_overlap=0.0)
    rng = np.random.default_rng(0)
    pairs = [draw_globals(ground, scale, MM, rng) for _ in range(1000)]
    free = [first.flags == second.flags == (ANYWHERE,) for first, second in pairs]
    assert np.mean(free) == pytest.approx(0.3, abs=0.05)
    held = [pair for pair, one in zip(pairs, free, strict=True) if not one]
    assert all(placed.start == (0, 0, 0) for pair in held for placed in pair)
