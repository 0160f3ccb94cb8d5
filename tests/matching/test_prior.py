"""Smooth maps from some matches: exact on maps of their own kind, deaf to wrong matches, honest about the rest."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import RBFInterpolator

from patchatlas.errors import ShapeError
from patchatlas.matching.prior import LEAST, SMOOTHING, Prior, fit_prior

POINTS = torch.from_numpy(np.random.default_rng(0).uniform(0, 800, (20, 2)))


def turned(points: torch.Tensor, *, degrees: float, scale: float, shift: tuple[float, float]) -> torch.Tensor:
    cos, sin = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    x, y = points.T
    return torch.stack([cos * x - sin * y + shift[0], sin * x + cos * y + shift[1]], dim=1)


def bent(points: torch.Tensor) -> torch.Tensor:
    x, y = points.T
    return torch.stack([1.1 * x + 40 * torch.sin(y / 200), 0.95 * y + 30 * torch.cos(x / 250)], dim=1)


def noisy(points: torch.Tensor, sigma: float, *, seed: int = 1) -> torch.Tensor:
    return points + sigma * torch.randn(
        points.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def fitted(source: torch.Tensor, target: torch.Tensor, **options: object) -> Prior:
    found = fit_prior(source, target, tolerance=5.0, **options)  # type: ignore[arg-type]
    assert found is not None
    return found


@settings(max_examples=30)
@given(st.floats(-180, 180), st.floats(0.3, 3), st.floats(-500, 500), st.integers(3, 20))
def test_a_similarity_is_found_exactly(degrees: float, scale: float, shift: float, count: int) -> None:
    target = turned(POINTS, degrees=degrees, scale=scale, shift=(shift, -shift))
    found = fitted(POINTS[:count], target[:count])
    torch.testing.assert_close(found.predict(POINTS), target, atol=1e-6, rtol=0)
    assert found.kind == "similarity"
    assert found.inliers.all()


def test_an_affine_map_is_found_exactly_and_called_so() -> None:
    target = POINTS @ torch.tensor([[1.2, 0.3], [-0.1, 0.8]], dtype=torch.float64) + 7
    found = fitted(POINTS[:12], target[:12])
    assert found.kind == "affine"
    torch.testing.assert_close(found.predict(POINTS), target, atol=1e-6, rtol=0)


def test_a_bent_map_takes_the_thin_plate() -> None:
    found = fit_prior(POINTS, bent(POINTS), tolerance=30.0)
    assert found is not None
    assert found.kind == "thin-plate"
    other = torch.from_numpy(np.random.default_rng(5).uniform(150, 650, (30, 2)))
    missed = torch.linalg.vector_norm(found.predict(other) - bent(other), dim=1)
    stiff = fit_prior(POINTS, bent(POINTS), tolerance=30.0, kind="affine")
    assert stiff is not None
    assert missed.mean() < 0.6 * torch.linalg.vector_norm(stiff.predict(other) - bent(other), dim=1).mean()


def test_noise_alone_does_not_make_a_map_softer() -> None:
    kinds = [
        fitted(POINTS, noisy(turned(POINTS, degrees=10, scale=1, shift=(5, 5)), 3.0, seed=seed)).kind
        for seed in range(8)
    ]
    assert kinds.count("similarity") >= 7
    assert "thin-plate" not in kinds


@pytest.mark.parametrize("wrong", [1, 5, 9])
def test_wrong_matches_change_nothing(wrong: int) -> None:
    target = turned(POINTS, degrees=-20, scale=1.3, shift=(30, 60))
    spoilt = target.clone()
    spoilt[:wrong] = torch.from_numpy(np.random.default_rng(2).uniform(0, 1000, (wrong, 2)))
    found = fitted(POINTS, spoilt)
    assert found.inliers.tolist() == [False] * wrong + [True] * (20 - wrong)
    torch.testing.assert_close(found.predict(POINTS), target, atol=1e-6, rtol=0)


def test_its_error_is_what_others_are_off() -> None:
    """Noise of 4 px on each axis of the matches: predictions of true places are off by that, and a little more."""
    target = turned(POINTS, degrees=10, scale=1, shift=(5, 5))
    found = fitted(POINTS, noisy(target, 4.0))
    assert found.error_px == pytest.approx(4 * math.sqrt(2), rel=0.3)


def test_far_outside_it_is_less_sure() -> None:
    found = fitted(POINTS, noisy(turned(POINTS, degrees=10, scale=1, shift=(5, 5)), 2.0))
    near, far = found.deviations(torch.tensor([[400.0, 400.0], [4000.0, 400.0]], dtype=torch.float64)).tolist()
    assert near == pytest.approx(found.error_px / math.sqrt(2), rel=0.1)
    assert far > 2 * near


def test_between_far_groups_of_matches_it_is_less_sure() -> None:
    """By the weights alone the middle of two groups is the surest place of all."""
    groups = torch.cat([POINTS[:10] / 20, POINTS[10:] / 20 + 700])
    found = fitted(groups, noisy(groups, 2.0), kind="affine")
    inside, between = found.deviations(torch.tensor([[20.0, 20.0], [370.0, 370.0]], dtype=torch.float64)).tolist()
    assert between > 20 * inside


@pytest.mark.parametrize("kind", LEAST)
def test_too_few_or_on_a_line_is_none(kind: str) -> None:
    few = POINTS[: LEAST[kind] - 1]  # type: ignore[index]
    assert fit_prior(few, few, tolerance=5.0, kind=kind) is None  # type: ignore[arg-type]
    line = torch.stack([torch.arange(20.0), 2 * torch.arange(20.0)], dim=1).double()
    assert fit_prior(line, line, tolerance=5.0, kind=kind) is None  # type: ignore[arg-type]
    spot = torch.ones(20, 2, dtype=torch.float64)
    assert fit_prior(spot, spot, tolerance=5.0, kind=kind) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("tolerance", [3.0, 20.0])
def test_matches_without_order_are_none(tolerance: float) -> None:
    for seed in range(1, 11):
        chaos = torch.from_numpy(np.random.default_rng(seed).uniform(0, 800, (20, 2)))
        assert fit_prior(POINTS, chaos, tolerance=tolerance) is None


def test_matches_that_shrink_onto_one_spot_are_none() -> None:
    """Half of them look most like one place of the target: a similarity of scale 0 explains that, and says nothing."""
    target = noisy(torch.full_like(POINTS, 300.0), 2.0)
    target[10:] = torch.from_numpy(np.random.default_rng(3).uniform(0, 800, (10, 2)))
    assert fit_prior(POINTS, target, tolerance=5.0) is None


def test_sure_matches_are_enough_among_any_number_of_wrong_ones() -> None:
    target = torch.from_numpy(np.random.default_rng(8).uniform(0, 800, (20, 2)))
    target[:3] = turned(POINTS[:3], degrees=30, scale=0.8, shift=(50, 90))
    assert fit_prior(POINTS, target, tolerance=20.0) is None
    found = fit_prior(POINTS, target, tolerance=20.0, sure=torch.arange(20) < 3)
    assert found is not None
    assert found.inliers[:3].all()
    assert found.inliers.sum() < 6


def test_what_is_sure_outweighs_what_is_not() -> None:
    """Three sure matches say one thing, five others another."""
    target = torch.cat([turned(POINTS[:3], degrees=0, scale=1, shift=(200, 0)), POINTS[3:8]])
    for sure, first in ((None, False), (torch.arange(8) < 3, True)):
        found = fit_prior(POINTS[:8], target, tolerance=5.0, sure=sure)
        assert found is not None
        assert found.inliers.tolist() == [first] * 3 + [not first] * 5


@pytest.mark.parametrize("kind", LEAST)
def test_what_is_held_out_is_what_a_map_without_it_says(kind: str) -> None:
    target = noisy(bent(POINTS), 3.0)
    target[3] += 400  # a match that is wrong
    found = fitted(POINTS, target, kind=kind)
    assert not found.inliers[3]
    torch.testing.assert_close(found.held_out[3], found.predict(POINTS[3:4])[0])
    for k in np.flatnonzero(found.inliers.numpy()).tolist():
        kept = found.inliers.clone()
        kept[k] = False
        other = Prior(found.kind, kept, 0.0, found.held_out, POINTS[kept], target[kept])
        # A thin plate's smoothing is in units of the extent, which leaving out a corner changes a little.
        atol = 2.0 if kind == "thin-plate" else 1e-6
        torch.testing.assert_close(found.held_out[k], other.predict(POINTS[k : k + 1])[0], atol=atol, rtol=0)


def test_a_thin_plate_is_that_of_scipy() -> None:
    target = noisy(bent(POINTS), 3.0)
    found = fit_prior(POINTS, target, tolerance=100.0, kind="thin-plate")
    assert found is not None
    assert found.inliers.all()
    size = float((POINTS.amax(dim=0) - POINTS.amin(dim=0)).max())
    plate = RBFInterpolator(POINTS.numpy() / size, target.numpy(), kernel="thin_plate_spline", smoothing=SMOOTHING)
    asked = torch.from_numpy(np.random.default_rng(4).uniform(-100, 900, (30, 2)))
    torch.testing.assert_close(found.predict(asked), torch.from_numpy(plate(asked.numpy() / size)), atol=1e-6, rtol=0)


def test_many_matches_are_no_trouble() -> None:
    points = torch.from_numpy(np.random.default_rng(6).uniform(0, 3000, (400, 2)))
    found = fit_prior(points, noisy(turned(points, degrees=3, scale=1, shift=(4, 4)), 1.0), tolerance=5.0)
    assert found is not None
    assert found.inliers.all()


def test_wrong_calls_are_refused() -> None:
    with pytest.raises(ShapeError, match="3 points and 4"):
        fit_prior(POINTS[:3], POINTS[:4], tolerance=1.0)
    with pytest.raises(ShapeError, match="above 0"):
        fit_prior(POINTS, POINTS, tolerance=0.0)
