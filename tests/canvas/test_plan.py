"""The rectangle of a scan: worked by hand, tight, and refused where there is none."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchatlas.canvas.contract import in_array_order
from patchatlas.canvas.plan import CanvasPlan, plan_canvas
from patchatlas.errors import InputError, ShapeError
from tests.canvas.scans import INTERPOLATIONS


def plan(rows: list[list[float]], size: tuple[int, ...], **options) -> CanvasPlan:
    return plan_canvas(torch.tensor(rows, dtype=torch.float64), size, **options)


@pytest.mark.parametrize(
    ("rows", "size", "options", "origin", "canvas"),
    [
        ([[0, 0]], (2, 3), {}, (0, 0), (2, 3)),
        ([[4.5, -1]], (2, 3), {}, (-1, 4), (2, 4)),
        ([[4.5, -1], [0, 2.25]], (2, 3), {}, (-1, 0), (6, 8)),
        ([[4.5, -1.5]], (2, 3), {"interpolation": "nearest"}, (-1, 5), (2, 3)),
        ([[4.5, -1]], (2, 3), {"interpolation": "cubic"}, (-1, 4), (2, 4)),
        ([[4.5, -1]], (2, 3), {"interpolation": "fourier", "margin": 2}, (-3, 2), (6, 8)),
        ([[-7.25]], (4,), {}, (-8,), (5,)),
        ([[3 * 1.1 - 0.3, -1e-15]], (2, 3), {}, (0, 3), (2, 3)),
        ([[3 + 1e-8, 0]], (2, 3), {}, (0, 3), (2, 4)),
        ([[1, 2, 3.5], [5, 0, 0]], (2, 3, 4), {}, (0, 0, 1), (6, 5, 8)),
    ],
)
def test_by_hand(rows, size, options, origin, canvas):
    assert plan(rows, size, **options) == CanvasPlan(origin, canvas)


@given(
    st.lists(st.tuples(st.floats(-99, 99), st.floats(-99, 99)), min_size=1, max_size=5), st.sampled_from(INTERPOLATIONS)
)
def test_it_holds_every_tile_and_nothing_smaller_does(positions, interpolation):
    given = torch.tensor(positions, dtype=torch.float64)
    corners = in_array_order(given, (3, 5))
    found = plan_canvas(given, (3, 5), interpolation=interpolation)
    found.check_holds(corners, (3, 5), interpolation)
    for axis in range(2):
        one = tuple(int(a == axis) for a in range(2))
        for shift in ((0, 0), one):
            size = tuple(n - o for n, o in zip(found.size, one, strict=True))
            origin = tuple(b + s for b, s in zip(found.origin, shift, strict=True))
            with pytest.raises(ShapeError, match="outside the canvas"):
                CanvasPlan(origin, size).check_holds(corners, (3, 5), interpolation)


def test_end_and_pixels():
    assert CanvasPlan((-1, 4), (2, 3)).end == (1, 7)
    assert CanvasPlan((-1, 4), (2, 3)).pixels == 6


@pytest.mark.parametrize(
    ("rows", "size", "error", "message"),
    [
        ([[0.0, 1.0]], (3,), ShapeError, "one x a tile"),
        ([[0.0]], (3, 3), ShapeError, r"one \(x, y\) a tile, for tiles of \(3, 3\); given \(1, 1\)"),
        ([[0.0, 0.0]], (3, 0), ShapeError, "no empty side"),
        ([[0.0, 0.0]], (1, 1, 1, 1), ShapeError, "one to three axes"),
        ([[0.0, 0.0], [1.0, float("nan")]], (3, 3), InputError, "1 of 2 positions are not finite .* row 1"),
        ([[float("inf"), 0.0]], (3, 3), InputError, "not finite"),
        ([[0.0, 1e12]], (3, 3), InputError, "give pixels, not metres"),
    ],
)
def test_refusals(rows, size, error, message):
    with pytest.raises(error, match=message):
        plan(rows, size)


def test_refusals_of_other_kinds():
    with pytest.raises(InputError, match="empty scan"):
        plan_canvas(torch.zeros(0, 2, dtype=torch.float64), (3, 3))
    with pytest.raises(InputError, match="bfloat16"):
        plan_canvas(torch.zeros(1, 2, dtype=torch.bfloat16), (3, 3))
    with pytest.raises(ShapeError, match="margin -1"):
        plan([[0, 0]], (3, 3), margin=-1)
    with pytest.raises(ShapeError, match=r"given \(4, 1, 2, 1\)"):
        in_array_order(torch.zeros(4, 1, 2, 1), (3, 3))
    for origin, size in (((0,), (2, 2)), ((0, 0), (2, 0)), ((), ())):
        with pytest.raises(ShapeError, match="one to three axes"):
            CanvasPlan(origin, size)
