"""Local crops: on the patches of their global crop, with foreground of their own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchatlas.errors import InputError
from patchatlas.pretrain.crops.config import CropConfig
from patchatlas.pretrain.crops.draw import Ground, Placed, Rule
from patchatlas.pretrain.crops.locals import draw_locals, patch_step
from patchatlas.pretrain.crops.records import BELOW_MIN, SHRUNK
from patchatlas.pretrain.crops.table import SummedTable
from tests.pretrain.crops.memory import blob, count_cells, small_config

MM = (1.0, 1.0, 1.0)


def config(**changes: object) -> CropConfig:
    """Patches of 4, globals of 16, locals of 8."""
    return CropConfig.model_validate(small_config(**changes))


def ground(mask: np.ndarray, cell: int = 2, *, strict: bool = False) -> Ground:
    """Cells of 2: half a patch."""
    table = SummedTable.of(count_cells(mask, (cell,) * 3), (cell,) * 3, mask.shape)
    return Ground("mask", {-500.0: table}, strict)


@given(seed=st.integers(0, 2**32 - 1), noise=st.floats(0.05, 0.95))
def test_one_local_crop_has_at_least_the_ratio_of_its_global_crop(seed: int, noise: float) -> None:
    """The lemma: strict volumes never refuse where the local ratio is that of the global crop or below."""
    rng = np.random.default_rng(seed)
    mask = rng.random((16, 16, 16)) < noise * rng.random((16, 16, 16))
    one = ground(mask, strict=True)
    ratio = float(np.floor(mask.mean() * 1000) / 1000)
    parent = Placed((0, 0, 0), (8, 8, 8), Rule(-500.0, ratio), 1, ())
    made = config(globals={"min_foreground_ratio": ratio}, locals={"min_foreground_ratio": ratio})
    for placed in draw_locals(one, made, MM, [parent], rng):
        box = tuple(slice(2 * at, 2 * at + 8) for at in placed.start)
        assert mask[box].mean() >= ratio
        assert placed.flags == ()


def test_local_crops_lie_in_their_global_crops_in_turn_and_on_their_patches() -> None:
    volume = blob(np.random.default_rng(1))
    parents = [Placed(start, (8, 8, 8), Rule(-500.0, 0.0), 1, ()) for start in [(3, 5, 1), (4, 4, 7)]]
    made = config(locals={"count": 60, "min_foreground_ratio": 0.0})
    placed = draw_locals(ground(volume.mask(-500)), made, MM, parents, np.random.default_rng(0))
    assert [one.parent for one in placed] == [0, 1] * 30
    for one in placed:
        within = np.subtract(one.start, parents[one.parent].start)
        assert one.cells == (4, 4, 4)
        assert ((within >= 0) & (within + 4 <= 8)).all()
        assert (within % 2 == 0).all()  # a patch of 4 voxels is two cells
    assert len({one.start for one in placed[::2]}) > 15  # of 27


def test_a_local_crop_has_its_own_ratio() -> None:
    mask = np.zeros((16, 16, 16), dtype=bool)
    mask[:8, :8, :8] = True  # an eighth of the global crop, all of one local crop
    parent = Placed((0, 0, 0), (8, 8, 8), Rule(-500.0, 0.1), 1, ())
    made = config(globals={"min_foreground_ratio": 0.1}, locals={"min_foreground_ratio": 0.1})
    placed = draw_locals(ground(mask), made, MM, [parent], np.random.default_rng(0))
    assert all(mask[tuple(slice(2 * at, 2 * at + 8) for at in one.start)].mean() >= 0.1 for one in placed)
    held = made.model_copy(update={"locals": made.locals.model_copy(update={"min_foreground_ratio": 1.0})})
    placed = draw_locals(ground(mask), held, MM, [parent], np.random.default_rng(0))
    assert {one.start for one in placed} == {(0, 0, 0)}


def test_a_local_crop_larger_than_its_global_crop_is_flagged_or_refused() -> None:
    made = config(locals={"zoom": (1.0, 3.0), "count": 40, "min_foreground_ratio": 0.0}, globals={"zoom": (1.0, 2.0)})
    parent = Placed((2, 2, 2), (8, 8, 8), Rule(-500.0, 0.0), 1, ())
    full = np.ones((32, 32, 32), dtype=bool)
    placed = draw_locals(ground(full), made, MM, [parent], np.random.default_rng(0))
    shrunk = [one for one in placed if one.flags]
    assert 5 < len(shrunk) < 35
    assert all((one.start, one.cells, one.flags) == ((2, 2, 2), (8, 8, 8), (SHRUNK,)) for one in shrunk)
    with pytest.raises(InputError, match=r"of \(10, 10, 10\) cells inside a global crop of \(8, 8, 8\)"):
        draw_locals(ground(full, strict=True), made, MM, [parent], np.random.default_rng(0))


def test_a_global_crop_from_anywhere_may_hold_none() -> None:
    empty = ground(np.zeros((16, 16, 16), dtype=bool), strict=True)
    parent = Placed((0, 0, 0), (8, 8, 8), None, 1, ())
    placed = draw_locals(empty, config(), MM, [parent], np.random.default_rng(0))
    assert all(one.flags == (BELOW_MIN,) for one in placed)
    held = Placed((0, 0, 0), (8, 8, 8), Rule(-500.0, 0.5), 1, ())
    with pytest.raises(InputError, match="no crop of"):
        draw_locals(empty, config(), MM, [held], np.random.default_rng(0))


def test_local_crops_from_the_whole_volume() -> None:
    volume = blob(np.random.default_rng(2))
    made = config(locals={"inside": "volume", "count": 200})
    parent = Placed((0, 0, 0), (8, 8, 8), Rule(-500.0, 0.0), 1, ())
    placed = draw_locals(ground(volume.mask(-500)), made, MM, [parent], np.random.default_rng(0))
    assert {one.parent for one in placed} == {-1}
    assert max(one.start[1] for one in placed) > 8


@pytest.mark.parametrize(("cells", "step"), [((4, 4, 4), (1, 1, 1)), ((8, 8, 8), (2, 2, 2)), ((12, 5, 4), (3, 1, 1))])
def test_patches_of_resized_crops_are_followed_where_they_are_whole_cells(
    cells: tuple[int, ...], step: tuple[int, ...]
) -> None:
    assert patch_step(cells, config()) == step
