"""Kernels: worked by hand, exact on what they promise, one anchor for all."""

import inspect
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchatlas.canvas.taps import find_taps, reach
from patchatlas.errors import UsageError
from tests.canvas.scans import INTERPOLATIONS


def weights_at(position: float, interpolation: str) -> tuple[int, list[float]]:
    taps = find_taps(torch.tensor([[position]], dtype=torch.float64), interpolation, torch.float64)
    (weights,) = taps.weights
    return int(taps.start), [1.0] if weights is None else weights[0].tolist()


@pytest.mark.parametrize(
    ("position", "interpolation", "start", "weights"),
    [
        (3.0, "nearest", 3, [1]),
        (3.49, "nearest", 3, [1]),
        (3.5, "nearest", 4, [1]),
        (-0.5, "nearest", 0, [1]),
        (3.0, "linear", 3, [1]),
        (3.25, "linear", 3, [0.75, 0.25]),
        (-0.25, "linear", -1, [0.25, 0.75]),
        (3.0, "cubic", 3, [1]),
        (3.5, "cubic", 2, [-1 / 16, 9 / 16, 9 / 16, -1 / 16]),
        (-0.25, "cubic", -2, [-0.0234375, 0.2265625, 0.8671875, -0.0703125]),
        (7.0, "fourier", 7, [1]),
    ],
)
def test_by_hand(position, interpolation, start, weights):
    found_start, found = weights_at(position, interpolation)
    assert found_start == start
    assert found == pytest.approx(weights, abs=1e-15)


@given(st.floats(-50, 50), st.sampled_from(INTERPOLATIONS))
def test_weights_sum_to_one_and_reach_no_further_than_said(position, interpolation):
    start, weights = weights_at(position, interpolation)
    assert sum(weights) == pytest.approx(1, abs=1e-14)
    covered = (
        (math.floor(position + 0.5),) * 2
        if interpolation == "nearest"
        else (
            math.floor(position),
            math.ceil(position),
        )
    )
    beyond = [
        w
        for i, w in enumerate(weights, start)
        if not covered[0] - reach(interpolation) <= i <= covered[1] + reach(interpolation)
    ]
    assert all(abs(w) < 1e-15 for w in beyond)


@given(st.floats(-50, 50), st.sampled_from([("linear", 1), ("cubic", 2), ("fourier", 0)]))
def test_polynomials_keep_their_place(position, kernel):
    """The centre of mass of the weights is the position itself, so nothing is half a pixel off."""
    interpolation, degree = kernel
    start, weights = weights_at(position, interpolation)
    for power in range(degree + 1):
        moment = sum(w * (i - position) ** power for i, w in enumerate(weights, start))
        assert moment == pytest.approx(0.0**power, abs=1e-12)


@pytest.mark.parametrize("frequency", [0.01, 0.1, 0.2, 0.3, 0.35])
def test_fourier_is_the_phase_ramp(frequency):
    """A wave is moved by the position and changed by nothing else, up to 0.7 of the Nyquist frequency."""
    positions = torch.linspace(0, 1, 33, dtype=torch.float64)[1:-1, None]
    taps = find_taps(positions, "fourier", torch.float64)
    (weights,) = taps.weights
    at = taps.start + torch.arange(weights.shape[1], dtype=torch.float64)
    moved = (weights * torch.exp(2j * math.pi * frequency * at)).sum(dim=1)
    wanted = torch.exp(2j * math.pi * frequency * positions[:, 0])
    torch.testing.assert_close(moved, wanted, rtol=0, atol=1.5e-7)


def test_cubic_and_fourier_are_smooth_across_whole_pixels():
    """Values and slopes just below and just above a whole position agree (the cubic is C1)."""
    for interpolation in ("cubic", "fourier"):
        shares = []
        for offset in (-1e-6, 1e-6):
            position = torch.tensor([[5 + offset]], dtype=torch.float64, requires_grad=True)
            taps = find_taps(position, interpolation, torch.float64)
            (weights,) = taps.weights
            at = int(taps.start) + torch.arange(weights.shape[1])
            value = (weights[0] * torch.cos(0.3 * at)).sum()
            (slope,) = torch.autograd.grad(value, position)
            shares.append(torch.stack([value.detach(), slope.reshape(())]))
        torch.testing.assert_close(*shares, rtol=0, atol=1e-5)


def test_other_kernels_are_refused_even_where_nothing_is_shifted():
    with pytest.raises(UsageError, match="'bilinear' is not nearest, linear, cubic or fourier"):
        inspect.unwrap(find_taps)(torch.zeros(1, 2, dtype=torch.float64), "bilinear", torch.float32)


def test_fractions_are_taken_in_float64():
    """A position of a million pixels keeps its fraction, which float32 would round to 1/16."""
    taps = find_taps(torch.tensor([[1_000_000.3]], dtype=torch.float64), "linear", torch.float32)
    assert int(taps.start) == 1_000_000
    assert taps.weights[0][0].tolist() == pytest.approx([0.7, 0.3], abs=1e-7)
