"""The folder of a run: one process at a time, what killed ones leave, a full disk, and data that was moved."""

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest
import torch

from patchatlas.errors import ResourceError, UsageError
from patchatlas.io.disk import disk_errors
from patchatlas.pretrain import checkpoint
from patchatlas.pretrain.monitors.log import read_log
from patchatlas.pretrain.run_folder import RunFolder
from patchatlas.pretrain.trainer import train
from tests.disk_limit import no_file_may_grow
from tests.pretrain.ranks import killed_at
from tests.pretrain.test_trainer import same
from tests.pretrain.tiny import photo_config


class Killed(BaseException):
    """In place of SIGKILL."""


def told(folder: Path) -> dict:
    return json.loads(RunFolder(folder).facts.read_text(encoding="utf-8"))


def left_over(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.name != ".lock"]


def test_one_process_trains_in_a_folder(photos, tmp_path):
    settings = photo_config(photos, train={"steps": 2})
    refused = []

    def second(done: int, _numbers: dict[str, float], _level: str) -> None:
        if done == 1:
            with pytest.raises(UsageError, match="another process is training in"):
                train(settings, tmp_path / "run")
            refused.append(done)

    train(settings, tmp_path / "run", on_step=second)
    assert refused == [1]
    assert [line["step"] for line in read_log(RunFolder(tmp_path / "run").log)] == [0, 1]
    assert train(settings, tmp_path / "run").done == 2  # once the first has ended


def test_what_a_process_left_that_was_killed_as_it_began_is_cleared_away(photos, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (".config.yaml.0a1b2c3d.part.yaml", ".run.json.1234abcd.part.json", "config.yaml", ".lock"):
        (folder / name).write_text("half", encoding="utf-8")
    assert train(photo_config(photos, train={"steps": 1}), folder).done == 1
    assert left_over(folder) == []


def test_a_folder_of_something_else_is_left_as_it_is(photos, tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "letter.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(UsageError, match=r"holds other files and no run \(letter\.txt\); name a new"):
        train(photo_config(photos), folder)
    assert [path.name for path in folder.iterdir()] == ["letter.txt"]


def test_facts_are_brought_up_to_date_after_a_kill_behind_the_last_state(photos, tmp_path, monkeypatch):
    settings = photo_config(photos, train={"steps": 3, "save_every": 1, "keep": 1})
    train(settings, tmp_path / "whole")
    write_facts = RunFolder.write_facts

    def kill(self: RunFolder, **facts: object) -> None:
        if facts["done"] == 3:
            raise Killed
        write_facts(self, **facts)

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_facts", kill)
        with pytest.raises(Killed):
            train(settings, folder)
    assert told(folder)["done"] == 2
    shutil.copyfile(RunFolder(folder).teacher(1), RunFolder(folder).encoder)  # as if that, too, was not yet reached
    for place in (folder / "teachers", folder / "states", folder):
        (place / ".step-00000003.x.0a1b2c3d.part.x").write_bytes(b"half")
    outcome = train(settings, folder)
    assert (outcome.done, outcome.good) == (3, 3)
    assert told(folder) == told(tmp_path / "whole")
    assert checkpoint.steps(RunFolder(folder).states) == [3]
    assert RunFolder(folder).encoder.read_bytes() == RunFolder(folder).teacher(3).read_bytes()
    assert left_over(folder) == []


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_change_of_its_folder_ends_as_if_it_had_not_been(photos, tmp_path):
    settings = photo_config(photos, train={"steps": 3, "save_every": 1, "keep": 1})
    train(settings, tmp_path / "whole")
    calls = [*range(1, 14), *range(14, 56, 7)]
    process = multiprocessing.get_context("spawn").Process(target=killed_at, args=(str(tmp_path), str(photos), calls))
    process.start()
    process.join()
    assert process.exitcode == 0
    whole = {path.relative_to(tmp_path / "whole"): path for path in (tmp_path / "whole").rglob("*") if path.is_file()}
    for call in calls:
        folder = tmp_path / str(call)
        assert train(settings, folder).done == 3
        found = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
        assert found.keys() == whole.keys(), call
        for name, path in found.items():
            if name.suffix == ".pt":  # pickled once more, the same content is other bytes
                assert same(checkpoint.load(path), checkpoint.load(whole[name])), (call, name)
            elif name.name != "log.jsonl":  # which has the samples a second
                assert path.read_bytes() == whole[name].read_bytes(), (call, name)


def test_a_full_disk_is_said_in_a_sentence_and_keeps_the_checkpoint_before(photos, tmp_path):
    folder = tmp_path / "states"
    folder.mkdir()
    checkpoint.save(folder, 1, {"student": torch.zeros(1000)})
    with no_file_may_grow(), pytest.raises(ResourceError, match="cannot write"), disk_errors(folder):
        checkpoint.save(folder, 2, {"student": torch.zeros(1000)})
    assert [path.name for path in folder.iterdir()] == ["step-00000001.pt"]

    def fill(done: int, _numbers: dict[str, float], _level: str) -> None:
        if done == 2:
            full.__enter__()

    full = no_file_may_grow()
    try:
        with pytest.raises(ResourceError, match="cannot write"):
            train(photo_config(photos), tmp_path / "run", on_step=fill)
    finally:
        full.__exit__(None, None, None)
    assert train(photo_config(photos), tmp_path / "run").done == 4


def test_data_may_be_moved(photos, tmp_path):
    folder = tmp_path / "run"
    train(photo_config(photos, train={"steps": 2, "save_every": 1}), folder)
    moved = tmp_path / "elsewhere"
    shutil.copytree(photos, moved)
    checkpoint.path_of(RunFolder(folder).states, 2).unlink()
    outcome = train(photo_config(moved, train={"steps": 2, "save_every": 1}), folder)
    assert outcome.done == 2
    assert str(moved) in RunFolder(folder).config.read_text(encoding="utf-8")
    sorted(moved.iterdir())[0].unlink()
    with pytest.raises(UsageError, match="is not what the run"):
        train(photo_config(moved, train={"steps": 2, "save_every": 1}), folder)
