"""`pretrain run` and `pretrain report`: exit codes, what they print, and the page."""

import json
from pathlib import Path

import pytest
import yaml

from patchatlas.cli.main import main
from patchatlas.pretrain.config import to_yaml
from tests.pretrain.tiny import photo_config, pictures


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(to_yaml(photo_config(pictures(tmp_path / "pictures"))), encoding="utf-8")
    return path


def test_a_run_and_its_page(settings, tmp_path, capsys):
    assert main(["pretrain", "run", str(settings), "--set", "train.steps=2", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["done"], told["stopped"]) == (2, False)
    assert Path(told["folder"]) == tmp_path / "tiny"
    assert yaml.safe_load((tmp_path / "tiny" / "config.yaml").read_text())["train"]["steps"] == 2
    assert main(["pretrain", "report", str(tmp_path / "tiny"), "--device", "cpu", "--anchors", "1"]) == 0
    page = (tmp_path / "tiny" / "report" / "index.html").read_text(encoding="utf-8")
    for picture in ("crops-0.png", "anchor-0.png", "anchor-0-step-00000002.png"):
        assert (tmp_path / "tiny" / "report" / picture).stat().st_size > 100
        assert picture in page
    assert "Entropy over ln K" in page
    assert "2 of 2 steps" in page


def test_a_key_that_is_not_known_is_a_mistake_of_the_user(settings, capsys):
    assert main(["pretrain", "run", str(settings), "--set", "train.stepz=2", "--set", "optim.lr=-1"]) == 2
    told = capsys.readouterr().err
    assert "train.stepz is not known" in told
    assert "optim.lr" in told
    assert main(["pretrain", "run", str(settings), "--set", "train"]) == 2


def test_data_that_is_not_there(settings, tmp_path):
    assert main(["pretrain", "run", str(tmp_path / "none.yaml")]) == 4
    assert main(["pretrain", "run", str(settings), "--set", f"data={tmp_path / 'none'}"]) == 4
    assert main(["pretrain", "report", str(tmp_path)]) == 4


def test_a_photograph_that_cannot_be_read_is_listed(settings, tmp_path, capsys):
    (tmp_path / "pictures" / "broken.png").write_bytes(b"no picture")
    assert main(["pretrain", "run", str(settings), "--set", "train.steps=1"]) == 3
    assert "skipped broken.png" in capsys.readouterr().out


def test_a_collapse_stops_the_run(settings, capsys):
    wild = ["--set", "optim.lr=1e30", "--set", "optim.warmup=0", "--set", "monitor.on_collapse=stop"]
    assert main(["pretrain", "run", str(settings), *wild]) == 4
    assert "stopped after" in capsys.readouterr().out
