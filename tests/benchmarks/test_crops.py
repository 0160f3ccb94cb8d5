"""The benchmark of crops: what it makes, and that what it claims of ours holds at a small size."""

import numpy as np
import torch

from benchmarks.crops import Result, claims, measure, ours, sample_us, trunk


def test_ours_at_a_small_size() -> None:
    values = torch.from_numpy(trunk((32, 64, 64), 0))[None]
    mask = (values > -500).to(torch.uint8)
    assert 0.2 < mask.float().mean() < 0.5
    found = measure("patchatlas", ours(values, mask, 16, 8, 0.4, 0), crops=2, draws=50, ratio=0.4, rounds=2)
    assert found.below == 0
    assert found.bytes is not None
    assert found.bytes < 4000
    np.testing.assert_array_equal(trunk((8, 16, 16), 3), trunk((8, 16, 16), 3))


def test_a_sample_at_a_small_size() -> None:
    took, crops = sample_us(trunk((96, 104, 112), 0), 8, samples=2, rounds=2, seed=0)
    assert crops == 10
    assert 0 < took < 1e6


def test_claims_say_what_fails() -> None:
    fast = Result("patchatlas", 0.1, 5.0, 100.0, 0.0, 1000)
    slow = Result("MONAI PosNeg", 1.0, 200.0, 10.0, 0.1, None)
    lines = list(claims({"patchatlas": fast, "MONAI PosNeg": slow}))
    assert [line.split(":")[0] for line in lines] == ["holds", "holds", "FAILS", "FAILS"]
    assert "40 x a draw" in lines[2]
