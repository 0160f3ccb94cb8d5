"""The representation loss compares like places with like."""

import pytest
import torch

from patchatlas.datasets.batch import Padded
from patchatlas.datasets.representation import representation_loss
from patchatlas.errors import ShapeError


def on_grid(rows: int, columns: int, seed: int = 0) -> Padded:
    values = torch.randn(1, rows * columns, 6, generator=torch.Generator().manual_seed(seed))
    return Padded(values, torch.ones(1, rows * columns, dtype=torch.bool), torch.tensor([[rows, columns]]))


def test_equal_tokens_in_equal_places_give_minus_one() -> None:
    patches = on_grid(3, 4)
    assert float(representation_loss(5 * patches.values, patches, grid=(3, 4))) == pytest.approx(-1)
    assert float(representation_loss(-patches.values, patches, grid=(3, 4))) == pytest.approx(1)
    assert float(representation_loss(patches.values, patches.packed(), grid=(3, 4))) == pytest.approx(-1)


def test_bug_15_grids_that_differ_are_refused_or_resampled_never_cut_short() -> None:
    """The earlier loss cut both flat sequences to the shorter, which pairs unlike places once the widths differ."""
    patches = on_grid(4, 6)
    hidden = torch.randn(1, 6, 6, generator=torch.Generator().manual_seed(1))
    with pytest.raises(ShapeError, match=r"4 x 6 \(rows x columns\) are not in the places of tokens on 2 x 3"):
        representation_loss(hidden, patches, grid=(2, 3))
    # Equal counts are no excuse: 4 x 6 and 6 x 4 both have 24 tokens.
    with pytest.raises(ShapeError, match="4 x 6"):
        representation_loss(patches.values, patches, grid=(6, 4))
    # Each of the 2 x 3 places covers 2 x 2 patches.
    means = patches.values.reshape(2, 2, 3, 2, 6).mean(dim=(1, 3)).reshape(1, 6, 6)
    assert float(representation_loss(means, patches, grid=(2, 3), resample=True)) == pytest.approx(-1, abs=1e-6)
    cut_short = patches.values[:, :6]
    assert float(representation_loss(cut_short, patches, grid=(2, 3), resample=True)) > -0.9
    with pytest.raises(ShapeError, match="hidden tokens"):
        representation_loss(hidden, patches, grid=(2, 2), resample=True)


def test_no_gradient_reaches_the_patches() -> None:
    patches = on_grid(2, 2)
    patches.values.requires_grad_()
    hidden = on_grid(2, 2, seed=1).values.requires_grad_()
    representation_loss(hidden, patches, grid=(2, 2)).backward()
    assert patches.values.grad is None
    assert hidden.grad is not None
