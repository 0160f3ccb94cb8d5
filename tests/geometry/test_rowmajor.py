"""Row-major numbers and indices."""

import subprocess
import sys

import pytest
import torch

from patchatlas.geometry.rowmajor import unravel


def test_a_number_becomes_row_and_column() -> None:
    assert unravel(torch.tensor([0, 3, 4, 11]), (3, 4)).tolist() == [[0, 0], [0, 3], [1, 0], [2, 3]]


@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 5)])
def test_it_agrees_with_torch(shape: tuple[int, ...]) -> None:
    flat = torch.arange(torch.Size(shape).numel())
    assert unravel(flat, shape).equal(torch.stack(torch.unravel_index(flat, shape), dim=-1))
    assert unravel(flat[None], shape).shape == (1, len(flat), len(shape))


def test_it_does_not_import_sympy() -> None:
    code = (
        "import sys, torch; from patchatlas.geometry.rowmajor import unravel; unravel(torch.tensor([5]), (2, 4)); "
        "sys.exit('sympy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
