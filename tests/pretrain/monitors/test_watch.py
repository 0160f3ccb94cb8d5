"""Numbers that a step of the trainer is asked for, beside those that its parts are tested on."""

import pytest

from patchatlas.pretrain.monitors.log import read_log
from patchatlas.pretrain.run_folder import RunFolder
from patchatlas.pretrain.trainer import train
from tests.pretrain.tiny import photo_config, pictures


def test_drift_of_patches_is_logged_while_the_gram_term_counts(tmp_path):
    settings = photo_config(
        pictures(tmp_path / "pictures"), loss={"gram": {"weight": 1.0, "from_step": 1}}, optim={"warmup": 0}
    )
    train(settings, tmp_path / "run")
    drift = [line["numbers"].get("gram_drift") for line in read_log(RunFolder(tmp_path / "run").log)]
    assert drift[0] is None
    assert drift[1] == pytest.approx(0, abs=1e-6)  # the teacher of that step is the Gram teacher
    assert 1e-6 < drift[2] < drift[3]


def test_the_closest_two_are_looked_for_where_there_are_two(tmp_path):
    photos = pictures(tmp_path / "pictures")
    for batch in (1, 2):
        settings = photo_config(photos, train={"batch": batch, "steps": 1}, loss={"koleo": {"weight": 0}})
        train(settings, tmp_path / f"run{batch}")
        (line,) = read_log(RunFolder(tmp_path / f"run{batch}").log)
        assert ("koleo_closest" in line["numbers"]) is (batch == 2)
        assert line["verdict"]["level"] == "ok"
