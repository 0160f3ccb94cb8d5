"""Collapses that really happen: the trainer itself is made to fail in each way on phantoms, and the verdict names it.

Nothing is fed to the monitor: a setting, the data, or the sharing out of targets is at fault, and what follows is what
training makes of it. The monitor's waits are a tenth or so of its defaults, its limits are the defaults. The steps
within which each must be named are those of the table in docs/pretrain-monitors.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.pretrain.phantoms import make_phantom
from patchatlas.pretrain.config import make_config
from patchatlas.pretrain.crops.records import Sample
from patchatlas.pretrain.crops.views import Views
from patchatlas.pretrain.data import Opened, Source
from patchatlas.pretrain.monitors.log import read_log
from patchatlas.pretrain.run_folder import RunFolder
from patchatlas.pretrain.trainer import Outcome, train
from tests.pretrain.crops.memory import MemoryCache, MemoryVolume

BATCH, VIEWS = 8, 2
HEAD = {"prototypes": 32, "hidden": 64, "bottleneck": 16}
MONITOR = {
    "from_step": 40,
    "patience": 40,
    "spectra_every": 10,
    "looks": 2,
    "window_rows": 320,
    "queue_tokens": 320,
    "tokens_a_step": 64,
}
TWO_LOOKS = MONITOR["from_step"] + MONITOR["looks"] * MONITOR["spectra_every"]
WINDOW = MONITOR["window_rows"] // (BATCH * VIEWS) * 17 // 16 + 1  # it moves on by a sixteenth

ANYWHERE = {
    "globals": {"min_overlap": 0.0, "foreground_crop_prob": 0.0},
    "locals": {"inside": "volume", "min_foreground_ratio": 0.0},
}
"""Crops from anywhere, which share nothing."""


def settings(**changes) -> dict:
    """The recipe that works at this size; `changes` are groups of settings, merged in to any depth."""
    sound = {
        "data": "phantoms in memory",
        "crops": {
            "patch": 4,
            "globals": {"size": 16, "count": VIEWS},
            "locals": {"size": 8, "count": 2},
            "augment": {"low_resolution_prob": 0, "blur_prob": 0, "window_prob": 0, "gamma_prob": 0},
        },
        "model": {"dim": 48, "depth": 2, "heads": 3, "registers": 0, "drop_path": 0, "rope_rescale": 1},
        "dino_head": HEAD,
        "ibot_head": HEAD,
        "optim": {
            "lr": 2e-3,
            "warmup": 20,
            "layer_decay": 1.0,
            "patch_embed_lr": 1.0,
            "weight_decay_end": 0.04,
            "momentum": 0.98,
            "momentum_end": 0.98,
            "teacher_temp": 0.02,
            "teacher_temp_end": 0.02,
            "teacher_temp_warmup": 0,
            "freeze_last": 0,
        },
        "monitor": MONITOR,
        "train": {"batch": BATCH, "device": "cpu", "precision": "fp32", "save_every": 1000, "tensorboard": False},
    }
    return merged(sound, changes)


def merged(one: dict, other: dict) -> dict:
    both = dict(one)
    for name, value in other.items():
        known = both.get(name)
        both[name] = merged(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return both


@pytest.fixture(scope="module")
def phantoms() -> MemoryCache:
    made = [make_phantom(np.random.default_rng([7, number]), size_zyx=(48, 64, 64)) for number in range(6)]
    return MemoryCache(
        tuple(
            MemoryVolume(f"phantom{number}", one.values, one.spacing_zyx, {"body": one.labels > 0})
            for number, one in enumerate(made)
        )
    )


@dataclass(frozen=True)
class Run:
    """What a run came to.

    Attributes:
        outcome: how it ended.
        lines: of its log.
        spoke: by rule, the first step on which it spoke, and its level.
    """

    outcome: Outcome
    lines: list[dict]
    spoke: dict[str, tuple[int, str]]

    @property
    def collapses(self) -> set[str]:
        """Rules that called a collapse."""
        return {rule for rule, (_, level) in self.spoke.items() if level == "collapse"}


@pytest.fixture
def run(phantoms: MemoryCache, tmp_path: Path) -> Callable[..., Run]:
    def go(steps: int, *, source: Callable[[Views], Source] = lambda views: views, **changes) -> Run:
        config = make_config(settings(**merged(changes, {"train": {"steps": steps}})))
        opened = Opened(source(Views(phantoms, config.crops, seed=config.train.seed)), "phantoms", (3.0, 3.0, 3.0))
        outcome = train(config, tmp_path / "run", opened=opened)
        lines = list(read_log(RunFolder(tmp_path / "run").log))
        spoke: dict[str, tuple[int, str]] = {}
        for line in lines:
            for alarm in line["verdict"]["alarms"]:
                spoke.setdefault(alarm["rule"], (line["step"], alarm["level"]))
        return Run(outcome, lines, spoke)

    return go


@dataclass(frozen=True)
class Changed:
    """A source that asks another one for other samples."""

    views: Views
    asked: Callable[[int, int], tuple[int, int]]

    def __len__(self) -> int:
        return len(self.views)

    def sample(self, index: int, epoch: int) -> Sample:
        """The sample that stands in for the one asked for."""
        return self.views.sample(*self.asked(index, epoch))


def softmax_alone(logits: Tensor, *, temperature: float, **_: object) -> Tensor:
    """Targets that are not shared out over the prototypes: Sinkhorn of no rounds."""
    return torch.softmax(logits.float() / temperature, -1)


def test_targets_that_say_nothing_are_called_uniform(run):
    steps = 20 + MONITOR["patience"]
    hot = {"teacher_temp": 0.07, "teacher_temp_end": 0.07}
    found = run(steps, crops=ANYWHERE, optim=hot, monitor={"from_step": 20})
    assert found.collapses == {"uniform"}
    assert found.spoke["uniform"] == (steps - 1, "collapse")
    assert "say nothing" in found.outcome.sentence


def test_a_learning_rate_without_measure_is_called_not_finite_and_stops_the_run(run):
    found = run(10, optim={"lr": 1e6}, monitor={"on_collapse": "stop"}, train={"save_every": 1})
    broken = [line["step"] for line in found.lines if not np.isfinite(list(line["numbers"].values())).all()]
    assert found.spoke["not_finite"] == (broken[0], "collapse")
    assert found.outcome.stopped
    assert (found.outcome.done, found.outcome.good) == (broken[0] + 1, broken[0])
    assert found.lines[-1]["numbers"]["moved"] == 0
    assert all(value.isfinite().all() for value in load_file(found.outcome.encoder).values())


def test_equal_samples_make_koleo_infinite(run):
    one = run(2, source=lambda views: Changed(views, lambda _index, _epoch: (0, 0)), loss={"ibot": {"weight": 0}})
    assert one.collapses == {"koleo"}
    assert one.spoke["koleo"] == (0, "collapse")
    assert one.lines[0]["numbers"]["koleo"] > 18


def test_two_equal_samples_among_others_are_named(run):
    # Eight samples of six volumes, whose crops are the same in every epoch. KoLeo itself, a mean, hides the two.
    steps = MONITOR["spectra_every"]
    found = run(steps, source=lambda views: Changed(views, lambda index, _epoch: (index, 0)))
    assert found.spoke == {"twins": (steps - 1, "warn")}
    assert max(line["numbers"]["koleo"] for line in found.lines) < 10


def test_a_network_that_hardly_sees_its_input_is_named_before_the_first_step(run):
    found = run(1, model={"layer_scale": 1e-5})
    assert found.spoke == {"input_blind": (0, "warn")}


def test_a_sound_run_raises_no_alarm(run):
    found = run(140, monitor={"from_step": 100})
    assert found.spoke == {}
    assert found.lines[-1]["numbers"]["row_entropy"] < 0.9  # it does learn
    assert "fg_rank_of_best" in found.lines[-1]["numbers"]  # and was judged


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_a_longer_sound_run_raises_no_alarm(run, seed):
    monitor = {"from_step": 200, "patience": 50, "spectra_every": 20, "window_rows": 640, "queue_tokens": 1024}
    found = run(360, train={"seed": seed}, monitor={**monitor, "tokens_a_step": 128})
    assert found.spoke == {}
    assert found.lines[-1]["numbers"]["row_entropy"] < 0.9


@pytest.mark.slow
def test_targets_that_are_not_shared_out_end_in_one_prototype(run, monkeypatch):
    # DINO without centring or Sinkhorn collapses so (arXiv 2104.14294, section 5.3).
    monkeypatch.setattr("patchatlas.pretrain.objective.sinkhorn", softmax_alone)
    monkeypatch.setattr("patchatlas.pretrain.losses.ibot.sinkhorn", softmax_alone)
    found = run(TWO_LOOKS + WINDOW, loss={"koleo": {"weight": 0}})
    assert found.collapses == {"mode"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_steps_thirty_times_too_long_leave_few_directions(run, seed):
    found = run(TWO_LOOKS, train={"seed": seed}, loss={"koleo": {"weight": 0}}, optim={"lr": 0.06, "clip": None})
    assert found.collapses == {"dimensional"}
    assert found.spoke["dimensional"] == (TWO_LOOKS - 1, "collapse")


@pytest.mark.slow
def test_a_window_that_shows_only_air_and_body_is_called_air(run):
    found = run(TWO_LOOKS, crops={**ANYWHERE, "window": (-1000, -600)})
    assert found.spoke["air"] == (TWO_LOOKS - 1, "collapse")
