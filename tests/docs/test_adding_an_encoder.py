"""The page on adding an encoder: its example runs as it stands, gives an encoder, and is well aligned."""

import re
from pathlib import Path

import pytest
import torch

from patchatlas.encoders.protocol import Encoder
from patchatlas.errors import ShapeError

PAGE = Path(__file__).parents[2] / "docs" / "adding-an-encoder.md"


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)
    names: dict[str, object] = {"__name__": "example"}
    exec(compile(code, PAGE.name, "exec"), names)
    assert capsys.readouterr().out == "(6, 10) torch.Size([1, 3])\n"
    encoder = names["encoder"]
    assert isinstance(encoder, Encoder)
    picture = torch.zeros(1, 3, 16, 32)
    picture[0, :, 8:, 8:16] = 1  # row 1, column 1 of 2 x 4
    assert encoder(picture).patches[0, :, 0].tolist() == [0, 0, 0, 0, 0, 1, 0, 0]
    with pytest.raises(ShapeError):
        encoder(picture[..., :-1])
