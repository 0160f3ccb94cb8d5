"""patchatlas weights list: what it says of an encoder that comes with the package, and its model card."""

import json

import pytest
import torch

from patchatlas.cli.main import main
from patchatlas.encoders import bundled
from patchatlas.encoders.checkpoint import digest
from tests.encoders.test_bundled import write_tiny

CARD = "# bundled:tiny\n\nCredits: somebody.\n"


@pytest.fixture(autouse=True)
def tiny(tmp_path, monkeypatch):
    path = tmp_path / "tiny.safetensors"
    write_tiny(path, dtype=torch.float16)
    path.with_suffix(".md").write_text(CARD, encoding="utf-8")
    monkeypatch.setattr(bundled, "FOLDER", tmp_path)
    monkeypatch.setattr(bundled, "SHA256", {"tiny": digest([path])})
    monkeypatch.setenv("PATCHATLAS_WEIGHTS", str(tmp_path))
    return path


def test_listed_short(capsys):
    assert main(["weights", "list", "bundled:tiny"]) == 0
    out = capsys.readouterr().out
    assert "comes with patchatlas" in out
    assert f"{bundled.SHA256['tiny'][:8]}  yes" in out
    assert "model card: patchatlas weights list --card bundled:tiny" in out
    assert "Credits" not in out


def test_card_whole(capsys):
    assert main(["weights", "list", "bundled:tiny", "--card"]) == 0
    out = capsys.readouterr().out
    assert CARD.strip() in out
    assert "model card: patchatlas" not in out


def test_card_for_scripts(capsys):
    assert main(["weights", "list", "bundled:tiny", "bundled:sift", "--card", "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["cards"] == {"bundled:tiny": CARD}
    assert [one["has_card"] for one in data["encoders"]] == [True, False]


def test_checked_and_converted_by_name(capsys, tmp_path):
    assert main(["weights", "check", "bundled:tiny"]) == 0
    assert main(["weights", "convert", "bundled:tiny", str(tmp_path / "out.safetensors")]) == 0
    assert "tiny, licence Apache-2.0" in capsys.readouterr().out
