"""Gram: two n x n matrices of cosines, compared without making them, on the same region only."""

import pytest
import torch
import torch.nn.functional as F

from patchatlas.errors import ShapeError
from patchatlas.pretrain.losses.gram import gram_loss


def tokens(v: int, n: int, d: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(v, n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrices(student: torch.Tensor, teacher: torch.Tensor, weights: torch.Tensor) -> float:
    """The formula with the matrices made."""
    x, y = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
    squared = (x @ x.mT - y @ y.mT).square()
    pairs = weights[:, :, None] * weights[:, None]
    each = (squared * pairs).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1e-30)
    return float(each.sum() / (weights.sum(1) > 0).sum())


@pytest.mark.parametrize("other", [5, 8])
def test_it_is_the_squared_distance_of_the_matrices(other: int) -> None:
    student, teacher = tokens(3, 12, 5), tokens(3, 12, other, seed=1)
    assert float(gram_loss(student, teacher)) == pytest.approx(matrices(student, teacher, torch.ones(3, 12)), rel=1e-9)
    weights = torch.rand(3, 12, generator=torch.Generator().manual_seed(2)).double()
    weights[0, :6] = 0
    weights[1] = 0
    want = matrices(student, teacher, weights)
    assert float(gram_loss(student, teacher, weights=weights)) == pytest.approx(want, rel=1e-9)


def test_small_differences_survive_float32() -> None:
    student = tokens(1, 400, 16)
    teacher = student + 1e-4 * tokens(1, 400, 16, seed=1)
    want = matrices(student, teacher, torch.ones(1, 400))
    assert want < 1e-7
    assert float(gram_loss(student.float(), teacher.float())) == pytest.approx(want, rel=1e-2)


def test_small_differences_survive_float32_where_lengths_differ() -> None:
    student = tokens(1, 400, 16).float()
    teacher = F.pad(student + 1e-4 * tokens(1, 400, 16, seed=1).float(), (0, 4))
    want = matrices(student.double(), teacher.double(), torch.ones(1, 400))
    assert float(gram_loss(student, teacher)) == pytest.approx(want, rel=1e-2)


def test_turning_all_tokens_changes_nothing() -> None:
    student = tokens(1, 10, 4)
    turn = torch.linalg.qr(tokens(1, 4, 4, seed=3)[0])[0]
    assert float(gram_loss(student, student @ turn * 3)) == pytest.approx(0, abs=1e-12)


def test_tokens_that_weigh_nothing_have_no_gradient() -> None:
    student = tokens(2, 6, 4).requires_grad_()
    weights = torch.ones(2, 6)
    weights[0, 3] = weights[1, 0] = 0
    gram_loss(student, tokens(2, 6, 4, seed=1), weights=weights).backward()
    assert student.grad is not None
    assert not student.grad[weights == 0].any()
    assert bool(student.grad[weights > 0].any(-1).all())
    nothing = gram_loss(student, tokens(2, 6, 4, seed=1), weights=torch.zeros(2, 6))
    assert nothing.item() == 0


def test_other_anatomy_is_seen_as_a_loss_and_another_grid_is_refused() -> None:
    # The fault of crops drawn anew for the Gram teacher: two crops of one volume, the same network.
    generator = torch.Generator().manual_seed(0)
    volume = torch.randn(20, generator=generator, dtype=torch.float64)
    network = torch.randn(1, 8, generator=generator, dtype=torch.float64)

    def encode(first: int) -> torch.Tensor:
        return (volume[first : first + 8, None] * network + network.roll(1)).tanh()[None]

    assert float(gram_loss(encode(3), encode(3))) == pytest.approx(0, abs=1e-15)
    assert float(gram_loss(encode(3), encode(9))) > 0.01
    with pytest.raises(ShapeError, match="same crop"):
        gram_loss(tokens(1, 8, 4), tokens(1, 27, 4))
