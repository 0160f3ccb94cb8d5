"""The SIGReg objective: views of a sample agree, and embeddings are spread as a round Gaussian.

Axes: v views, globals first; b samples; d features; m random directions; j knots. Written from the formulas of
Balestriero and LeCun 2025 (arXiv 2511.08544): Epps and Pulley's test of the embeddings along random directions against
N(0, 1), and the distance of every view to the mean of its sample's globals.

Epps and Pulley: T = N * integral over t of |phi_N(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt, with phi_N(t) the mean of
exp(i t x). The integrand is even, so knots cover [0, reach] and count twice; trapezoids between them.

N is the samples that are given, of one micro-batch of all ranks: a mean over micro-batches is no test of all of them.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.errors import UsageError
from patchatlas.pretrain.losses.ranks import ALONE, Ranks
from patchatlas.pretrain.losses.weights import mean_total


@dataclass(frozen=True)
class SigregTerms:
    """Both parts of the objective, to be mixed as `share * normality + (1 - share) * agreement`."""

    normality: Float[Tensor, ""]
    agreement: Float[Tensor, ""]


def sigreg_terms(
    embeddings: Float[Tensor, "v b d"],
    directions: Float[Tensor, "d m"],
    *,
    n_globals: int,
    weights: Float[Tensor, "v b"] | None = None,
    knots: int = 17,
    reach: float = 3.0,
    ranks: Ranks = ALONE,
) -> SigregTerms:
    """The Gaussian test of each view's embeddings, a mean over views, and how far views are from their globals' mean.

    Args:
        embeddings: the projector's, not normalised.
        directions: unit columns from `random_directions`, the same on all ranks.
        n_globals: how many of the views are globals.
        weights: of the crops; 1 if not given. One of weight 0 has no part in anything.
        knots: points of the integral.
        reach: highest frequency.
        ranks: processes whose embeddings are tested together. All must call it.

    Raises:
        UsageError: no globals, or more than there are views.
    """
    if not 1 <= n_globals <= len(embeddings):
        raise UsageError(f"of {len(embeddings)} views {n_globals} cannot be globals")
    wide = embeddings if embeddings.dtype == torch.float64 else embeddings.float()
    weights = torch.ones_like(wide[..., 0]) if weights is None else weights.detach().to(wide)
    tests = [
        epps_pulley(view @ directions.to(wide), weights=share, knots=knots, reach=reach, ranks=ranks).mean()
        for view, share in zip(wide, weights, strict=True)
    ]
    leading = weights[:n_globals, :, None]
    mass = leading.sum(0)
    centre = (wide[:n_globals] * leading).sum(0) / torch.where(mass > 0, mass, 1)
    counted = weights * (mass[:, 0] > 0)
    apart = (wide - centre).square().mean(-1)
    agreement = (counted * apart).sum() / mean_total(counted.sum(), ranks=ranks)
    return SigregTerms(normality=torch.stack(tests).mean(), agreement=agreement)


def epps_pulley(
    values: Float[Tensor, "n m"],
    *,
    weights: Float[Tensor, " n"] | None = None,
    knots: int = 17,
    reach: float = 3.0,
    ranks: Ranks = ALONE,
) -> Float[Tensor, " m"]:
    """Epps and Pulley's statistic of every column against N(0, 1); see `expected_statistic` for what to compare with.

    With weights, N is the number of equal weights that would vary as little, (sum w)^2 / sum w^2.
    """
    weights = torch.ones_like(values[:, 0]) if weights is None else weights.detach().to(values)
    t, measure = _knots(knots, reach, values)
    angles = values[:, :, None] * t  # n m j
    sums = torch.stack([torch.einsum("n,nmj->mj", weights, wave) for wave in (angles.cos(), angles.sin())])
    mass = torch.stack([weights.sum(), weights.square().sum()])
    sums, mass = ranks.mean(sums), ranks.mean(mass)
    some = mass[0] > 0
    real, imaginary = sums / torch.where(some, mass[0], 1)
    count = ranks.size * mass[0].square() / torch.where(some, mass[1], 1)
    squared = (real - torch.exp(-t.square() / 2)).square() + imaginary.square()
    statistic: Tensor = count * (squared @ measure)
    return statistic


def expected_statistic(*, knots: int = 17, reach: float = 3.0) -> float:
    """What the statistic is on average for values that are N(0, 1), whatever their number.

    N * E|phi_N - phi|^2 is 1 - |phi|^2 = 1 - exp(-t^2).
    """
    t, measure = _knots(knots, reach, torch.zeros((), dtype=torch.float64))
    return float((1 - torch.exp(-t.square())) @ measure)


def random_directions(features: int, slices: int, *, generator: torch.Generator) -> Float[Tensor, "d m"]:
    """Unit columns, uniform over the sphere; from a generator seeded by the step, the same on every rank."""
    drawn = torch.randn(features, slices, generator=generator, device=generator.device)
    return torch.nn.functional.normalize(drawn, dim=0)


def _knots(knots: int, reach: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """Frequencies, and trapezoids' widths, doubled for the negative half, times the weight exp(-t^2 / 2)."""
    t = torch.linspace(0, reach, knots, dtype=like.dtype, device=like.device)
    width = torch.full_like(t, 2 * reach / (knots - 1))
    width[[0, -1]] /= 2
    return t, width * torch.exp(-t.square() / 2)
