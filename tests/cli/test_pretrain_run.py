"""`pretrain run` and `pretrain report`: exit codes, what they print, and the page."""

import json
import sys
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
    assert "Overlap of global crops" in page
    assert "locals_weight_even" in page
    assert "Views of a sample" in page
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
    told = capsys.readouterr().out
    assert "stopped after" in told
    assert "no encoder: a rule of collapse was alarmed at every checkpoint" in told
    assert "no good checkpoint to go back to" in told


def test_a_stopped_run_goes_back_and_on(settings, tmp_path, capsys):
    hot = ["teacher_temp=100", "teacher_temp_end=100", "teacher_temp_warmup=0", "warmup=0"]
    watched = ["patience=1", "from_step=2", "on_collapse=stop"]
    limits = ["feature_std=null", "feature_cosine=null"]
    changes = [f"optim.{one}" for one in hot] + [f"monitor.{one}" for one in watched]
    changes += [f"monitor.limits.{one}" for one in limits]
    given = [word for change in changes for word in ("--set", change)]
    command = ["pretrain", "run", str(settings), *given]
    assert main(command) == 4
    told = capsys.readouterr().out
    assert "stopped after 3 steps" in told
    assert "encoder after 2 steps, the last without a rule of collapse that was alarmed" in told
    assert "to go on: go back to the last good checkpoint with --from-good" in told
    assert main(command) == 2
    assert "stopped on a collapse after 3 steps; go back to the last good" in capsys.readouterr().err
    cooler = ["--set", "optim.teacher_temp=0.002", "--set", "optim.teacher_temp_end=0.002"]
    assert main([*command, *cooler, "--from-good"]) == 0
    assert "done after 4 steps" in capsys.readouterr().out
    facts = json.loads((tmp_path / "tiny" / "run.json").read_text(encoding="utf-8"))
    assert facts["went_back"][0]["changed"] == [
        "optim.teacher_temp: 100.0 and 0.002",
        "optim.teacher_temp_end: 100.0 and 0.002",
    ]


def test_a_short_run_and_its_page_say_that_it_was_not_judged(settings, tmp_path, capsys):
    command = ["pretrain", "run", str(settings), "--set", "train.steps=2", "--set", "monitor.from_step=3"]
    assert main(command) == 0
    assert "step 1: no fault seen at once; all else is not judged before step 3" in capsys.readouterr().out
    assert main(command) == 0  # a second time
    told = capsys.readouterr().out
    assert "nothing was left to do, the run had its 2 steps before" in told
    assert "not judged before step 3" in told
    assert main(["pretrain", "report", str(tmp_path / "tiny"), "--anchors", "0", "--crops", "0"]) == 0
    page = (tmp_path / "tiny" / "report" / "index.html").read_text(encoding="utf-8")
    assert '">not judged before step 3</span>' in page
    assert "Only faults that are seen at once are judged before step 3" in page


def test_a_page_of_data_that_has_changed_is_refused(settings, tmp_path, capsys):
    assert main(["pretrain", "run", str(settings), "--set", "train.steps=1"]) == 0
    (tmp_path / "pictures" / "0.png").unlink()
    command = ["pretrain", "report", str(tmp_path / "tiny")]
    assert main(command) == 2
    assert "leave them out with --crops 0 --anchors 0" in capsys.readouterr().err
    assert not (tmp_path / "tiny" / "report").exists()
    assert main([*command, "--crops", "0", "--anchors", "0"]) == 0


def test_an_interrupted_run_says_where_it_goes_on(settings, capsys, monkeypatch):
    from patchatlas.pretrain import trainer

    take, told = trainer.take_step, []

    def stopping(*arguments):
        told.append(arguments)
        if len(told) == 4:
            raise KeyboardInterrupt
        return take(*arguments)

    monkeypatch.setattr(trainer, "take_step", stopping)
    assert main(["pretrain", "run", str(settings)]) == 130
    said = capsys.readouterr().err
    assert "interrupted: after 3 steps; the checkpoint after 2 steps is kept in " in said
    assert "the same command goes on from there" in said
    assert main(["pretrain", "run", str(settings)]) == 0
    assert "done after 4 steps, 2 of them before" in capsys.readouterr().out


def test_a_run_that_is_interrupted_on_its_way_from_a_good_checkpoint_is_not_sent_back_again(tmp_path):
    from patchatlas.cli.pretrain_run import interrupted
    from patchatlas.pretrain import checkpoint

    (tmp_path / "states").mkdir()
    checkpoint.save(tmp_path / "states", 2, {})
    assert interrupted(tmp_path, 3, from_good=True).endswith("the same command without --from-good goes on from there")
    assert interrupted(tmp_path, 3, from_good=False).endswith("the same command goes on from there")
    assert interrupted(tmp_path, 0, from_good=True).endswith("the same command goes on from there")  # nothing is done


def test_the_help_of_from_good_names_what_may_change(capsys):
    from patchatlas.pretrain.config import FROM_GOOD

    assert main(["pretrain", "run", "--help"]) == 0
    told = capsys.readouterr().out
    for name in FROM_GOOD:
        assert (name if "." not in name or name.startswith("loss") else name.split(".")[-1]) in told, name


def test_a_start_that_failed_binds_nobody(settings, tmp_path, monkeypatch):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr("patchatlas.pretrain.trainer.make_learner", full)
    assert main(["pretrain", "run", str(settings), "--set", "model.dim=96"]) == 6
    assert (tmp_path / "tiny" / "run.json").exists()
    monkeypatch.undo()
    assert main(["pretrain", "run", str(settings), "--set", "train.steps=1"]) == 0
    stored = yaml.safe_load((tmp_path / "tiny" / "config.yaml").read_text(encoding="utf-8"))
    assert stored["model"]["dim"] == 24
    assert main(["pretrain", "run", str(settings), "--set", "train.steps=1", "--set", "optim.lr=0.5"]) == 2


def test_missing_weights_are_answered_by_what_a_run_can_do(settings, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    changes = ["model={weights: dinov3-vitl16}", "crops.patch=16"]
    assert main(["pretrain", "run", str(settings), *(word for one in changes for word in ("--set", one))]) == 5
    told = capsys.readouterr().err
    assert "leave model.weights out" in told
    assert "--encoder" not in told
    assert not (tmp_path / "tiny").exists()


def test_a_missing_extra_is_found_before_anything_is_written(settings, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert main(["pretrain", "run", str(settings), "--set", "train.tensorboard=true"]) != 0
    assert "needs tensorboard" in capsys.readouterr().err
    assert not (tmp_path / "tiny").exists()


def test_a_folder_in_place_of_the_settings(settings, tmp_path, capsys):
    (tmp_path / "tiny").mkdir()
    assert main(["pretrain", "run", str(tmp_path / "tiny")]) == 4
    assert f"is a folder, not a YAML file of settings; give {settings}" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text("data: x", encoding="utf-8")
    assert main(["pretrain", "run", str(tmp_path / "other")]) == 4
    assert "config.yaml, and --output" in capsys.readouterr().err


def test_help_names_its_arguments_as_its_text_does(capsys):
    assert main(["pretrain", "run", "--help"]) == 0
    told = capsys.readouterr().out
    assert "--output DIR" in told
    assert "--set KEY=VALUE" in told
    assert "{None}" not in told
