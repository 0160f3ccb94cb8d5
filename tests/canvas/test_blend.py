"""Blending: weighted means worked by hand."""

import math

import pytest
import torch

from patchatlas.canvas.blend import BlendCanvas, hann
from patchatlas.errors import ShapeError
from patchatlas.geometry.windows import Window


def test_overlap_is_the_weighted_mean():
    canvas = BlendCanvas(1, (1, 4))
    canvas.add(torch.tensor([[[1.0, 1, 1]]]), Window((0, 0), (1, 3)), torch.tensor([[1.0, 2, 1]]))
    canvas.add(torch.tensor([[[5.0, 5, 5]]]), Window((0, 1), (1, 3)), torch.tensor([[2.0, 1, 3]]))
    torch.testing.assert_close(canvas.value(), torch.tensor([[[1.0, 3.0, 3.0, 5.0]]]))


def test_hann_is_positive_symmetric_and_separable():
    weights = hann((4, 3))
    column = torch.tensor([math.sin(math.pi * (i + 0.5) / 4) ** 2 for i in range(4)])
    row = torch.tensor([math.sin(math.pi * (i + 0.5) / 3) ** 2 for i in range(3)])
    torch.testing.assert_close(weights, column[:, None] * row)
    assert (weights > 0).all()


def test_refusals():
    canvas = BlendCanvas(2, (3, 3))
    with pytest.raises(ShapeError, match="does not fit its window"):
        canvas.add(torch.zeros(2, 2, 2), Window((0, 0), (2, 3)), torch.ones(2, 2))
    with pytest.raises(ShapeError, match="does not fit"):
        canvas.add(torch.zeros(2, 2, 2), Window((2, 0), (2, 2)), torch.ones(2, 2))
    canvas.add(torch.zeros(2, 2, 2), Window((0, 0), (2, 2)), torch.ones(2, 2))
    with pytest.raises(ShapeError, match="5 of 9 cells"):
        canvas.value()
