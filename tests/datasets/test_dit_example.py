"""The example that trains on stored patches, in short: build, pack, load, condition, train."""

import json
import math
import runpy
from pathlib import Path

import pytest
import torch

from patchatlas.io.shards import read_index

EXAMPLE = Path(__file__).parents[2] / "examples" / "dit_conditioning.py"


@pytest.mark.slow
def test_short_run_of_the_example(tmp_path: Path) -> None:
    example = runpy.run_path(str(EXAMPLE))
    result = example["run"](tmp_path, photos=None, crops=60, steps=12, seeds=range(1))
    assert list(result) == ["aligned", "register-shifted", "transposed", "centre-cropped", "no patches"]
    assert all(math.isfinite(loss) and loss < 2 for losses in result.values() for loss in losses)
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert read_index(tmp_path / "shards" / "train").samples + read_index(tmp_path / "shards" / "test").samples == 60


def test_the_misplacements_are_those_of_the_old_bugs() -> None:
    example = runpy.run_path(str(EXAMPLE))
    rows, columns = 4, 6
    values = torch.arange(24.0).reshape(1, 24, 1)
    registers = torch.tensor([[[-1.0], [-2.0], [-3.0], [-4.0]]])
    made = {name: way(values, registers, rows, columns)[0, :, 0].tolist() for name, way in example["WAYS"].items()}
    assert made["aligned"] == list(range(24))
    assert made["register-shifted"] == [-1, -2, -3, -4, *range(20)]
    assert made["transposed"][:5] == [0, 6, 12, 18, 1]
    # Rows 1 and 2 and columns 1 to 4 of 4 x 6, stretched to 4 x 6.
    assert made["centre-cropped"][0] == 7
    assert made["centre-cropped"][-1] == 16
    assert made["no patches"] == [0] * 24
