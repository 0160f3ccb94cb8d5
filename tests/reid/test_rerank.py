"""Re-ranking against a slow reading of the paper, with sets."""

import math

import pytest
import torch
from torch import Tensor

from patchatlas.errors import InputError, UsageError
from patchatlas.reid.rerank import rerank


def alike(seed: int, n: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(4, 8, generator=generator, dtype=torch.float64)
    rows = centres[torch.arange(n) % 4] + 0.8 * torch.randn(n, 8, generator=generator, dtype=torch.float64)
    rows = torch.nn.functional.normalize(rows, dim=1)
    return (rows @ rows.T).fill_diagonal_(1)


def by_the_paper(similarity: Tensor, k1: int, k2: int, share: float) -> list[list[float]]:
    """Sections 3.2 to 3.4: reciprocal neighbours, their enlargement, Jaccard distance and local query expansion."""
    n = len(similarity)
    d = (1 - similarity).tolist()
    order = [sorted(range(n), key=lambda j: -1 if j == i else d[i][j]) for i in range(n)]

    def reciprocal(i: int, k: int) -> set[int]:
        return {j for j in order[i][: k + 1] if i in order[j][: k + 1]}

    vectors = []
    for i in range(n):
        near, wide = reciprocal(i, k1), reciprocal(i, k1)
        for j in near:
            half = reciprocal(j, max(1, round(k1 / 2)))
            if len(near & half) >= 2 / 3 * len(half):
                wide |= half
        vectors.append([math.exp(-d[i][j]) if j in wide else 0.0 for j in range(n)])
    expanded = [[sum(vectors[j][g] for j in order[i][: k2 + 1]) / (k2 + 1) for g in range(n)] for i in range(n)]

    def jaccard(a: list[float], b: list[float]) -> float:
        return 1 - sum(map(min, a, b)) / sum(map(max, a, b))

    return [
        [1 - (1 - share) * jaccard(a, b) - share * d[i][j] for j, b in enumerate(expanded)]
        for i, a in enumerate(expanded)
    ]


@pytest.mark.parametrize(("n", "k1", "k2", "share"), [(24, 6, 2, 0.3), (17, 5, 3, 0.0), (9, 4, 1, 0.6)])
def test_as_the_paper_says(n: int, k1: int, k2: int, share: float) -> None:
    given = alike(n, n)
    fast = rerank(given, k1=k1, k2=k2, share=share)
    slow = torch.tensor(by_the_paper(given, k1, k2, share), dtype=torch.float64)
    torch.testing.assert_close(fast, slow.fill_diagonal_(1))
    torch.testing.assert_close(fast, fast.T)


def test_neighbours_are_clamped_to_the_set() -> None:
    given = alike(1, 5)
    torch.testing.assert_close(rerank(given), rerank(given, k1=4, k2=4))
    assert rerank(torch.ones(1, 1, dtype=torch.float64)).tolist() == [[1.0]]
    assert rerank(torch.ones(0, 0, dtype=torch.float64)).shape == (0, 0)


def test_the_given_table_is_left_alone() -> None:
    given = alike(2, 6)
    before = given.clone()
    rerank(given)
    assert torch.equal(given, before)


def test_what_is_refused() -> None:
    given = alike(3, 6)
    with pytest.raises(InputError, match="both ways"):
        rerank(given + torch.triu(torch.ones_like(given)))
    with pytest.raises(InputError, match="numbers"):
        rerank(given * torch.nan)
    with pytest.raises(UsageError, match="k1 and k2"):
        rerank(given, k1=0)
