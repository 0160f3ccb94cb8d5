"""The body mask keeps lungs and drops the table (defect 16), and cells count exactly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from benchmarks.pretrain.phantoms import LABELS, make_phantom
from patchatlas.pretrain.foreground import above, body_mask, count_above, count_cells

SPACING = (1.0, 1.0, 1.0)


def trunk(*, table_at: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A cylinder of water with two lungs, and what of it is body; a table of two voxels behind it if asked."""
    _, y, x = np.indices((6, 60, 60))
    body = (y - 34) ** 2 + (x - 30) ** 2 < 20**2
    values = np.where(body, 40, -1000)
    for centre in (22, 38):
        values[(y - 34) ** 2 + (x - centre) ** 2 < 5**2] = -850
    if table_at is not None:
        values[:, table_at : table_at + 2, 5:55] = 300
    return values.astype(np.int16), body


def test_lungs_stay_although_they_are_below_the_threshold():
    values, body = trunk()
    assert above(values, -500.0).sum() < body.sum()
    np.testing.assert_array_equal(body_mask(values, SPACING), body)


def test_a_table_beside_the_body_goes():
    values, body = trunk(table_at=8)
    assert above(values, -500.0)[:, 8].any()
    np.testing.assert_array_equal(body_mask(values, SPACING), body)


def test_a_table_that_touches_the_body_goes_but_for_what_lies_against_it():
    values, body = trunk(table_at=13)  # the body begins at row 15
    found = body_mask(values, SPACING)
    assert found[body].all()
    table = np.zeros_like(body)
    table[:, 13:15, 5:55] = True
    assert (found & table).sum() < 0.4 * table.sum()
    assert not found[:, 13, :15].any()
    assert not found[:, 13, 45:].any()
    kept = body_mask(values, SPACING, detach_mm=0.0)
    assert kept[table].all()  # without the cut it would all be body


def test_coarse_voxels_are_not_eroded_away():
    values, body = trunk()
    np.testing.assert_array_equal(body_mask(values, (5.0, 10.0, 10.0)), body)
    thin = np.full((3, 9, 9), -1000, np.int16)
    thin[:, 4, 2:7] = 0  # thinner than a bridge everywhere
    np.testing.assert_array_equal(body_mask(thin, SPACING), thin == 0)


def test_a_body_is_not_eroded_where_the_picture_ends():
    values = np.full((3, 40, 60), -1000, np.int16)
    values[:, :4] = 0  # cut off by the border; most of it lies outside
    values[:, 20:30, 20:30] = 0
    np.testing.assert_array_equal(np.flatnonzero(body_mask(values, SPACING)[0].any(axis=1)), [0, 1, 2, 3])


def test_nothing_gives_nothing():
    assert not body_mask(np.full((3, 9, 9), -1000, np.int16), SPACING).any()


@pytest.mark.parametrize("number", range(3))
def test_bodies_of_phantoms_are_found(number):
    phantom = make_phantom(np.random.default_rng([5, number]), size_zyx=(32, 96, 96))
    truth = phantom.labels > 0
    found = body_mask(phantom.values, phantom.spacing_zyx)
    assert (found & truth).sum() / (found | truth).sum() > 0.99
    lungs = phantom.labels == LABELS.index("lung")
    assert found[lungs].mean() > 0.999


def test_holes_are_those_of_scipy():
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = np.where(ndimage.gaussian_filter(rng.normal(size=(1, 30, 30)), 1.5) > 0, 0, -1000).astype(np.int16)
        labels, _ = ndimage.label(values == 0)
        largest = labels == np.bincount(labels.ravel())[1:].argmax() + 1
        np.testing.assert_array_equal(
            body_mask(values, SPACING, detach_mm=0.0)[0], ndimage.binary_fill_holes(largest[0])
        )


@given(
    size=st.tuples(*[st.integers(1, 20)] * 3),
    cell=st.tuples(*[st.integers(1, 9)] * 3),
    seed=st.integers(0, 99),
)
def test_cells_count_what_a_loop_counts(size, cell, seed):
    mask = np.random.default_rng(seed).random(size) < 0.5
    counts = count_cells(mask, cell)
    assert counts.shape == tuple(-(-n // c) for n, c in zip(size, cell, strict=True))
    for at in np.ndindex(counts.shape):
        box = tuple(slice(i * c, (i + 1) * c) for i, c in zip(at, cell, strict=True))
        assert counts[at] == mask[box].sum()
    values = np.where(mask, 40, -600).astype(np.int16)
    np.testing.assert_array_equal(count_above(values, -600.0, cell), counts)  # above, not at


@pytest.mark.parametrize("cell", [(255, 1, 3), (256, 1, 1), (15, 17, 1), (16, 16, 1), (17, 16, 2), (2, 300, 5)])
def test_full_cells_of_any_size_are_counted(cell):
    """A cell that is full holds more than a byte does, along z, or along z and y."""
    counts = count_cells(np.ones(cell, bool), cell)
    assert counts.dtype == np.uint32
    assert counts.tolist() == [[[np.prod(cell)]]]


@pytest.mark.parametrize("threshold", [-500.5, -500.0, -499.5, 2e9, -2e9, 32767.0, -32768.0, -32769.0])
def test_a_threshold_need_be_no_value(threshold):
    values = np.array([-32768, -501, -500, -499, 32767], np.int16).reshape(1, 1, 5)
    expected = values.astype(np.float64) > threshold
    np.testing.assert_array_equal(above(values, threshold), expected)
    np.testing.assert_array_equal(count_above(values, threshold, (1, 1, 1)), expected)


def test_of_two_parts_that_do_not_touch_the_larger_one_is_the_body():
    values = np.full((4, 20, 40), -1000, np.int16)
    values[:, 4:16, 4:16] = values[:, 4:16, 24:37] = 40
    mask = body_mask(values, (1.0, 1.0, 1.0), detach_mm=0.0)
    assert not mask[..., :20].any()
    assert mask.sum() == 4 * 12 * 13
