"""Quadrilaterals: inside the photograph, convex, of the size asked for, turned as often and as far as asked."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchatlas.pretrain.crops.config import PhotoWarp
from patchatlas.pretrain.crops.quads import draw_shape, place, place_at

PLAIN = PhotoWarp(rotate=0, any_turn=0, perspective=0, stretch=1)


def area(corners: np.ndarray) -> float:
    """By the shoelace formula; positive for corners in the order of a crop's."""
    x, y = corners.T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


@given(
    seed=st.integers(0, 2**32 - 1),
    whole=st.tuples(st.integers(8, 900), st.integers(8, 900)),
    size=st.tuples(st.integers(8, 300), st.integers(8, 300)),
    warp=st.builds(
        PhotoWarp,
        scale=st.tuples(st.floats(0.1, 1), st.floats(1, 9)),
        rotate=st.floats(0, 180),
        any_turn=st.floats(0, 1),
        perspective=st.floats(0, 0.49),
        stretch=st.floats(1, 3),
    ),
)
def test_quads_lie_inside_and_are_convex(
    seed: int, whole: tuple[int, int], size: tuple[int, int], warp: PhotoWarp
) -> None:
    rng = np.random.default_rng(seed)
    first = place(draw_shape(size, warp, rng), warp.scale, whole, rng)
    second = place_at(draw_shape(size, warp, rng), 1.7 * first.scale, first.centre + np.array([5.0, -3.0]), whole)
    for quad in (first, second):
        assert (quad.corners >= 0).all()
        assert (quad.corners <= whole[::-1]).all()
        sides = np.roll(quad.corners, -1, axis=0) - quad.corners
        turns = sides[:, 0] * np.roll(sides[:, 1], -1) - sides[:, 1] * np.roll(sides[:, 0], -1)
        assert (turns > 0).all()  # never folded over, never mirrored
        assert quad.places >= 1
    assert first.scale <= warp.scale[1] * (1 + 1e-9)
    assert first.shrunk == (first.scale < warp.scale[0] * (1 - 1e-9))


def test_sizes_by_hand() -> None:
    rng = np.random.default_rng(0)
    quad = place(draw_shape((10, 20), PLAIN, rng), (3.0, 3.0), (100, 100), rng)
    assert np.ptp(quad.corners, axis=0) == pytest.approx([60, 30])  # width of 20, height of 10
    assert (quad.places, quad.shrunk) == (41 * 71, False)
    near = place_at(draw_shape((10, 20), PLAIN, rng), 2.0, np.array([50.0, 50.0]), (100, 100))
    assert near.corners == pytest.approx(np.array([(30, 40), (70, 40), (70, 60), (30, 60)]))
    assert place_at(draw_shape((10, 20), PLAIN, rng), 2.0, np.array([5.0, 99.0]), (100, 100)).corners == pytest.approx(
        np.array([(0, 80), (40, 80), (40, 100), (0, 100)])
    )


def test_what_does_not_fit_is_made_smaller_and_says_so() -> None:
    rng = np.random.default_rng(0)
    for quad in (
        place(draw_shape((10, 20), PLAIN, rng), (9.0, 9.0), (60, 80), rng),
        place_at(draw_shape((10, 20), PLAIN, rng), 9.0, np.array([1.0, 1.0]), (60, 80)),
    ):
        assert (quad.scale, quad.shrunk) == (4.0, True)
        assert np.ptp(quad.corners, axis=0) == pytest.approx([80, 40])


def test_turns_are_as_far_and_as_often_as_asked() -> None:
    rng = np.random.default_rng(0)

    def angles(warp: PhotoWarp) -> np.ndarray:
        edges = np.array([(shape := draw_shape((8, 8), warp, rng))[1] - shape[0] for _ in range(2000)])
        return np.degrees(np.arctan2(edges[:, 1], edges[:, 0]))

    assert angles(PLAIN) == pytest.approx(0, abs=1e-9)
    assert angles(PLAIN.model_copy(update={"rotate": 10.0})).std() == pytest.approx(10, rel=0.05)
    any_turn = angles(PLAIN.model_copy(update={"any_turn": 1.0}))
    assert any_turn.std() == pytest.approx(360 / math.sqrt(12), rel=0.05)
    assert (np.abs(angles(PLAIN.model_copy(update={"any_turn": 0.2}))) > 1e-6).mean() == pytest.approx(0.2, abs=0.03)


def test_areas_keep_under_stretch_and_grow_with_scale() -> None:
    rng = np.random.default_rng(4)
    stretched = PLAIN.model_copy(update={"stretch": 2.0})
    ratios = []
    for _ in range(200):
        shape = draw_shape((10, 10), stretched, rng)
        assert area(shape) == pytest.approx(100)
        ratios.append(math.log2(np.ptp(shape[:, 0]) / np.ptp(shape[:, 1])))
    assert -1 <= min(ratios) < -0.9
    assert 0.9 < max(ratios) <= 1
