"""`pretrain ablate`: the list of arms, exit codes, and the table of two arms."""

import json

from patchatlas.cli.main import main
from patchatlas.pretrain.config import to_yaml
from tests.pretrain.ablation.volumes import make_volumes, tiny_config


def test_the_list_of_arms(capsys):
    assert main(["pretrain", "ablate", "--list"]) == 0
    text = capsys.readouterr().out
    assert "S1           crops hold foreground" in text
    assert "all-overlap" in text.splitlines()[-1]
    assert main(["pretrain", "ablate", "--list", "--arms", "S2", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["arms"]["S2"]["crops.locals.inside"] == "global"


def test_what_is_missing_or_not_known(tmp_path, capsys):
    assert main(["pretrain", "ablate"]) == 2
    assert "--labelled" in capsys.readouterr().err
    assert main(["pretrain", "ablate", "--list", "--arms", "S9"]) == 2
    options = ["--labelled", str(tmp_path), "--output", str(tmp_path / "out")]
    assert main(["pretrain", "ablate", str(tmp_path / "none.yaml"), *options]) == 4


def test_two_arms(tmp_path, capsys):
    cache, held = make_volumes(tmp_path)
    config = tmp_path / "tiny.yaml"
    config.write_text(to_yaml(tiny_config(cache)), encoding="utf-8")
    options = ["--labelled", str(held), "--output", str(tmp_path / "out"), "--seeds", "1", "--set", "train.steps=1"]
    assert main(["pretrain", "ablate", str(config), *options, "--arms", "uniform", "S1"]) == 0
    assert capsys.readouterr().out.rstrip("\n") == (tmp_path / "out" / "ablation.md").read_text().rstrip("\n")
    assert main(["pretrain", "ablate", str(config), *options, "--arms", "uniform", "S1", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((tmp_path / "out" / "ablation.json").read_text())
    assert [row["name"] for row in told["rows"]][:2] == ["uniform", "S1"]
