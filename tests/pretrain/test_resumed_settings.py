"""What a run may be resumed with other values of: settings that change no bit of what is learnt, and no others."""

import shutil
from pathlib import Path

import pytest
import torch

from patchatlas.errors import UsageError
from patchatlas.pretrain import checkpoint
from patchatlas.pretrain.config import FREE, to_yaml
from patchatlas.pretrain.monitors.log import read_log
from patchatlas.pretrain.run_folder import RunFolder, open_run
from patchatlas.pretrain.trainer import train
from tests.pretrain.tiny import photo_config

OTHER_MONITOR = {
    "spectra_every": 1,
    "from_step": 2,
    "patience": 1,
    "looks": 1,
    "window_rows": 4,
    "queue_tokens": 8,
    "tokens_a_step": 3,
    "limits": {"row_entropy": 0.0, "koleo": None, "alpha": None},
}
FREELY = {
    "monitor": {"monitor": OTHER_MONITOR},
    "train.save_every": {"train": {"save_every": 1}},
    "train.keep": {"train": {"keep": 7}},
    "train.tensorboard": {"train": {"tensorboard": True}},
    "train.photo_mib": {"train": {"photo_mib": 0}},
}
SLOWLY = {"train.workers": {"train": {"workers": 1}}}  # a worker takes seconds to start
"""By setting or group, what it is changed to."""

BINDING = {
    "crops": {"crops": {"min_overlap": 0.5}},
    "model": {"model": {"registers": 2}},
    "dino_head": {"dino_head": {"hidden": 32}},
    "ibot_head": {"ibot_head": {"prototypes": 8}},
    "masks": {"masks": {"prob": 0.3}},
    "loss": {"loss": {"koleo": {"weight": 0.2}}},
    "optim": {"optim": {"teacher_temp": 0.03}},
    "train.steps": {"train": {"steps": 5}},
    "train.batch": {"train": {"batch": 2}},
    "train.accumulate": {"train": {"accumulate": 2}},
    "train.seed": {"train": {"seed": 1}},
    "train.precision": {"train": {"precision": "bf16"}},
}
LEARNT = ("student", "teacher", "optimiser", "objective", "gram")
"""Parts of a state that say what was learnt."""


class Stopped(Exception):
    """Raised in a run to end it where it is."""


@pytest.fixture(scope="module")
def half(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps that was stopped after the second."""

    def stop(done: int, _numbers: dict[str, float], _level: str) -> None:
        if done == 2:
            raise Stopped

    folder = tmp_path_factory.mktemp("half") / "run"
    with pytest.raises(Stopped):
        train(photo_config(photos), folder, on_step=stop)
    return folder


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What the run ends in if nothing stops it and nothing is changed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(photo_config(photos), folder)
    return learnt(folder)


def learnt(folder: Path) -> bytes:
    """Every bit of what a run of four steps has learnt."""
    state = checkpoint.load(checkpoint.path_of(RunFolder(folder).states, 4))
    return b"".join(
        value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode()
        for part in LEARNT
        for value in leaves(state[part])
    )


def leaves(state: object) -> list[object]:
    if isinstance(state, dict):
        return [leaf for name, value in sorted(state.items(), key=str) for leaf in (name, *leaves(value))]
    if isinstance(state, list | tuple):
        return [leaf for value in state for leaf in leaves(value)]
    return [state]


def goes_on_alike(half: Path, whole: bytes, photos: Path, folder: Path, changes: dict) -> None:
    shutil.copytree(half, folder)
    outcome = train(photo_config(photos, **changes), folder)
    assert outcome.done == 4
    assert learnt(folder) == whole
    assert RunFolder(folder).config.read_text(encoding="utf-8") == to_yaml(photo_config(photos, **changes))


@pytest.mark.parametrize("name", FREELY)
def test_a_run_goes_on_with_it_changed_and_learns_the_same(half, whole, photos, tmp_path, name):
    goes_on_alike(half, whole, photos, tmp_path / "run", FREELY[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOWLY)
def test_a_run_goes_on_with_it_changed_slowly(half, whole, photos, tmp_path, name):
    goes_on_alike(half, whole, photos, tmp_path / "run", SLOWLY[name])


def test_no_free_setting_is_left_out():
    # Another device rounds otherwise, and learns the same else; moved data: tests/pretrain/test_run_folder.py.
    assert set(FREE) == {*FREELY, *SLOWLY, "train.device", "data"}


def test_a_resumed_run_is_judged_by_its_new_limits(half, photos, tmp_path):
    shutil.copytree(half, tmp_path / "run")
    stops = OTHER_MONITOR | {"on_collapse": "stop"}
    outcome = train(photo_config(photos, monitor=stops), tmp_path / "run")
    assert (outcome.stopped, outcome.done, outcome.good) == (True, 3, 2)
    levels = [line["verdict"]["level"] for line in read_log(RunFolder(tmp_path / "run").log)]
    assert levels == ["ok", "ok", "collapse"]
    again = train(photo_config(photos), tmp_path / "run")  # and goes on when they are as they were
    assert (again.done, again.level) == (4, "ok")


@pytest.mark.parametrize("name", BINDING)
def test_what_changes_what_is_learnt_is_refused(half, photos, name):
    fingerprint = RunFolder(half).read_facts()["data"]
    open_run(half, photo_config(photos), fingerprint=fingerprint)  # as it was
    with pytest.raises(UsageError, match=rf"other settings \({name}"):
        open_run(half, photo_config(photos, **BINDING[name]), fingerprint=fingerprint)
