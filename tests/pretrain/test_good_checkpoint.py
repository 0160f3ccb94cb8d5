"""What a good checkpoint is, that a single bad batch is got over, and the way back after a stop."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchatlas.errors import UsageError
from patchatlas.pretrain import checkpoint, trainer
from patchatlas.pretrain.config import PretrainConfig
from patchatlas.pretrain.crops.records import Batch
from patchatlas.pretrain.monitors.log import read_log
from patchatlas.pretrain.run_folder import RunFolder
from patchatlas.pretrain.trainer import train
from tests.pretrain.tiny import photo_config

HOT = {"teacher_temp": 100.0, "teacher_temp_end": 100.0, "teacher_temp_warmup": 0, "warmup": 0}
"""Of `optim`: the teacher's targets are uniform from the first step."""
ONLY_UNIFORM = {"feature_std": None, "feature_cosine": None}


def collapsing(
    photos: Path, *, on_collapse: str = "stop", optim: dict | None = None, **train_: object
) -> PretrainConfig:
    """Uniform targets that are judged from step 2 on, and named three steps later."""
    monitor = {"patience": 3, "from_step": 2, "on_collapse": on_collapse, "limits": ONLY_UNIFORM}
    settings = {"steps": 7, "save_every": 1, "keep": 2, **train_}
    return photo_config(photos, optim={**HOT, **(optim or {})}, monitor=monitor, train=settings)


def lines(folder: Path) -> list[dict]:
    return list(read_log(RunFolder(folder).log))


def test_no_checkpoint_within_a_collapse_is_good_though_it_is_named_only_later(photos, tmp_path):
    outcome = train(collapsing(photos), tmp_path / "run")
    assert (outcome.stopped, outcome.done, outcome.good) == (True, 5, 2)
    run = RunFolder(tmp_path / "run")
    (alarm,) = (alarm for alarm in lines(run.path)[-1]["verdict"]["alarms"] if alarm["rule"] == "uniform")
    assert alarm["since"] == 2
    assert checkpoint.steps(run.states) == [2, 4, 5]  # the good one outlives `keep`
    assert run.encoder.read_bytes() == run.teacher(2).read_bytes()
    assert run.read_facts()["good"] == 2


def test_a_finished_run_says_again_what_it_said(photos, tmp_path):
    settings = collapsing(photos, on_collapse="warn", steps=5)
    first, again = train(settings, tmp_path / "run"), train(settings, tmp_path / "run")
    assert first.level == "collapse"
    assert (again.level, again.sentence, again.good) == (first.level, first.sentence, first.good)


def test_one_bad_batch_is_left_behind(photos, tmp_path, monkeypatch):
    plain = trainer.batches

    def poisoned(*args: object, first_step: int, **options: object) -> Iterator[Batch]:
        for step, batch in enumerate(plain(*args, first_step=first_step, **options), start=first_step):
            if step == 1:
                batch.globals[0, 0] = float("nan")
            yield batch

    monkeypatch.setattr("patchatlas.pretrain.trainer.batches", poisoned)
    settings = photo_config(
        photos,
        loss={"sinkhorn": {"queue_rows": 32, "queue_patch_rows": 32}},
        monitor={"spectra_every": 2, "window_rows": 8, "queue_tokens": 64},
        train={"steps": 6, "save_every": 6},
    )
    outcome = train(settings, tmp_path / "run")
    log = lines(tmp_path / "run")
    assert [line["numbers"]["moved"] for line in log] == [1, 0, 1, 1, 1, 1]
    assert [line["verdict"]["level"] for line in log] == ["ok", "collapse", "ok", "ok", "ok", "ok"]
    assert "marginal_entropy" in log[3]["numbers"]
    for line in (*log[:1], *log[2:]):
        assert all(value == value for value in line["numbers"].values()), line
    assert (outcome.level, outcome.good) == ("ok", 6)


def test_a_run_that_stopped_is_not_begun_again_by_the_same_command(photos, tmp_path):
    train(collapsing(photos), tmp_path / "run")
    with pytest.raises(UsageError, match=r"stopped on a collapse after 5 steps.*--from-good.*on_collapse=warn"):
        train(collapsing(photos), tmp_path / "run")
    assert len(lines(tmp_path / "run")) == 5
    assert train(collapsing(photos, on_collapse="warn"), tmp_path / "run").done == 7


def test_a_run_goes_back_to_its_good_checkpoint_and_on_from_there(photos, tmp_path):
    folder = tmp_path / "run"
    before = train(collapsing(photos), folder)
    milder = {
        "teacher_temp": 0.002,
        "teacher_temp_end": 0.002,
        "lr": 5e-4,
        "betas": [0.5, 0.9],
        "layer_decay": 1.0,
        "patch_embed_lr": 1.0,
    }
    settings = collapsing(photos, optim=milder)
    with pytest.raises(UsageError, match=r"optim\.lr: 0\.001 and 0\.0005"):
        train(settings, folder)
    told_at = []
    outcome = train(settings, folder, from_good=True, on_step=lambda done, _numbers, _level: told_at.append(done))
    assert told_at == [3, 4, 5, 6, 7]
    assert outcome.level != "collapse"
    assert (outcome.good, outcome.done) == (7, 7)
    log = lines(folder)
    assert [line["step"] for line in log] == list(range(7))
    assert [line["numbers"]["teacher_temp"] for line in log] == [100.0, 100.0, *[0.002] * 5]
    (record,) = RunFolder(folder).read_facts()["went_back"]
    assert (record["from"], record["to"]) == (before.done, 2)
    assert "optim.lr: 0.001 and 0.0005" in record["changed"]
    state = checkpoint.load(checkpoint.path_of(RunFolder(folder).states, 7))
    groups = [value for name, value in state["optimiser"]["param_groups"][0].items() if name == "betas"]
    assert [list(beta) for beta in groups] == [[0.5, 0.9]]
    assert "5.0e-04" in (text := RunFolder(folder).config.read_text(encoding="utf-8")) or "0.0005" in text


def test_a_run_goes_on_once_the_limit_that_was_wrong_is_put_right(photos, tmp_path):
    def settings(limits: dict, save_every: int = 1) -> PretrainConfig:
        monitor = {"spectra_every": 2, "looks": 1, "from_step": 0, "on_collapse": "stop", "limits": limits}
        return photo_config(photos, monitor=monitor, train={"steps": 5, "save_every": save_every})

    folder = tmp_path / "run"
    stopped = train(settings({"feature_std": 1e9, "feature_cosine": 0.0}), folder)
    assert (stopped.stopped, stopped.done) == (True, 2)

    class Killed(Exception):
        pass

    def kill(_done: int, _numbers: dict[str, float], _level: str) -> None:
        raise Killed

    right = settings({**ONLY_UNIFORM, "row_entropy": None}, save_every=5)
    with pytest.raises(Killed):
        train(right, folder, on_step=kill)
    levels = []
    outcome = train(right, folder, on_step=lambda _done, _numbers, level: levels.append(level))
    assert (outcome.done, outcome.good) == (5, 5)
    assert "collapse" not in levels


def test_queues_that_do_not_fit_are_refused_before_anything_is_dropped(photos, tmp_path):
    folder = tmp_path / "run"
    plain = collapsing(photos)

    def with_rows(rows: int) -> PretrainConfig:
        sinkhorn = plain.loss.sinkhorn.model_copy(update={"queue_rows": rows})
        return plain.model_copy(update={"loss": plain.loss.model_copy(update={"sinkhorn": sinkhorn})})

    train(with_rows(12), folder)
    before = sorted(folder.rglob("*"))
    with pytest.raises(UsageError, match=r"loss\.sinkhorn\.queue_rows is 4, .* holds 12 rows .* give 12 or more"):
        train(with_rows(4), folder, from_good=True)
    assert sorted(folder.rglob("*")) == before


def test_going_back_drops_all_that_came_after(photos, tmp_path):
    folder = tmp_path / "run"
    train(collapsing(photos), folder)
    run = RunFolder(folder)

    class Stopped(Exception):
        pass

    def stop(done: int, _numbers: dict[str, float], _level: str) -> None:
        assert done == 3
        raise Stopped

    with pytest.raises(Stopped):
        train(collapsing(photos, save_every=5), folder, from_good=True, on_step=stop)
    assert checkpoint.steps(run.states) == [2]
    assert list(run.teachers()) == [1, 2]
    assert [line["step"] for line in lines(folder)] == [0, 1, 2]
    facts = json.loads(run.facts.read_text(encoding="utf-8"))
    assert (facts["done"], facts["good"], facts["verdict"]["level"]) == (2, 2, "ok")


def test_what_cannot_go_back(photos, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(UsageError, match="holds no run that could go back; leave --from-good out"):
        train(collapsing(photos), folder, from_good=True)
    monitor = {"patience": 1, "from_step": 0, "on_collapse": "stop", "limits": ONLY_UNIFORM}
    bad = photo_config(photos, optim=HOT, monitor=monitor, train={"save_every": 1})
    assert train(bad, folder).good is None
    with pytest.raises(UsageError, match="no checkpoint without a collapse to go back to"):
        train(bad, folder, from_good=True)
    train(collapsing(photos), tmp_path / "other")
    with pytest.raises(UsageError, match=r"train\.batch: 4 and 2"):
        train(collapsing(photos, batch=2), tmp_path / "other", from_good=True)
    assert checkpoint.steps(RunFolder(tmp_path / "other").states) == [2, 4, 5]
