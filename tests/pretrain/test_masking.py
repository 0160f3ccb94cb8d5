"""What is hidden: exact counts, blocks, and the same draw whoever holds the crop."""

import numpy as np
import pytest

from patchatlas.pretrain.masking import block_mask, masks
from patchatlas.pretrain.settings import MaskConfig


@pytest.mark.parametrize("grid", [(6, 7), (4, 5, 6)])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_the_count_is_exact(grid, share):
    count = int(share * np.prod(grid))
    mask = block_mask(grid, count, np.random.default_rng(0), min_aspect=0.3)
    assert mask.shape == grid
    assert mask.sum() == count


@pytest.mark.parametrize("grid", [(14, 14), (8, 8, 8)])
def test_hidden_patches_are_neighbours(grid):
    """A hidden patch has far more hidden neighbours than patches strewn at random have."""

    def together(mask):
        pairs = [mask.swapaxes(0, axis)[1:] & mask.swapaxes(0, axis)[:-1] for axis in range(mask.ndim)]
        return sum(int(pair.sum()) for pair in pairs)

    count = int(0.3 * np.prod(grid))
    drawn = [block_mask(grid, count, np.random.default_rng(seed), min_aspect=0.3) for seed in range(20)]
    strewn = [np.random.default_rng(seed).permutation(mask.ravel()).reshape(grid) for seed, mask in enumerate(drawn)]
    assert sum(map(together, drawn)) > 1.8 * sum(map(together, strewn))


def test_shares_are_spread_evenly_over_the_crops_that_are_chosen():
    config = MaskConfig(prob=0.5, ratio=(0.1, 0.5))
    shares = np.sort(masks((10, 10), config, rows=16, mine=range(16), seed=[3, 7]).mean(axis=1))
    assert (shares[:8] == 0).all()
    edges = np.linspace(0.1, 0.5, 9)
    assert (shares[8:] >= edges[:-1] - 0.01).all()
    assert (shares[8:] <= edges[1:]).all()


def test_a_crop_is_masked_alike_whoever_holds_it():
    config = MaskConfig()
    whole = masks((4, 4, 4), config, rows=8, mine=range(8), seed=[0, 5])
    np.testing.assert_array_equal(masks((4, 4, 4), config, rows=8, mine=[1, 4, 7], seed=[0, 5]), whole[[1, 4, 7]])
    assert (whole != masks((4, 4, 4), config, rows=8, mine=range(8), seed=[0, 6])).any()


def test_nothing_is_hidden_where_nothing_is_asked():
    assert not masks((4, 4), MaskConfig(prob=0), rows=3, mine=range(3), seed=[0, 0]).any()
