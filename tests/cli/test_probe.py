"""The probe command: report on stdout, exit 0 when aligned and 4 when not."""

import json

import pytest
import torch

from patchatlas.cli import probe as command
from patchatlas.cli.main import main
from patchatlas.encoders import loading
from patchatlas.encoders.fake import FakeEncoder
from patchatlas.errors import UsageError
from tests.probe import faults


@pytest.fixture
def loaded(monkeypatch):
    """Have `load_encoder` give the encoder in `loaded["encoder"]`, and keep what it was asked."""
    given = {"encoder": FakeEncoder()}

    def load(name, **options):
        given.update(name=name, options=options)
        return given["encoder"]

    monkeypatch.setattr(loading, "load_encoder", load)
    return given


def test_aligned_is_exit_0(loaded, capsys):
    assert main(["probe", "some/weights", "--device", "cpu", "--dtype", "fp32", "--layer", "-2"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "aligned: fake at 128x192, 8x12 patches",
        "The token that changes most is that of the perturbed patch in 96 of 96 cells, with no common displacement.",
        "hit rate 100.0 % (96 of 96); 1 picture, 97 forwards",
        "token minus patch, (row, col):",
        f"          (0, 0)     96  {'#' * 40}",
    ]
    assert err == ""
    assert loaded["name"] == "some/weights"
    assert loaded["options"] == {"device": "cpu", "dtype": "fp32", "layer": -2}


def test_misaligned_is_exit_4_with_the_report_on_stdout(loaded, capsys):
    loaded["encoder"] = faults.Faulty(FakeEncoder(), behind=faults.rolled(3))
    assert main(["probe", "x", "--size", "64x80"]) == 4
    out, _ = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "shifted: fake at 64x80, 4x5 patches"
    assert "3 tokens too late" in lines[1]
    assert lines[2].startswith("hit rate 0.0 % (0 of 20)")
    # 2 of 5 columns stay in their row, save that the last row's others come back in the first.
    assert [line.split()[:3] for line in lines[4:7]] == [
        ["(+1,", "-2)", "9"],
        ["(0,", "+3)", "8"],
        ["(-3,", "-2)", "3"],
    ]
    assert lines[-1].startswith("what to do: Slice the patch tokens after CLS and all registers")


def test_json(loaded, capsys):
    loaded["encoder"] = faults.Faulty(FakeEncoder(), behind=faults.column_by_column)
    assert main(["probe", "x", "--size", "64x96", "--format", "json", "--seed", "7"]) == 4
    stored = json.loads(capsys.readouterr().out)
    assert (stored["verdict"], stored["axes"], stored["size"]) == ("transposed", [1, 0], [64, 96])


def test_volumes_have_a_default_size_too(loaded, capsys):
    loaded["encoder"] = FakeEncoder(patch=(2, 4, 4), channels=1)
    assert main(["probe", "x"]) == 0
    assert "at 8x24x32, 4x6x8 patches" in capsys.readouterr().out


def test_long_histograms_are_cut(loaded, capsys):
    loaded["encoder"] = faults.Faulty(FakeEncoder(), behind=faults.shuffled)
    assert main(["probe", "x", "--pictures", "1"]) == 4
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("scrambled:")
    assert lines[4 + command.BARS].split()[0] == "others"


def test_cells_without_answer_are_counted(loaded, capsys):
    loaded["encoder"] = faults.Faulty(FakeEncoder(), before=torch.zeros_like)
    assert main(["probe", "x", "--pictures", "1"]) == 4
    assert "no answer     96" in capsys.readouterr().out


@pytest.mark.usefixtures("loaded")
def test_size_that_does_not_fit_the_patch_is_bad_input(capsys):
    assert main(["probe", "x", "--size", "64x90"]) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert "side 90" in err


@pytest.mark.parametrize("text", ["224", "224x", "axb", "224x-2", "0x16", "1x2x3x4", "", "16x²"])
def test_sizes_that_are_none(text):
    with pytest.raises(UsageError, match="224x336"):
        command.parse_size(text)


def test_sizes():
    assert command.parse_size("224x336") == (224, 336)
    assert command.parse_size("16X64x96") == (16, 64, 96)
