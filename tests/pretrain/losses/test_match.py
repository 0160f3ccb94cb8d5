"""The term of matches: a loop over anchors, what counts and what does not, x and y, half a cell."""

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from patchatlas.pretrain.losses.match import Matched, _distances, match_loss

PAIRS = ((0, 1), (1, 0))


def draw(grid: tuple[int, ...], *, b: int = 3, g: int = 2, d: int = 5, seed: int = 0) -> dict[str, Any]:
    """Tokens and places at random; some places are not valid, two samples are of one source."""
    generator = torch.Generator().manual_seed(seed)
    n = math.prod(grid)
    cells = torch.rand(g * (g - 1), b, n, len(grid), generator=generator) * torch.tensor(grid[::-1])
    return {
        "tokens": torch.randn(g, b, n, d, generator=generator),
        "pairs": tuple((i, j) for i, j in product(range(g), repeat=2) if i != j),
        "cells": cells,
        "valid": torch.rand(g * (g - 1), b, n, generator=generator) < 0.7,
        "source": torch.tensor([0, 1, 0][:b]),
        "grid": grid,
        "total": torch.tensor(7.0),
        "temperature": 0.2,
        "radius": 1.2,
        "others": 3,
        "usable": torch.rand(g, b, n, generator=generator) < 0.9,
    }


def run(given: dict[str, Any], **changes: Any) -> Matched:
    return match_loss(**{**given, "generator": torch.Generator().manual_seed(1), **changes})


def read(tokens: Tensor, grid: tuple[int, ...], at: Tensor) -> Tensor:
    """Tokens (n, d) at one point, linearly between centres, from the definition."""
    found = torch.zeros(tokens.shape[1], dtype=torch.float64)
    near = []
    for axis, count in enumerate(grid):
        place = min(max(float(at[-1 - axis]) - 0.5, 0.0), count - 1.0)
        low = min(int(place), count - 2) if count > 1 else 0
        near.append([(low, 1 - (place - low)), (min(low + 1, count - 1), place - low)])
    for corner in product(*near):
        number, share = 0, 1.0
        for (index, part), count in zip(corner, grid, strict=True):
            number, share = number * count + index, share * part
        found += share * tokens[number].double()
    return found


def slowly(given: dict[str, Any]) -> tuple[float, float]:
    """Loss and accuracy, anchor by anchor, in float64; draws the tokens of others as the term does."""
    generator = torch.Generator().manual_seed(1)
    tokens, grid, usable = given["tokens"].double(), given["grid"], given["usable"]
    unit = tokens / tokens.norm(dim=-1, keepdim=True)
    _, b, n, _ = tokens.shape
    middles = [
        torch.tensor([k + 0.5 for k in reversed(index)], dtype=torch.float64) for index in product(*map(range, grid))
    ]
    loss = right = 0.0
    for e, (one, other) in enumerate(given["pairs"]):
        taken = [torch.randperm(n, generator=generator)[: given["others"]].tolist() for _ in range(b)]
        for s in range(b):
            for i in range(n):
                if not given["valid"][e, s, i]:
                    continue
                at = given["cells"][e, s, i].double()
                place = read(given["tokens"][other, s], grid, at)
                likeness = [float(unit[one, s, i] @ place / place.norm())]
                for m in range(n):
                    if usable[other, s, m] and float((middles[m] - at).norm()) > given["radius"]:
                        likeness.append(float(unit[one, s, i] @ unit[other, s, m]))
                for c in range(b):
                    if given["source"][c] != given["source"][s]:
                        likeness += [
                            float(unit[one, s, i] @ unit[other, c, m]) for m in taken[c] if usable[other, c, m]
                        ]
                scores = [value / given["temperature"] for value in likeness]
                loss += math.log(sum(math.exp(score) for score in scores)) - scores[0]
                right += all(scores[0] > score for score in scores[1:])
    return loss / float(given["total"]), right / float(given["total"])


@pytest.mark.parametrize("grid", [(3, 4), (2, 3, 4)])
@pytest.mark.parametrize("g", [2, 3])
def test_it_is_the_loop_over_anchors(grid: tuple[int, ...], g: int) -> None:
    given = draw(grid, g=g)
    found = run(given)
    loss, right = slowly(given)
    assert float(found.loss) == pytest.approx(loss, rel=1e-6)
    assert float(found.right) == pytest.approx(right, rel=1e-6)


def test_no_valid_place_gives_exactly_nothing() -> None:
    given = draw((3, 4))
    tokens = given["tokens"].requires_grad_(True)
    found = run(given, tokens=tokens, valid=torch.zeros_like(given["valid"]), total=torch.tensor(1.0))
    found.loss.backward()
    assert float(found.loss.detach()) == float(found.right) == 0
    assert tokens.grad is not None
    assert (tokens.grad == 0).all()


def test_tokens_of_invalid_anchors_have_no_gradient() -> None:
    given = draw((3, 4), b=2)
    tokens = given["tokens"].requires_grad_(True)
    valid = torch.zeros_like(given["valid"])
    valid[0, 0, 5] = True  # view 0 looks at view 1, in sample 0
    run(given, tokens=tokens, valid=valid, usable=None).loss.backward()
    assert tokens.grad is not None
    moved = (tokens.grad != 0).any(-1)
    assert moved[0, 0].nonzero().flatten().tolist() == [5]
    assert not moved[0, 1].any()
    assert moved[1, 0].any()
    assert int(moved[1, 1].sum()) == given["others"]


def test_negatives_that_may_not_be_used_have_no_gradient() -> None:
    given = draw((3, 4), b=2)
    tokens = given["tokens"].requires_grad_(True)
    cells = torch.full_like(given["cells"], 0.5)  # on the centre of cell 0: no other is read
    run(given, tokens=tokens, cells=cells, usable=torch.zeros_like(given["usable"])).loss.backward()
    assert tokens.grad is not None
    assert not (tokens.grad[:, :, 1:][:, ~given["valid"].any(0)[:, 1:]] != 0).any()


def textured(grid: tuple[int, int], wide: int) -> Tensor:
    """Tokens of a large plane that change smoothly and are all different: (rows, columns, d)."""
    generator = torch.Generator().manual_seed(3)
    y, x = torch.meshgrid(torch.arange(grid[0]) + 0.5, torch.arange(grid[1]) + 0.5, indexing="ij")
    waves = torch.rand(wide, 3, generator=generator)
    return torch.stack([torch.sin(0.9 * (p * x + q * y) + 6 * r) for p, q, r in waves.tolist()], dim=-1)


def shifted(dx: int, dy: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two windows of 5 x 6 cells of one plane, the second `dx`, `dy` cells further; places of the first in it."""
    plane = textured((12, 14), 24)
    one, other = plane[3:8, 4:10], plane[3 + dy : 8 + dy, 4 + dx : 10 + dx]
    tokens = torch.stack([one.flatten(0, 1), other.flatten(0, 1)])[:, None]
    y, x = torch.meshgrid(torch.arange(5) + 0.5, torch.arange(6) + 0.5, indexing="ij")
    centres = torch.stack([x.flatten(), y.flatten()], dim=-1)
    cells = torch.stack([centres - torch.tensor([dx, dy]), centres + torch.tensor([dx, dy])])[:, None]
    valid = ((cells > 0) & (cells < torch.tensor([6.0, 5.0]))).all(-1)
    return tokens, cells, valid


@pytest.mark.parametrize("move", [(0, 0), (2, 0), (0, 2), (-2, 1)])
def test_true_places_win_and_shifted_or_swapped_ones_do_not(move: tuple[int, int]) -> None:
    tokens, cells, valid = shifted(*move)
    rest = {
        "pairs": PAIRS,
        "valid": valid,
        "source": torch.tensor([0]),
        "grid": (5, 6),
        "total": valid.sum().float(),
        "temperature": 0.05,
        "radius": 0.4,
        "others": 0,
    }
    true = run({**rest, "tokens": tokens, "cells": cells})
    assert float(true.right) == 1
    half = run({**rest, "tokens": tokens, "cells": cells + 0.5})
    swapped = run({**rest, "tokens": tokens, "cells": cells.flip(-1)})
    assert float(half.loss) > 1.5 * float(true.loss)
    assert float(swapped.right) < 0.5


def test_equal_tokens_are_not_called_right() -> None:
    given = draw((3, 4))
    assert float(run(given, tokens=torch.ones(2, 3, 12, 1)).right) == 0


def test_what_others_say_counts_only_for_other_sources() -> None:
    given = draw((3, 4))
    alone = run(given, source=torch.zeros(3, dtype=torch.int64))
    assert float(alone.loss) == pytest.approx(float(run(given, others=0).loss), rel=1e-6)
    assert float(run(given).loss) > float(alone.loss)


class Largest(TorchDispatchMode):
    """Remembers how many elements the largest tensor has that any operation gave."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self.elements = max(self.elements, made.numel())
        return made


def test_nothing_is_larger_than_the_scores() -> None:
    given = draw((3, 4, 5), b=2)
    with Largest() as largest, torch.no_grad():
        run(given)
    assert largest.elements == 2 * 60 * (1 + 60 + 2 * given["others"])  # a place, its own view, two samples


def test_distances_are_exact_where_products_are_not() -> None:
    points = 64 * torch.rand(200, 2, generator=torch.Generator().manual_seed(0))
    found = _distances(points[None], points)[0]
    assert (found.diagonal() == 0).all()
    torch.testing.assert_close(found, (points[:, None] - points).norm(dim=-1), rtol=1e-6, atol=0)
