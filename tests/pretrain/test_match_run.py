"""Runs with the term of matches: alone, without a teacher; beside others, with hidden patches; in micro-batches."""

from pathlib import Path
from typing import Any

import pytest
import torch

from patchatlas.pretrain import checkpoint
from patchatlas.pretrain.config import PretrainConfig
from patchatlas.pretrain.crops.records import collate
from patchatlas.pretrain.data import open_source
from patchatlas.pretrain.losses.ranks import Ranks
from patchatlas.pretrain.matches import find_matches
from patchatlas.pretrain.monitors.log import read_log
from patchatlas.pretrain.objective import Objective, Taught, weigh
from patchatlas.pretrain.run_folder import RunFolder
from patchatlas.pretrain.student import Network, Seen
from patchatlas.pretrain.trainer import train
from tests.pretrain.ranks import EXACT
from tests.pretrain.tiny import photo_config

ALONE = {"dino": {"weight": 0}, "ibot": {"weight": 0}, "koleo": {"weight": 0}, "match": {"weight": 1, "others": 4}}
CROPS = {
    "kind": "photos",
    "patch": 8,
    "globals": {"count": 2, "size": 32},
    "locals": {"count": 0},
    "warp": {"scale": (0.5, 1.0)},
}


def alone(photos: Path, **changes: Any) -> PretrainConfig:
    """Matches and nothing else."""
    return photo_config(photos, **{"crops": CROPS, "loss": ALONE, **changes})


def numbers(folder: Path) -> list[dict[str, Any]]:
    return list(read_log(RunFolder(folder).log))


def test_alone_it_takes_one_pass_a_step_and_judges_no_class_tokens(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    forward = Network.forward

    def counted(self: Network, *given: Any) -> Any:
        passes.append(len(given))
        return forward(self, *given)

    monkeypatch.setattr(Network, "forward", counted)
    outcome = train(alone(photos, monitor={"spectra_every": 1, "from_step": 0, "looks": 1}), tmp_path / "run")
    assert passes == [1] * 4  # no teacher, no local crops
    for line in numbers(tmp_path / "run"):
        assert {"match", "match_accuracy", "loss", "fg_std"} <= set(line["numbers"])
        assert line["numbers"]["loss"] == line["numbers"]["match"]
        assert not {"cls_std", "cls_cosine", "initial_std", "koleo_closest", "row_entropy"} & set(line["numbers"])
    assert outcome.encoder is not None
    state = checkpoint.load(checkpoint.path_of(RunFolder(tmp_path / "run").states, 4))
    assert {key.split(".")[0] for key in state["student"]} == {"vit"}


def test_it_learns_and_an_interrupted_run_ends_in_the_same_bits(photos: Path, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(done: int, found: dict[str, float], level: str) -> None:
        del found, level
        if done == 21:
            raise Stopped

    settings = {"train": {"steps": 40, "save_every": 20, "batch": 8}, "optim": {"lr": 5e-3, "warmup": 5}}
    config = alone(photos, **settings)
    train(config, tmp_path / "whole")
    with pytest.raises(Stopped):
        train(config, tmp_path / "run", on_step=stop)
    train(config, tmp_path / "run")
    one, two = (checkpoint.load(checkpoint.path_of(RunFolder(tmp_path / name).states, 40)) for name in ("whole", "run"))
    assert all(torch.equal(one["student"][key], two["student"][key]) for key in one["student"])
    losses = [line["numbers"]["match"] for line in numbers(tmp_path / "whole")]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_micro_batches_add_up_to_one_batch(photos: Path, tmp_path: Path) -> None:
    loss = {**ALONE, "match": {"weight": 1, "others": 0}}
    for name, train_settings in (("one", {"batch": 4}), ("two", {"batch": 2, "accumulate": 2})):
        train(
            alone(photos, model=EXACT, loss=loss, train=train_settings | {"steps": 1, "save_every": 1}), tmp_path / name
        )
    one, two = (numbers(tmp_path / name)[0]["numbers"] for name in ("one", "two"))
    for name in ("loss", "match", "match_accuracy", "grad/vit"):
        assert one[name] == pytest.approx(two[name], rel=1e-4), name


def test_beside_other_terms(photos: Path, tmp_path: Path) -> None:
    config = photo_config(photos, crops=CROPS, loss={"match": {"weight": 0.5}}, train={"steps": 2})
    train(config, tmp_path / "run")
    found = numbers(tmp_path / "run")[0]["numbers"]
    total = found["dino"] + found["ibot"] + 0.1 * 2 * found["koleo"] + 0.5 * found["match"]
    assert found["loss"] == pytest.approx(total, rel=1e-5)


def test_upright_boxes_serve_too(photos: Path, tmp_path: Path) -> None:
    boxes = {**CROPS, "min_overlap": 0.5}
    del boxes["warp"]
    train(alone(photos, crops=boxes, train={"steps": 1}), tmp_path / "run")
    assert numbers(tmp_path / "run")[0]["numbers"]["match"] > 0


def test_hidden_tokens_are_neither_anchors_nor_places_nor_negatives(photos: Path) -> None:
    config = alone(photos)
    source = open_source(config).source
    batch = collate([source.sample(k, 0) for k in range(3)])
    hidden = torch.rand(2, 3, 16, generator=torch.Generator().manual_seed(0)) < 0.3
    places = find_matches(batch, (8, 8), margin=0.25)
    assert not torch.equal(places.valid, places.without(hidden).valid)
    objective = Objective(config.loss, Ranks(0, 1))
    shares = weigh(batch, hidden, config.loss, matches=places)
    (goal,) = objective.goals([Taught(None, None)], [shares], temperature=0.04)
    tokens = torch.randn(6, 16, 5, generator=torch.Generator().manual_seed(1), requires_grad=True)
    seen = Seen(cls=torch.zeros(6, 5), patches=tokens, cls_logits=None, patch_logits=None, embeddings=None)
    terms = objective.terms(seen, None, goal, gram=None, directions_seed=0)
    assert set(terms) == {"match", "match_accuracy"}
    assert float(objective.weighted(terms).detach()) == float(terms["match"].detach()) > 0
    terms["match"].backward()
    assert tokens.grad is not None
    assert (tokens.grad.unflatten(0, (2, 3))[hidden] == 0).all()
    assert (tokens.grad.unflatten(0, (2, 3))[~hidden] != 0).any(-1).float().mean() > 0.5
