"""A run end to end: its folder, its resumption in the same bits, its micro-batches, its processes, its encoder."""

import json
import multiprocessing
import signal
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from safetensors import safe_open

from patchatlas.dense import encode
from patchatlas.encoders.loading import load_encoder
from patchatlas.errors import UsageError
from patchatlas.io.images import read_image
from patchatlas.pretrain import checkpoint
from patchatlas.pretrain.monitors.log import read_log
from patchatlas.pretrain.run_folder import RunFolder
from patchatlas.pretrain.trainer import train
from patchatlas.probe import probe
from tests.pretrain.ranks import EXACT, killed, one_of_two
from tests.pretrain.tiny import photo_config, pictures


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(photo_config(photos, train={"steps": 6}), folder)
    return folder


def same(one, other) -> bool:
    """Whether two states are equal bit for bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return one == other or (one != one and other != other)


def state(folder: Path, step: int) -> dict:
    return checkpoint.load(checkpoint.path_of(RunFolder(folder).states, step))


def numbers(folder: Path) -> list[dict]:
    lines = list(read_log(RunFolder(folder).log))
    for line in lines:
        line["numbers"].pop("samples_a_second")
    return lines


def test_a_young_network_is_not_called_collapsed(photos, tmp_path):
    # All class tokens of a network of two blocks are alike before it has learnt anything.
    changes = {"optim": {"warmup": 0, "teacher_temp_warmup": 0}}
    train(photo_config(photos, **changes), tmp_path / "run")
    assert numbers(tmp_path / "run")[-1]["numbers"]["cls_cosine"] > 0.9
    assert {line["verdict"]["level"] for line in numbers(tmp_path / "run")} == {"ok"}
    train(photo_config(photos, monitor={"spectra_every": 2, "from_step": 0}, **changes), tmp_path / "judged")
    assert numbers(tmp_path / "judged")[-1]["verdict"]["level"] == "collapse"  # where it is asked for


def test_the_folder_of_a_run(whole):
    run = RunFolder(whole)
    facts = run.read_facts()
    assert (facts["done"], facts["steps"]) == (6, 6)
    assert list(run.teachers()) == [2, 4, 6]
    assert checkpoint.steps(run.states)[-2:] == [4, 6]
    assert [line["step"] for line in numbers(whole)] == list(range(6))
    for name in ("loss", "dino", "ibot", "koleo", "row_entropy", "globals_foreground", "grad/vit"):
        assert name in numbers(whole)[0]["numbers"], name
    assert not list(whole.rglob("*.part*"))


def test_weights_move_and_the_teacher_follows(whole):
    early, late = state(whole, 4), state(whole, 6)
    moved = [key for key in early["student"] if not torch.equal(early["student"][key], late["student"][key])]
    assert any("blocks.0.attention.qkv" in key for key in moved)
    assert any("ibot_head.prototypes" in key for key in moved)
    assert not any(key.endswith(("scale1", "scale2", "periods")) for key in moved)
    apart = [torch.dist(late["student"][key], late["teacher"][key]) for key in moved]
    assert all(distance > 0 for distance in apart)
    assert not any(torch.equal(early["teacher"][key], late["teacher"][key]) for key in moved)


def test_an_interrupted_run_ends_in_the_same_bits(whole, photos, tmp_path):
    class Stopped(Exception):
        pass

    def stop(done, numbers, level):
        del numbers, level
        if done == 3:
            raise Stopped

    folder = tmp_path / "run"
    with pytest.raises(Stopped):
        train(photo_config(photos, train={"steps": 6}), folder, on_step=stop)
    assert [line["step"] for line in numbers(folder)] == [0, 1, 2]
    train(photo_config(photos, train={"steps": 6}), folder)
    assert same(state(folder, 6), state(whole, 6))
    assert json.dumps(numbers(folder)) == json.dumps(numbers(whole))


@pytest.mark.slow
@pytest.mark.parametrize(("after", "in_save"), [(3, False), (4, True)])
def test_a_killed_run_ends_in_the_same_bits(whole, photos, tmp_path, after, in_save):
    folder = tmp_path / "run"
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=killed, args=(str(folder), str(photos), after), kwargs={"in_save": in_save})
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert checkpoint.steps(RunFolder(folder).states) == [2]
    train(photo_config(photos, train={"steps": 6}), folder)
    assert same(state(folder, 6), state(whole, 6))
    assert RunFolder(folder).encoder.read_bytes() == RunFolder(whole).encoder.read_bytes()
    assert json.dumps(numbers(folder)) == json.dumps(numbers(whole))
    assert not list(folder.rglob("*.part*"))


@pytest.mark.slow
def test_workers_change_nothing(photos, tmp_path):
    train(photo_config(photos, train={"steps": 2, "workers": 2, "save_every": 2}), tmp_path / "run")
    train(photo_config(photos, train={"steps": 2, "workers": 0, "save_every": 2}), tmp_path / "plain")
    assert same(state(tmp_path / "run", 2), state(tmp_path / "plain", 2))


def test_micro_batches_add_up_to_one_batch(photos, tmp_path):
    loss = {"koleo": {"weight": 0.0}}
    for name, train_settings in (("one", {"batch": 4}), ("two", {"batch": 2, "accumulate": 2})):
        settings = train_settings | {"steps": 2, "save_every": 2}
        train(photo_config(photos, model=EXACT, loss=loss, train=settings), tmp_path / name)
    one, two = (state(tmp_path / name, 2) for name in ("one", "two"))
    close(one, two)
    first, second = (numbers(tmp_path / name)[0]["numbers"] for name in ("one", "two"))
    for name in ("loss", "dino", "ibot", "row_entropy", "grad/vit"):
        assert first[name] == pytest.approx(second[name], rel=1e-4), name


def close(one: dict, other: dict) -> None:
    """The same weights, but for the rounding that AdamW makes much of where a gradient is near zero."""
    for part in ("student", "teacher"):
        for key, value in one[part].items():
            torch.testing.assert_close(other[part][key], value, atol=2e-4, rtol=1e-3)
    for (key, mine), theirs in zip(
        one["optimiser"]["state"].items(), other["optimiser"]["state"].values(), strict=True
    ):
        torch.testing.assert_close(theirs["exp_avg"], mine["exp_avg"], atol=1e-6, rtol=1e-3, msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_are_one_with_twice_the_batch(photos, tmp_path, strategy):
    torch.multiprocessing.spawn(one_of_two, args=(str(tmp_path), str(photos), strategy), nprocs=2)
    loss = {"koleo": {"across_ranks": True}, "sinkhorn": {"queue_rows": 16}}
    settings = {"batch": 4, "steps": 3, "save_every": 1}
    train(photo_config(photos, model=EXACT, loss=loss, train=settings), tmp_path / "alone")
    close(state(tmp_path / "alone", 3), state(tmp_path / "run", 3))
    one, two = numbers(tmp_path / "alone")[1]["numbers"], numbers(tmp_path / "run")[1]["numbers"]
    for name in ("loss", "row_entropy", "kl", "overlap", "locals_weight_even", "grad/vit", "grad/vit.blocks.0"):
        assert one[name] == pytest.approx(two[name], rel=1e-3), name
    assert same(state(tmp_path / "run", 3), state(tmp_path / "resumed", 3))


def test_the_encoder_opens_and_serves(whole, photos):
    encoder = load_encoder(RunFolder(whole).encoder, device="cpu", dtype="fp32")
    assert (encoder.spec.name, encoder.spec.patch, encoder.spec.registers) == ("pretrained", (8, 8), 1)
    picture = read_image(sorted(photos.iterdir())[0])
    features = encode(picture, encoder)
    assert features.tokens.shape == (36, 24)
    assert probe(encoder, (32, 40), pictures=2, generator=torch.Generator().manual_seed(0)).aligned
    with safe_open(RunFolder(whole).encoder, framework="pt") as opened:
        told = json.loads(opened.metadata()["input"])
    assert told["kind"] == "photos"
    assert told["rope"] == {"axes": 2, "pairs_an_axis": 3, "unturned_channels": 0}


def test_the_encoder_is_the_teacher(whole):
    last = state(whole, 6)["teacher"]
    with safe_open(RunFolder(whole).teacher(6), framework="pt") as opened:
        for key in opened.keys():
            assert torch.equal(opened.get_tensor(key), last[f"vit.{key}"])
        assert {f"vit.{key}" for key in opened.keys()} == {key for key in last if key.startswith("vit.")}


def test_a_folder_of_another_run_is_refused(whole, photos):
    with pytest.raises(UsageError, match=r"optim\.lr: 0\.001 and 0\.5"):
        train(photo_config(photos, optim={"lr": 0.5}, train={"steps": 6}), whole)
    before = state(whole, 6)
    outcome = train(photo_config(photos, train={"steps": 6, "workers": 3, "keep": 5}), whole)
    assert outcome.done == 6
    assert same(state(whole, 6), before)


def test_other_data_is_refused(tmp_path):
    folder = tmp_path / "run"
    more = pictures(tmp_path / "pictures")
    train(photo_config(more, train={"steps": 2}), folder)
    sorted(more.iterdir())[0].unlink()
    with pytest.raises(UsageError, match="is not what the run"):
        train(photo_config(more, train={"steps": 2}), folder)
