"""KoLeo: the formula, duplicates, and samples that weigh nothing."""

import math

import pytest
import torch

from patchatlas.pretrain.losses.koleo import FLOOR, koleo_loss


def test_it_is_minus_the_mean_log_distance_to_the_nearest_unit_vector() -> None:
    # Directions at 0, 60 and 180 degrees, of any length: nearest at chords 1, 1 and sqrt(3).
    angles = torch.tensor([0, 60, 180]).double().deg2rad()
    points = torch.stack([angles.cos(), angles.sin()], 1) * torch.tensor([[2.0], [0.5], [7.0]])
    assert float(koleo_loss(points)) == pytest.approx(-math.log(math.sqrt(3)) / 3)


def test_equal_embeddings_give_the_highest_finite_value() -> None:
    rows = torch.ones(4, 8, requires_grad=True)
    loss = koleo_loss(rows)
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(FLOOR))
    assert rows.grad is not None
    assert bool(rows.grad.isfinite().all())


def test_a_sample_that_weighs_nothing_neither_moves_nor_pushes() -> None:
    rows = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weights = torch.tensor([1, 1, 0, 1, 0, 1.0])
    loss = koleo_loss(rows, weights=weights)
    loss.backward()
    assert rows.grad is not None
    assert not rows.grad[weights == 0].any()
    assert bool(rows.grad[weights > 0].any(1).all())
    assert loss.item() == pytest.approx(koleo_loss(rows[weights > 0]).item())


@pytest.mark.parametrize("weights", [torch.zeros(3), torch.tensor([1.0, 0, 0])])
def test_nobody_to_keep_away_from_is_zero(weights: torch.Tensor) -> None:
    rows = torch.randn(3, 4, requires_grad=True)
    loss = koleo_loss(rows, weights=weights)
    loss.backward()
    assert loss.item() == 0
    assert rows.grad is not None
    assert not rows.grad.any()


def test_descent_spreads_points() -> None:
    rows = (torch.randn(16, 2, generator=torch.Generator().manual_seed(0)) * 0.1 + 1).requires_grad_()
    before = koleo_loss(rows).item()
    for _ in range(50):
        (gradient,) = torch.autograd.grad(koleo_loss(rows), rows)
        with torch.no_grad():
            rows -= 0.05 * gradient
    assert koleo_loss(rows).item() < before - 0.5
