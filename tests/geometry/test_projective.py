"""Projective maps: images by hand, round trips, areas against differences, the same as frames where those suffice."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchatlas.errors import ShapeError
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.projective import Projective


def points(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def close(one: torch.Tensor, other: torch.Tensor, atol: float = 1e-9) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=atol)


# x grows twice as fast, y is moved by 3, and what lies further right is smaller: w = 1 + x / 10.
SLANTED = Projective(((2.0, 0.0, 0.0), (0.0, 1.0, 3.0), (0.1, 0.0, 1.0)))


def test_hand_worked_images() -> None:
    close(SLANTED.to_source(points((0, 0), (10, 1))), points((0, 3), (10, 2)))  # (20, 4) / 2
    close(SLANTED.from_source(points((10, 2))), points((10, 1)))


def test_points_behind_have_no_image() -> None:
    assert SLANTED.to_source(points((-10, 0), (-20, 5))).isnan().all()
    assert SLANTED.scale(points((-20, 5))).isnan().all()
    assert SLANTED.from_source(points((20, 0))).isnan().all()  # the vanishing point of x


def test_areas_by_hand() -> None:
    close(SLANTED.scale(points((0, 0), (10, 1))), torch.tensor([2.0, 0.25], dtype=torch.float64))  # 2 / w^3


def test_a_rectangle_onto_a_quadrilateral() -> None:
    corners = np.array([(0, 0), (4, 0), (3, 2), (1, 2)], dtype=np.float64)
    laid = Projective.onto((20, 60), corners)  # rows, columns
    close(laid.to_source(points((0, 0), (60, 0), (60, 20), (0, 20))), torch.from_numpy(corners))
    close(laid.to_source(points((30, 10))), points((2, 4 / 3)))  # diagonals meet where diagonals meet
    with pytest.raises(ShapeError, match="three lie on a line"):
        Projective.onto((2, 2), np.array([(0, 0), (1, 1), (2, 2), (3, 3)], dtype=np.float64))


@pytest.mark.parametrize(
    "frame",
    [
        Frame.whole((30, 40)).crop((5, 7), (10, 20)).resize((20, 15)).flip(1),
        Frame.whole((30, 40)).transpose((1, 0)).flip(0),
        Frame.whole((10, 20, 40)).crop((1, 2, 3), (4, 8, 6)).resize((8, 4, 3)).flip(2),
    ],
)
def test_a_frame_says_the_same(frame: Frame) -> None:
    given_points = torch.rand(5, frame.ndim, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 10
    whole = Projective.of_frame(frame)
    close(whole.to_source(given_points), frame.to_source(given_points))
    close(whole.from_source(given_points), frame.from_source(given_points))
    area = abs(float(np.prod([float(s) for s in frame.scale])))
    close(whole.scale(given_points), torch.full((5,), area, dtype=torch.float64))


numbers = st.floats(-0.4, 0.4)
corner_moves = st.tuples(*[st.tuples(numbers, numbers)] * 4)
rectangle = st.tuples(st.integers(1, 400), st.integers(1, 400))


def slanted(size_hw: tuple[int, int], moves: tuple[tuple[float, float], ...]) -> Projective:
    """A rectangle onto a square of 100 whose corners were moved, by 40 at most: convex."""
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) + 0.5 * np.array(moves)
    return Projective.onto(size_hw, 100 * corners + (30, -7))


@given(size=rectangle, moves=corner_moves, other=corner_moves, seed=st.integers(0, 2**32 - 1))
def test_round_trips(size: tuple[int, int], moves: tuple, other: tuple, seed: int) -> None:
    one, two = slanted(size, moves), slanted((64, 80), other)
    inside = torch.rand(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    inside = inside * torch.tensor(size[::-1])
    source = one.to_source(inside)
    assert source.isfinite().all()
    close(one.from_source(source), inside, atol=1e-5)
    there = one.then(two.inverse()).to_source(inside)
    kept = there.isfinite().all(1) & (two.from_source(source).isfinite().all(1))
    close(two.to_source(there[kept]), source[kept], atol=1e-4)
    assert Projective.from_json(json.loads(json.dumps(one.to_json()))) == one


@given(size=rectangle, moves=corner_moves)
def test_areas_are_those_of_small_squares(size: tuple[int, int], moves: tuple) -> None:
    warp, middle = slanted(size, moves), torch.tensor([[size[1] / 2, size[0] / 2]], dtype=torch.float64)
    step = 1e-4 * torch.tensor([size[1], size[0]], dtype=torch.float64)
    ends = [warp.to_source(middle + step * torch.tensor(move)) for move in ((1.0, 0.0), (0.0, 1.0))]
    backs = [warp.to_source(middle - step * torch.tensor(move)) for move in ((1.0, 0.0), (0.0, 1.0))]
    (ax, ay), (bx, by) = ((end - back)[0] / (2 * h) for end, back, h in zip(ends, backs, step, strict=True))
    assert float((ax * by - ay * bx).abs()) == pytest.approx(float(warp.scale(middle)), rel=1e-4)


def test_what_is_no_map_is_refused() -> None:
    with pytest.raises(ShapeError, match="3 rows of 3"):
        Projective(((1.0, 0.0), (0.0, 1.0)))
    with pytest.raises(ShapeError, match="invertible"):
        Projective(((1.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)))
    with pytest.raises(ShapeError, match="have 2 numbers"):
        SLANTED.to_source(torch.zeros(3, 3))
    with pytest.raises(ShapeError, match="cannot compose"):
        SLANTED.then(Projective.of_frame(Frame.whole((2, 2, 2))))
