"""Windows: hand-worked plans and full cover for any size."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchatlas.errors import ShapeError
from patchatlas.geometry.windows import cover_with_windows


@pytest.mark.parametrize(
    ("size", "window", "overlap", "starts"),
    [
        ((10,), (4,), (2,), [0, 2, 4, 6]),
        ((10,), (4,), (0,), [0, 3, 6]),
        ((9,), (4,), (1,), [0, 3, 5]),
        ((4,), (4,), (2,), [0]),
        ((3,), (4,), (2,), [0]),
        ((5,), (4,), (3,), [0, 1]),
    ],
)
def test_starts(size, window, overlap, starts):
    plan = cover_with_windows(size, window=window, overlap=overlap)
    assert [w.start[0] for w in plan] == starts


def test_two_axes_run_row_major():
    plan = cover_with_windows((4, 6), window=(4, 4), overlap=(0, 2))
    assert [(w.start, w.size) for w in plan] == [((0, 0), (4, 4)), ((0, 2), (4, 4))]
    assert plan[1].slices == (slice(0, 4), slice(2, 6))


axis = st.integers(1, 40).flatmap(lambda w: st.tuples(st.integers(1, 6 * w), st.just(w), st.integers(0, w // 2)))


@given(st.lists(axis, min_size=1, max_size=2))
def test_any_size_is_covered_with_the_overlap_asked(axes):
    size, window, overlap = zip(*axes, strict=True)
    plan = cover_with_windows(size, window=window, overlap=overlap)
    assert len({w.size for w in plan}) == 1
    for k, n in enumerate(size):
        spans = sorted({(w.start[k], w.start[k] + w.size[k]) for w in plan})
        assert spans[0][0] == 0
        assert spans[-1][1] == n
        for (_, end), (start, _) in itertools.pairwise(spans):
            assert end - start >= min(overlap[k], window[k] - 1)


def test_refusal():
    with pytest.raises(ShapeError, match="windows of 4 that overlap by 4"):
        cover_with_windows((9,), window=(4,), overlap=(4,))
