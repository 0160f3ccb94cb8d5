"""Area resampling: exact weights, constants and totals kept, equal to a slow reference; where patches meet latents."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchatlas.errors import ShapeError
from patchatlas.geometry.area import area_weights, match_latents, resample_area
from patchatlas.geometry.buckets import MEGAPIXEL_BUCKETS

sides = st.integers(1, 13)
few = st.integers(1, 6)


def by_hand(values: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """One output cell at a time, in fractions: the overlap of two rectangles on the unit square."""
    rows, columns, d = values.shape

    def overlap(i: int, n: int, j: int, m: int) -> Fraction:
        low, high = max(Fraction(i, n), Fraction(j, m)), min(Fraction(i + 1, n), Fraction(j + 1, m))
        return max(high - low, Fraction(0))

    out = torch.zeros(*shape, d, dtype=torch.float64)
    for r in range(shape[0]):
        for c in range(shape[1]):
            for i in range(rows):
                for j in range(columns):
                    area = overlap(i, rows, r, shape[0]) * overlap(j, columns, c, shape[1])
                    out[r, c] += float(area * shape[0] * shape[1]) * values[i, j].double()
    return out.float()


def test_three_cells_to_two_worked_by_hand():
    """Cell 0 of 2 covers all of cell 0 of 3 and half of cell 1."""
    assert area_weights(3, 2).tolist() == [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]]


def test_rows_and_columns_are_told_apart():
    values = torch.arange(6.0).reshape(2, 3, 1)
    assert resample_area(values, (1, 3))[..., 0].tolist() == [[1.5, 2.5, 3.5]]
    assert resample_area(values, (2, 1))[..., 0].tolist() == [[1.0], [4.0]]


@settings(max_examples=40)
@given(few, few, few, few, st.integers(0, 99))
def test_equals_the_slow_reference(rows, columns, out_rows, out_columns, seed):
    values = torch.randn(rows, columns, 2, generator=torch.Generator().manual_seed(seed))
    given_ = resample_area(values, (out_rows, out_columns))
    torch.testing.assert_close(given_, by_hand(values, (out_rows, out_columns)), rtol=1e-6, atol=1e-6)


@given(st.integers(1, 200), st.integers(1, 200))
def test_weights_cover_each_cell_once(n_in, n_out):
    weights = area_weights(n_in, n_out)
    one_out, one_in = torch.ones(n_out, dtype=torch.float64), torch.ones(n_in, dtype=torch.float64)
    torch.testing.assert_close(weights.sum(dim=1), one_out, rtol=0, atol=1e-12)
    torch.testing.assert_close(weights.sum(dim=0) * n_in / n_out, one_in, rtol=0, atol=1e-12)


@given(sides, sides, sides, sides, st.floats(-1000, 1000, width=32))
def test_constants_are_kept(rows, columns, out_rows, out_columns, value):
    resampled = resample_area(torch.full((rows, columns, 1), value), (out_rows, out_columns))
    torch.testing.assert_close(resampled, torch.full((out_rows, out_columns, 1), value))


@given(sides, sides, sides, sides, st.integers(0, 99))
def test_the_mean_is_kept(rows, columns, out_rows, out_columns, seed):
    values = torch.randn(rows, columns, 3, generator=torch.Generator().manual_seed(seed))
    resampled = resample_area(values, (out_rows, out_columns))
    torch.testing.assert_close(resampled.mean(dim=(0, 1)), values.mean(dim=(0, 1)), rtol=1e-5, atol=1e-6)


@given(sides, sides)
def test_an_equal_shape_changes_nothing(rows, columns):
    values = torch.randn(rows, columns, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(resample_area(values, (rows, columns)), values)


@pytest.mark.parametrize(("n_in", "n_out"), [(0, 3), (3, 0), (3, -1)])
def test_empty_grids_are_refused(n_in, n_out):
    with pytest.raises(ShapeError, match="both need at least one"):
        area_weights(n_in, n_out)


def test_a_flat_count_is_no_shape():
    with pytest.raises(ShapeError, match=r"\(rows, columns\) is wanted"):
        resample_area(torch.zeros(2, 3, 1), [6])


@pytest.mark.parametrize("bucket", MEGAPIXEL_BUCKETS)
def test_patch_16_meets_two_by_two_latents_on_all_seven_buckets(bucket):
    match = match_latents(bucket, patch=(16, 16))
    assert match.one_to_one
    patches = torch.randn(match.patches[0] * match.patches[1], 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(match.resample(patches), patches)


def test_patch_14_does_not_and_is_resampled():
    """87 x 59 patches (w x h) over 76 x 52 tokens: research table of 1216x832, patch 14."""
    match = match_latents((832, 1216), patch=(14, 14))
    assert (match.patches, match.tokens, match.one_to_one) == ((59, 87), (52, 76), False)
    assert "59 x 87 patches (rows x columns) and 52 x 76 latent tokens do not meet" in match.describe()
    ramp = torch.arange(87.0).expand(59, 87).reshape(-1, 1) + 0.5  # x in patches
    seen = match.resample(ramp).reshape(52, 76)
    exact = (torch.arange(76.0) + 0.5) * 87 / 76
    # A mean over an area sits at the centre of the area; a stair of whole patches is off by at most an eighth of one.
    assert (seen - exact).abs().max() <= 0.125
    with pytest.raises(ShapeError, match="do not fill"):
        match.resample(ramp[1:])


def test_buckets_that_are_not_whole_tokens_are_refused():
    with pytest.raises(ShapeError, match=r"bucket 1000x64 .* side 1000 is no multiple of stride 8 x patch 2 = 16"):
        match_latents((64, 1000), patch=(16, 16))
    with pytest.raises(ShapeError, match="must be 1 or more"):
        match_latents((64, 64), patch=(16, 16), latent_patch=0)
