"""Spreads in target pixels, where a cell is wider than it is high."""

import torch

from patchatlas.geometry.frame import Frame
from patchatlas.geometry.grid import PatchGrid
from patchatlas.locate import search


def test_a_spread_is_scaled_along_its_own_axis():
    # 64 rows and 96 columns drawn as 32 x 32: a cell of 8 input pixels is 24 target pixels wide and 16 high.
    grid = PatchGrid.on(Frame.whole((64, 96)).resize((32, 32)), (8, 8))
    spread = search.in_pixels(torch.tensor([[[1.0, 0.5], [0.5, 2.0]]], dtype=torch.float64), grid)[0]
    assert spread.tolist() == [[576, 192], [192, 512]]
