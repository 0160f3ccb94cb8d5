"""A portrait holds the good rows, each with its own frame and worth."""

import numpy as np
import pytest
import torch

from patchatlas.errors import ShapeError
from patchatlas.reid.embed.lab import LabEmbedder
from patchatlas.reid.embed.looks import portrait_of
from tests.reid.conftest import MakeTracklet

NAN = torch.nan
ROWS = torch.tensor([[1.0, 0.0], [NAN, NAN], [0.0, 1.0]])
VALID = torch.tensor([True, False, True])


def test_a_masked_row_is_no_part_of_it(tracklet: MakeTracklet) -> None:
    """Defects 6 to 8 once more, where rows meet their frames."""
    made = portrait_of(tracklet(1, range(10)), (2, 5, 8), ROWS, VALID, {2: 0.1, 5: 0.9, 8: 0.3})
    assert made.frames == (2, 8)
    assert made.vectors.tolist() == [[1, 0], [0, 1]]
    assert made.weights.tolist() == [0.1, 0.3]
    torch.testing.assert_close(made.pooled(), torch.tensor([0.1, 0.3], dtype=torch.float64) / 0.1**0.5)


def test_nothing_could_be_embedded(tracklet: MakeTracklet) -> None:
    empty = np.zeros((0, 5, 3), np.uint8)
    made = portrait_of(tracklet(1, range(3)), (0, 1), *LabEmbedder().embed_crops([empty, empty]), {0: 1.0, 1: 1.0})
    assert made.frames == ()
    with pytest.raises(ShapeError, match="1 frames, 3 vectors and 3 marks"):
        portrait_of(tracklet(1, range(3)), (0,), ROWS, VALID, {0: 1.0})
