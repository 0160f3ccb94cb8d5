"""SIGReg: the integral done by quadrature from elsewhere, its value on Gaussians, weights, agreement."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from patchatlas.errors import UsageError
from patchatlas.pretrain.losses.sigreg import epps_pulley, expected_statistic, random_directions, sigreg_terms


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_many_knots_give_the_integral() -> None:
    values = normal(20, 1) * 1.7 + 0.4

    def integrand(t: float) -> float:
        phi = np.exp(1j * t * values[:, 0].numpy()).mean()
        return float(abs(phi - math.exp(-t * t / 2)) ** 2 * math.exp(-t * t / 2))

    want = 20 * quad(integrand, -6, 6, limit=200)[0]
    assert float(epps_pulley(values, knots=400, reach=6.0)[0]) == pytest.approx(want, rel=1e-4)
    assert float(epps_pulley(values)[0]) == pytest.approx(want, rel=0.02)  # 17 knots up to 3 are near enough
    knots = np.linspace(0, 3, 17)
    trapezoids = 2 * 20 * np.trapezoid([integrand(t) for t in knots], knots)
    assert float(epps_pulley(values)[0]) == pytest.approx(trapezoids, rel=1e-9)


@pytest.mark.parametrize("n", [50, 2000])
def test_a_gaussian_scores_its_expectation_whatever_its_size(n: int) -> None:
    assert float(epps_pulley(normal(n, 300)).mean()) == pytest.approx(expected_statistic(), rel=0.15)


def test_the_expectation_is_that_of_the_integral() -> None:
    # The integral over all t of (1 - exp(-t^2)) exp(-t^2 / 2).
    want = math.sqrt(2 * math.pi) * (1 - 1 / math.sqrt(3))
    assert expected_statistic(knots=400, reach=8.0) == pytest.approx(want, rel=1e-6)


def test_what_is_no_gaussian_scores_more() -> None:
    for other in (normal(500, 50) * 0.3, normal(500, 50).sign(), normal(500, 50) + 0.5, torch.zeros(500, 50)):
        assert float(epps_pulley(other).mean()) > 10 * expected_statistic()


def test_weights_count_rows_and_nothing_counts_nothing() -> None:
    values = normal(12, 4).requires_grad_()
    weights = torch.tensor([1.0] * 7 + [0.0] * 5)
    statistic = epps_pulley(values, weights=weights)
    torch.testing.assert_close(statistic, epps_pulley(values[:7]))
    statistic.sum().backward()
    assert values.grad is not None
    assert not values.grad[7:].any()
    assert not epps_pulley(values, weights=torch.zeros(12)).any()


def test_agreement_is_the_distance_to_the_mean_of_the_globals() -> None:
    views = torch.tensor([[[0.0, 0.0]], [[2.0, 0.0]], [[1.0, 3.0]]])  # two globals with mean (1, 0), one local
    directions = torch.eye(2)
    terms = sigreg_terms(views, directions, n_globals=2)
    assert float(terms.agreement) == pytest.approx((1 + 1 + 9) / 2 / 3)
    weights = torch.tensor([[1.0], [0.0], [1.0]])
    assert float(sigreg_terms(views, directions, n_globals=2, weights=weights).agreement) == pytest.approx(2.5)
    none = sigreg_terms(views, directions, n_globals=2, weights=torch.tensor([[0.0], [0.0], [1.0]]))
    assert float(none.agreement) == 0
    with pytest.raises(UsageError, match="cannot be globals"):
        sigreg_terms(views, directions, n_globals=4)


def test_descent_makes_a_point_cloud_round() -> None:
    rows = (normal(1, 128, 3) * torch.tensor([0.1, 0.5, 1.2]) + 1).float().requires_grad_()
    generator = torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam([rows], lr=0.05)
    for _ in range(200):
        optimiser.zero_grad()
        sigreg_terms(rows, random_directions(3, 32, generator=generator), n_globals=1).normality.backward()
        optimiser.step()
    deviations = rows.detach()[0].std(0)
    assert deviations.min() > 0.8  # from 0.1, 0.5 and 1.2
    assert deviations.max() < 1.4
    assert rows.detach()[0].mean(0).abs().max() < 0.2  # from 1


def test_directions_are_unit_and_follow_from_the_seed() -> None:
    first, again = (random_directions(7, 5, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    torch.testing.assert_close(first.norm(dim=0), torch.ones(5))
