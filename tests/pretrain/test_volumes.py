"""Volumes through the same trainer: every switch of the objective once, and an encoder that serves on volumes."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from patchatlas.dense import encode
from patchatlas.encoders.conversion import convert
from patchatlas.encoders.loading import load_encoder
from patchatlas.errors import UsageError
from patchatlas.locate.volume import locate_in_volume
from patchatlas.pretrain import checkpoint
from patchatlas.pretrain.config import PretrainConfig, make_config, read_config
from patchatlas.pretrain.crops.views import Views
from patchatlas.pretrain.data import Opened
from patchatlas.pretrain.distributed import Process
from patchatlas.pretrain.losses.ranks import ALONE
from patchatlas.pretrain.model import make_student, with_mean_std
from patchatlas.pretrain.monitors.log import read_log
from patchatlas.pretrain.run_folder import RunFolder
from patchatlas.pretrain.trainer import make_learner, train
from patchatlas.probe import probe
from tests.pretrain.crops.memory import MemoryCache, blob, small_config
from tests.pretrain.tiny import HEAD, photo_config, pictures


def config(**changes) -> PretrainConfig:
    settings = {
        "data": "memory",
        "crops": small_config(),
        "model": {"dim": 24, "depth": 2, "heads": 2, "registers": 1},
        "dino_head": HEAD,
        "ibot_head": HEAD,
        "projector": HEAD,
        "optim": {"warmup": 1, "teacher_temp_warmup": 2, "freeze_last": 0, "momentum": 0.9},
        "monitor": {"spectra_every": 50},
        "train": {"steps": 2, "batch": 2, "device": "cpu", "precision": "fp32", "save_every": 1, "tensorboard": False},
    }
    return make_config(settings | changes)


def memory(settings: PretrainConfig) -> Opened:
    rng = np.random.default_rng(0)
    cache = MemoryCache(tuple(blob(rng, name=f"blob{number}") for number in range(3)))
    return Opened(Views(cache, settings.crops, seed=settings.train.seed), "memory", (1.5, 0.75, 0.75))


SWITCHES = {
    "plain": {},
    "pair": {"foreground": {"weighting": "pair"}},
    "mean": {"foreground": {"weighting": "mean"}},
    "hierarchical": {"foreground": {"hierarchical": True, "hierarchical_below": 0.9}},
    "foreground": {"foreground": {"patches": "foreground"}},
    "prototype": {"foreground": {"patches": "prototype"}, "sinkhorn": {"queue_patch_rows": 8}},
    "gram": {"gram": {"weight": 1.0, "from_step": 1}},
    "parent": {"dino": {"local_pairs": "parent"}},
    "sigreg alone": {
        "dino": {"weight": 0},
        "ibot": {"weight": 0},
        "koleo": {"weight": 0},
        "sigreg": {"weight": 1.0, "slices": 8},
    },
    "no iBOT": {"ibot": {"weight": 0}},
}


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_trains(tmp_path, name):
    settings = config(loss=SWITCHES[name])
    outcome = train(settings, tmp_path / "run", opened=memory(settings))
    assert outcome.done == 2
    first, second = (line["numbers"] for line in read_log(RunFolder(tmp_path / "run").log))
    assert np.isfinite(second["loss"])
    assert second["moved"] == 1
    wanted = {"plain": {"dino", "ibot", "koleo"}, "gram": {"gram"}, "no iBOT": {"dino", "koleo"}}
    assert wanted.get(name, set()) <= second.keys()
    assert ("gram" in first) is False  # from step 1
    if name == "sigreg alone":
        assert {"sigreg_normality", "sigreg_agreement"} <= second.keys()
        assert not {"dino", "ibot", "koleo", "row_entropy"} & second.keys()


def test_a_run_resumes_with_its_gram_teacher(tmp_path):
    settings = config(loss=SWITCHES["gram"], train={**config().train.model_dump(), "steps": 3})
    train(settings, tmp_path / "whole", opened=memory(settings))

    class Stopped(Exception):
        pass

    def stop(done, numbers, level):
        del numbers, level
        if done == 2:
            raise Stopped

    with pytest.raises(Stopped):
        train(settings, tmp_path / "run", opened=memory(settings), on_step=stop)
    train(settings, tmp_path / "run", opened=memory(settings))
    one, two = (RunFolder(tmp_path / name).encoder.read_bytes() for name in ("whole", "run"))
    assert one == two


def test_a_gradient_that_is_not_finite_moves_nothing(tmp_path):
    settings = config(optim={"lr": 1e30, "warmup": 0}, monitor={"on_collapse": "stop", "spectra_every": 1})
    outcome = train(settings, tmp_path / "run", opened=memory(settings))
    lines = [line["numbers"] for line in read_log(RunFolder(tmp_path / "run").log)]
    assert lines[-1]["moved"] == 0
    assert outcome.stopped
    assert outcome.level == "collapse"
    assert outcome.good != outcome.done
    run = RunFolder(tmp_path / "run")
    left = checkpoint.load(checkpoint.path_of(run.states, outcome.done))
    assert all(value.isfinite().all() for value in left["student"].values())


def test_the_encoder_serves_on_volumes(tmp_path):
    settings = config(name="blobs")
    opened = memory(settings)
    outcome = train(settings, tmp_path / "run", opened=opened)
    encoder = load_encoder(outcome.encoder, device="cpu", dtype="fp32")
    assert (encoder.spec.family, encoder.spec.patch, encoder.spec.channels) == ("vit3d", (4, 4, 4), 1)
    assert (encoder.spec.mean, encoder.spec.std) == ((0.5,), (0.25,))
    assert probe(encoder, (8, 12, 16), pictures=2, generator=torch.Generator().manual_seed(0)).aligned
    values = opened.source.volumes.records[0].values
    volume = torch.from_numpy((values.astype(np.float32) + 1000) / 2000).clamp(0, 1)[None, :24, :24, :24]
    assert encode(volume, encoder).tokens.shape == (216, 24)
    assert encode(volume, encoder, windows=16).tokens.shape == (216, 24)
    found = locate_in_volume(volume, volume, (12.0, 10.0, 14.0), encoder, uuid="centre")
    assert found.uuid == "centre"
    with safe_open(outcome.encoder, framework="pt") as file:
        told = json.loads(file.metadata()["input"])
    assert told["window_hu"] == [-1000, 1000]
    assert told["spacing_mm"] == [1.5, 0.75, 0.75]
    assert told["step"] == 2
    assert convert(outcome.encoder, tmp_path / "converted.safetensors").header.input == told


def test_the_mean_weighting_is_of_a_whole_step_however_it_is_cut(tmp_path):
    numbers = {}
    for name, cut in {"whole": {"batch": 4}, "parts": {"batch": 2, "accumulate": 2}}.items():
        settings = config(
            model={"dim": 24, "depth": 2, "heads": 2, "drop_path": 0, "rope_rescale": 1},
            loss={"foreground": {"weighting": "mean"}, "koleo": {"weight": 0}},
            monitor={"spectra_every": 1},
            train={**config().train.model_dump(), "steps": 1, **cut},
        )
        train(settings, tmp_path / name, opened=memory(settings))
        (line,) = read_log(RunFolder(tmp_path / name).log)
        numbers[name] = line["numbers"]
    whole, parts = numbers["whole"], numbers["parts"]
    assert 0 < whole["globals_foreground_min"] < whole["globals_foreground"] < 1
    # Of the loss, and of all that is watched but the features (those of the first micro-batch).
    named = ("dino", "ibot", "row_entropy", "kl", "target_entropy", "dino_share", "below_ratio", "flagged", "overlap")
    crops = [name for name in whole if name.startswith(("globals_", "locals_"))]
    assert len(crops) > 20
    for name in (*named, *crops):
        assert parts[name] == pytest.approx(whole[name], rel=1e-4, abs=1e-6), name


def test_gradients_are_logged_by_module_where_there_is_a_look(tmp_path):
    settings = config(monitor={"spectra_every": 2})
    train(settings, tmp_path / "run", opened=memory(settings))
    first, second = (line["numbers"] for line in read_log(RunFolder(tmp_path / "run").log))
    modules = {"grad/vit.blocks.0", "grad/vit.blocks.1", "grad/vit.patch_embed", "grad/mask_token"}
    assert modules.isdisjoint(first)
    assert modules <= second.keys()
    assert 0 < second["grad/vit.blocks.0"] < second["grad/vit"]  # the part as a whole, as on every step
    assert "grad/vit" in first


def test_a_run_takes_over_the_mean_and_std_of_its_weights(tmp_path):
    first_settings = config(model={"dim": 24, "depth": 2, "heads": 2, "mean": [0.1], "std": [0.9]})
    first = train(first_settings, tmp_path / "first", opened=memory(first_settings))
    again = config(model={"weights": str(first.encoder)})
    second = train(again, tmp_path / "second", opened=memory(again))
    spec = load_encoder(second.encoder, device="cpu", dtype="fp32").spec
    assert (spec.mean, spec.std) == ((0.1,), (0.9,))
    assert read_config(RunFolder(tmp_path / "second").config).mean_std == ((0.1,), (0.9,))
    assert train(again, tmp_path / "second", opened=memory(again)).done == 2  # the same settings still
    told = with_mean_std(config(model={"weights": str(first.encoder), "mean": [0.3]}))
    assert told.mean_std == ((0.3,), (0.9,))
    learner = make_learner(with_mean_std(again), Process(ALONE, torch.device("cpu")))
    torch.testing.assert_close(learner.mean_std, torch.tensor([[0.1], [0.9]]))


def test_a_run_begins_from_the_weights_of_another(tmp_path):
    settings = config()
    first = train(settings, tmp_path / "first", opened=memory(settings))
    again = config(model={"weights": str(first.encoder)}, optim={"lr": 1e-12})
    second = train(again, tmp_path / "second", opened=memory(again))
    one, two = (load_encoder(run.encoder, device="cpu", dtype="fp32") for run in (first, second))
    pixels = torch.rand(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(one(pixels).patches, two(pixels).patches, atol=1e-4, rtol=1e-3)


def test_a_run_on_volumes_begins_from_an_encoder_of_pictures(tmp_path):
    flat = photo_config(pictures(tmp_path / "pictures"), train={"steps": 1})
    first = train(flat, tmp_path / "flat")
    settings = config(model={"weights": str(first.encoder)}, train={**config().train.model_dump(), "steps": 1})
    second = train(settings, tmp_path / "deep", opened=memory(settings))
    spec = load_encoder(second.encoder, device="cpu", dtype="fp32").spec
    assert (spec.family, spec.patch, spec.channels, spec.dim) == ("vit3d", (4, 4, 4), 1, 24)
    assert (spec.mean, spec.std) == ((0.5,), (0.25,))  # of volumes, not of the pictures
    with pytest.raises(UsageError, match=r"patch \(8, 8\) and 3 channels"):
        make_student(
            photo_config(
                tmp_path,
                crops={"patch": 16},
                model={"weights": str(first.encoder), "dim": None, "depth": None, "heads": None, "registers": 4},
            )
        )


def test_the_gram_teacher_sees_the_regions_of_the_student(tmp_path):
    """Defect 9 of the earlier project: it was shown new crops. On the same ones, equal networks differ in nothing."""
    settings = config(
        loss={"gram": {"weight": 1.0}},
        masks={"prob": 0},
        model={"dim": 24, "depth": 2, "heads": 2, "drop_path": 0, "rope_rescale": 1},
        train={**config().train.model_dump(), "steps": 1},
    )
    train(settings, tmp_path / "run", opened=memory(settings))
    (line,) = read_log(RunFolder(tmp_path / "run").log)
    assert abs(line["numbers"]["gram"]) < 1e-9


def test_half_precision_and_computing_again_stay_near(tmp_path):
    lines = {}
    for name, changes in {"plain": {}, "bf16": {"precision": "bf16"}, "again": {"checkpointing": True}}.items():
        settings = config(train={**config().train.model_dump(), **changes})
        train(settings, tmp_path / name, opened=memory(settings))
        lines[name] = [line["numbers"]["loss"] for line in read_log(RunFolder(tmp_path / name).log)]
        states = checkpoint.load(checkpoint.path_of(RunFolder(tmp_path / name).states, 2))
        assert all(value.dtype == torch.float32 for value in states["student"].values())
    assert lines["again"] == pytest.approx(lines["plain"], abs=1e-6)
    assert lines["bf16"] == pytest.approx(lines["plain"], rel=0.03)
    assert lines["bf16"] != lines["plain"]
