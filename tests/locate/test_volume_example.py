"""examples/locate_volume.py: its encoder gives a token a patch, in order, and its marks are found."""

import sys

import numpy as np
import pytest
import torch

from examples import locate_volume as example
from patchatlas.dense import encode


def test_the_encoder_sees_each_patch_where_it_is() -> None:
    """A block inside one patch: that patch and its neighbours within the reach answer, the others are zero."""
    volume = torch.zeros(1, 16, 24, 32)
    volume[:, 5:7, 9:11, 17:19] = 1.0  # with its slopes in patch (1, 2, 4)
    encoder = example.GradientEncoder(patch=4, reach=1)
    tokens = encode(volume, encoder).as_grid()
    assert tokens.shape == (encoder.spec.dim, 4, 6, 8)
    seen = tokens.abs().sum(dim=0) > 0
    expected = torch.zeros(4, 6, 8, dtype=torch.bool)
    expected[0:3, 1:4, 3:6] = True
    assert torch.equal(seen, expected)


def test_the_motion_is_undone() -> None:
    random = np.random.default_rng(0)
    motion = example.draw_motion(random)
    places = random.uniform(20, 60, (50, 3))
    assert motion.before(motion.after(places)) == pytest.approx(places, abs=1e-6)
    assert np.linalg.norm(motion.after(places) - places, axis=1).mean() > 1


@pytest.mark.slow
def test_it_finds_its_marks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["locate_volume.py", "--marks", "4"])
    example.main()
    said = capsys.readouterr().out
    assert said.count("voxels; ") >= 4
    median = float(said.split("error: median ")[1].split(",")[0])
    assert median < 2
