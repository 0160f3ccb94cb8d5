"""Windows: worked by hand, positive everywhere."""

import math

import pytest
import torch

from patchatlas.canvas.windows import gaussian, hann, probe_intensity
from patchatlas.errors import InputError


def test_hann_is_positive_symmetric_and_separable():
    weights = hann((4, 3))
    column = torch.tensor([math.sin(math.pi * (i + 0.5) / 4) ** 2 for i in range(4)])
    row = torch.tensor([math.sin(math.pi * (i + 0.5) / 3) ** 2 for i in range(3)])
    torch.testing.assert_close(weights, column[:, None] * row)
    assert (weights > 0).all()


def test_gaussian_has_its_top_in_the_middle():
    odd = gaussian((5,), sigma=0.2)
    torch.testing.assert_close(odd, torch.tensor([math.exp(-2), math.exp(-0.5), 1, math.exp(-0.5), math.exp(-2)]))
    even = gaussian((4, 2), sigma=0.25)
    torch.testing.assert_close(even, even.flip(0, 1))
    assert even[1, 0] == even.max() == pytest.approx(math.exp(-0.5 * (0.5**2 + 1)))


def test_probe_intensity_is_the_square_over_its_peak():
    probe = torch.tensor([[0, 3j], [4 + 3j, 1e-3]], dtype=torch.complex64)
    expected = torch.tensor([[0.01, 0.36], [1, 0.01]])
    torch.testing.assert_close(probe_intensity(probe, floor=0.01), expected)
    torch.testing.assert_close(probe_intensity(probe.abs(), floor=0.01), expected)


def test_refusals():
    with pytest.raises(InputError, match="sigma"):
        gaussian((3,), sigma=0.0)
    with pytest.raises(InputError, match="floor"):
        probe_intensity(torch.ones(2, 2), floor=0.0)
    with pytest.raises(InputError, match="dark everywhere"):
        probe_intensity(torch.zeros(2, 2))
    with pytest.raises(InputError, match="finite"):
        probe_intensity(torch.tensor([[1.0, math.nan]]))
