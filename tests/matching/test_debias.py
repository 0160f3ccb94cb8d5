"""Debiasing: a planted code of position goes, what the picture shows stays."""

import pytest
import torch

from patchatlas.errors import UsageError
from patchatlas.matching.debias import position_basis, take_out


def planted(n: int, d: int, k: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A code of position of rank k, largest direction first, and k orthonormal directions that span it."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(d, k, generator=generator))[0].T
    by_place = torch.linalg.qr(torch.randn(n, k + 1, generator=generator).sub_(0.0))[0][:, :k]
    by_place = by_place - by_place.mean(dim=0)
    sizes = 10 * torch.arange(k, 0, -1)
    return by_place * sizes @ directions, directions


def test_the_basis_is_the_planted_directions() -> None:
    code, directions = planted(60, 20, 3)
    basis = position_basis(code + 5, k=3)  # what all places have in common is no position
    assert basis.shape == (3, 20)
    assert torch.allclose(basis @ basis.T, torch.eye(3), atol=1e-5)
    assert torch.allclose(basis.T @ basis, directions.T @ directions, atol=1e-4)


def test_directions_come_largest_first() -> None:
    places = torch.tensor([[3.0, 0.1, 0.0], [-3.0, 0.1, 0.0], [0.0, -0.2, 0.0]])
    assert position_basis(places, k=1).abs().tolist() == [pytest.approx([1.0, 0.0, 0.0], abs=1e-3)]


def test_only_real_directions_are_given() -> None:
    code, _ = planted(60, 20, 2)
    assert position_basis(code, k=9).shape == (2, 20)
    assert position_basis(torch.full((60, 20), 0.3), k=9).shape == (0, 20)
    assert position_basis(torch.zeros(60, 20), k=9).shape == (0, 20)


def test_the_code_goes_and_the_rest_stays() -> None:
    """Content that is square to the code comes back as it was, up to its length."""
    code, directions = planted(60, 20, 3)
    content = torch.randn(60, 20, generator=torch.Generator().manual_seed(1))
    content = content - content @ directions.T @ directions
    left = take_out(content + code, position_basis(code, k=3))
    assert torch.allclose(left, torch.nn.functional.normalize(content, dim=1), atol=1e-4)
    fewer = take_out(content + code, position_basis(code, k=2))
    assert (fewer @ directions.T).abs().max() > 0.1


def test_tokens_of_nothing_stay_zero_and_batches_keep_their_shape() -> None:
    code, _ = planted(60, 20, 3)
    basis = position_basis(code, k=3)
    tokens = torch.randn(2, 60, 20, generator=torch.Generator().manual_seed(2))
    tokens[1, 7] = 0
    left = take_out(tokens, basis)
    assert left.shape == tokens.shape
    assert torch.equal(left[1, 7], torch.zeros(20))
    assert torch.equal(left[0], take_out(tokens[0], basis))


@pytest.mark.parametrize("k", [0, -1, 20])
def test_as_many_directions_as_features_are_refused(k: int) -> None:
    with pytest.raises(UsageError, match="take 1 to 19 directions"):
        position_basis(torch.zeros(60, 20), k=k)
