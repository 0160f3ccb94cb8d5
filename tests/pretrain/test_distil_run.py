"""Runs that distil another encoder: its tokens read at the same places, with and without a linear layer, gone on with,
and what is refused."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from patchatlas.encoders.checkpoint import read as read_weights
from patchatlas.encoders.fake import FakeEncoder, ramp
from patchatlas.encoders.loading import load_encoder
from patchatlas.encoders.protocol import Tokens
from patchatlas.errors import UsageError, WeightsError
from patchatlas.pretrain import checkpoint
from patchatlas.pretrain.config import PretrainConfig
from patchatlas.pretrain.crops.records import collate
from patchatlas.pretrain.data import open_source
from patchatlas.pretrain.distilled import across, look
from patchatlas.pretrain.distributed import Process
from patchatlas.pretrain.losses.ranks import ALONE
from patchatlas.pretrain.matches import find_matches
from patchatlas.pretrain.monitors.log import read_log
from patchatlas.pretrain.objective import Objective, Taught, weigh
from patchatlas.pretrain.run_folder import RunFolder
from patchatlas.pretrain.student import Seen
from patchatlas.pretrain.trainer import make_learner, train
from patchatlas.spec import EncoderSpec
from patchatlas.stamp import Stamp
from tests.pretrain.ranks import EXACT
from tests.pretrain.tiny import photo_config

NOTHING = {"dino": {"weight": 0}, "ibot": {"weight": 0}, "koleo": {"weight": 0}}
DISTIL = {**NOTHING, "distil": {"weight": 1, "encoder": "projected", "across": 0.5, "cls": 0.25}}
CROPS = {
    "kind": "photos",
    "patch": 8,
    "globals": {"count": 2, "size": 32, "blur_prob": [0.0], "solarise_prob": [0.0]},
    "locals": {"count": 0},
    "warp": {"scale": (0.5, 1.0)},
}
STILL = {"jitter_prob": 0.0, "grey_prob": 0.0, "flip": 0.0}


@dataclass(frozen=True)
class Projected:
    """Random projections of the pixels of a patch, and of the picture's mean as its class token."""

    dim: int = 24
    name: str = "projected"
    seed: int = 0
    patch: tuple[int, ...] = (8, 8)
    has_cls: bool = True
    layer: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def spec(self) -> EncoderSpec:
        fake = FakeEncoder(patch=self.patch, has_cls=self.has_cls).spec
        return replace(fake, name=self.name, dim=self.dim, layer=self.layer, weights_sha256=f"{self.seed:064d}")

    def __call__(self, pixels: Tensor, /) -> Tokens:
        generator = torch.Generator().manual_seed(self.seed)
        (ph, pw), (h, w) = self.patch, pixels.shape[-2:]
        cells = pixels.unflatten(3, (w // pw, pw)).unflatten(2, (h // ph, ph)).permute(0, 2, 4, 1, 3, 5).flatten(3)
        weight = torch.randn(3 * ph * pw, self.dim, generator=generator)
        patches = ((cells.flatten(1, 2) - 0.5) @ weight).tanh()
        return Tokens(patches, cls=patches.mean(1) if self.has_cls else None)


def distilling(photos: Path, **changes: Any) -> PretrainConfig:
    return photo_config(photos, **{"crops": CROPS, "loss": DISTIL, **changes})


def numbers(folder: Path) -> list[dict[str, float]]:
    return [line["numbers"] for line in read_log(RunFolder(folder).log)]


def student_of(folder: Path, step: int) -> dict[str, Tensor]:
    return checkpoint.load(checkpoint.path_of(RunFolder(folder).states, step))["student"]


def test_the_other_view_is_read_where_it_shows_the_same_place(tmp_path: Path) -> None:
    (tmp_path / "ramps").mkdir()
    pixels = (ramp((96, 128)) * 255).round().byte().permute(1, 2, 0)
    Image.fromarray(pixels.numpy()).save(tmp_path / "ramps" / "one.png")
    warp = {"scale": (0.5, 1.0), "perspective": 0.0}
    config = distilling(tmp_path / "ramps", crops={**CROPS, "augment": STILL, "warp": warp})
    source = open_source(config).source
    batch = collate([source.sample(k, 0) for k in range(6)])
    shown = look(FakeEncoder(patch=(8, 8)), batch)
    places = find_matches(batch, (8, 8), margin=0.5)
    found = across(shown, places)
    assert places.valid.float().mean() > 0.3
    for e, (one, _) in enumerate(places.pairs):
        # The mean colour of a patch says where its centre lies, so both views must say the same.
        gap = (found[e] - shown.patches[one])[places.valid[e]][:, :2].abs() * torch.tensor([128.0, 96.0])
        assert float(gap.max()) < 0.7  # pixels of the photograph: a patch is 4 to 8 of them, and colours are bytes


def test_terms_by_weight_and_those_of_uncounted_tokens_left_out(photos: Path) -> None:
    config = distilling(photos)
    source = open_source(config).source
    batch = collate([source.sample(k, 0) for k in range(3)])
    places = find_matches(batch, (8, 8), margin=0.25)
    shares = weigh(batch, torch.zeros(2, 3, 16, dtype=torch.bool), config.loss, matches=places)
    shares.counted[0, 1] = False
    objective = Objective(config.loss, ALONE)
    (goal,) = objective.goals([Taught(None, None)], [shares], temperature=0.04)
    shown = look(Projected(), batch)
    tokens = torch.randn(6, 16, 24, generator=torch.Generator().manual_seed(1), requires_grad=True)
    cls = torch.randn(6, 24, generator=torch.Generator().manual_seed(2))
    seen = Seen(cls, tokens, None, None, None, like=tokens, like_cls=cls)
    terms = objective.terms(seen, None, goal, gram=None, shown=shown, directions_seed=0)
    assert set(terms) == {"distil", "distil_across", "distil_cls"}

    cosine = torch.nn.functional.cosine_similarity
    mine = tokens.detach().unflatten(0, (2, 3))
    own = torch.stack([1 - cosine(mine[v, b], shown.patches[v, b], dim=-1) for v, b in COUNTED])
    assert float(terms["distil"].detach()) == pytest.approx(float(own.mean()), rel=1e-5)
    theirs = across(shown, places)
    other = [
        1 - cosine(mine[one, b, i], theirs[e, b, i], dim=0)
        for e, (one, _) in enumerate(places.pairs)
        for b in range(3)
        for i in range(16)
        if places.valid[e, b, i]
    ]
    assert float(terms["distil_across"].detach()) == pytest.approx(float(torch.stack(other).mean()), rel=1e-5)
    assert shown.cls is not None
    each = [1 - cosine(cls.unflatten(0, (2, 3))[v, b], shown.cls[v, b], dim=0) for v, b in COUNTED]
    assert float(terms["distil_cls"]) == pytest.approx(float(torch.stack(each).mean()), rel=1e-5)
    total = terms["distil"] + 0.5 * terms["distil_across"] + 0.25 * terms["distil_cls"]
    assert float(objective.weighted(terms).detach()) == pytest.approx(float(total.detach()), rel=1e-6)
    terms["distil"].backward()
    assert tokens.grad is not None
    assert (tokens.grad.unflatten(0, (2, 3))[0, 1] == 0).all()


COUNTED = [(0, 0), (0, 2), (1, 0), (1, 1), (1, 2)]
"""View and sample; those of view 0 of sample 1 are taken out."""


@pytest.mark.parametrize("dim", [24, 7])
def test_it_learns_and_an_interrupted_run_ends_in_the_same_bits(photos: Path, tmp_path: Path, dim: int) -> None:
    class Stopped(Exception):
        pass

    def stop(done: int, found: dict[str, float], level: str) -> None:
        del found, level
        if done == 21:
            raise Stopped

    settings = {"train": {"steps": 40, "save_every": 20, "batch": 8}, "optim": {"lr": 5e-3, "warmup": 5}}
    config, encoder = distilling(photos, **settings), Projected(dim)
    train(config, tmp_path / "whole", distilled=encoder)
    with pytest.raises(Stopped):
        train(config, tmp_path / "run", distilled=encoder, on_step=stop)
    outcome = train(config, tmp_path / "run", distilled=encoder)
    one, two = (student_of(tmp_path / name, 40) for name in ("whole", "run"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert {key.split(".")[0] for key in one} == ({"vit"} if dim == 24 else {"vit", "distil_head"})
    for name in ("distil", "distil_across", "distil_cls"):
        losses = [line[name] for line in numbers(tmp_path / "whole")]
        assert sum(losses[-5:]) < 0.8 * sum(losses[:5]), name
    assert outcome.encoder is not None
    load_encoder(outcome.encoder, device="cpu", dtype="fp32")  # nothing but the encoder, so it loads as any other
    told = json.loads(read_weights(outcome.encoder).metadata["input"])
    assert (told["distilled"], told["distilled_stamp"]) == ("projected", Stamp.of(encoder.spec).digest)
    assert "weights" not in told


def test_micro_batches_add_up_to_one_batch(photos: Path, tmp_path: Path) -> None:
    for name, settings in (("one", {"batch": 4}), ("two", {"batch": 2, "accumulate": 2})):
        config = distilling(photos, model=EXACT, train=settings | {"steps": 1, "save_every": 1})
        train(config, tmp_path / name, distilled=Projected(16))
    one, two = (numbers(tmp_path / name)[0] for name in ("one", "two"))
    for name in ("loss", "distil", "distil_across", "distil_cls", "grad/vit", "grad/distil_head"):
        assert one[name] == pytest.approx(two[name], rel=1e-4), name


def test_an_encoder_by_its_name_in_the_file_of_another_run(photos: Path, tmp_path: Path) -> None:
    first = train(distilling(photos, train={"steps": 1}), tmp_path / "first", distilled=Projected())
    loss = {**NOTHING, "distil": {"weight": 1, "encoder": str(first.encoder), "cls": 1}}
    train(distilling(photos, loss=loss, train={"steps": 2}), tmp_path / "second")
    # The same seed, so the same random weights as the first run had before its one step: very much like it.
    assert numbers(tmp_path / "second")[0]["distil"] < 0.05
    told = json.loads(read_weights(RunFolder(tmp_path / "second").encoder).metadata["input"])
    assert told["distilled"] == "encoder.safetensors"  # and not where it lies


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        (Projected(patch=(16, 16)), r"patches of \(16, 16\).* crops have \(8, 8\)"),
        (Projected(has_cls=False), "no class token; set loss.distil.cls to 0"),
        (Projected(name="other"), "is projected, and the encoder given is called other"),
        (Projected(device=torch.device("cuda")), "was given on cuda, and the run is on cpu"),
    ],
)
def test_encoders_that_do_not_fit_are_refused(photos: Path, tmp_path: Path, encoder: Projected, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        train(distilling(photos), tmp_path / "run", distilled=encoder)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("other", [Projected(seed=1), Projected(layer=1)])
def test_a_run_does_not_go_on_with_another_encoder(photos: Path, tmp_path: Path, other: Projected) -> None:
    train(distilling(photos), tmp_path / "run", distilled=Projected())
    with pytest.raises(UsageError, match=r"loss\.distil\.stamp"):
        train(distilling(photos), tmp_path / "run", distilled=other)


def test_a_stamp_in_the_settings_is_held_to(photos: Path, tmp_path: Path) -> None:
    loss = {**DISTIL, "distil": {**DISTIL["distil"], "stamp": "0" * 64}}
    with pytest.raises(UsageError, match=r"not the encoder that loss\.distil\.stamp says"):
        train(distilling(photos, loss=loss), tmp_path / "run", distilled=Projected())
    assert not (tmp_path / "run").exists()


def test_a_name_that_is_no_encoder_is_told_with_its_setting(photos: Path, tmp_path: Path) -> None:
    loss = {**NOTHING, "distil": {"weight": 1, "encoder": "absent.safetensors"}}
    with pytest.raises(WeightsError, match=r"loss\.distil\.encoder: absent\.safetensors does not exist"):
        train(distilling(photos, loss=loss), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_learner_is_never_made_without_what_its_term_asks_for(photos: Path) -> None:
    process = Process(ALONE, torch.device("cpu"))
    with pytest.raises(UsageError, match="the encoder to distil none"):
        make_learner(distilling(photos), process)
    with pytest.raises(UsageError, match="the encoder to distil projected"):
        make_learner(photo_config(photos, crops=CROPS), process, distilled=Projected())


def test_beside_other_terms_with_hidden_patches(photos: Path, tmp_path: Path) -> None:
    loss = {"distil": {"weight": 2, "encoder": "projected", "across": 0.5}}
    config = photo_config(photos, crops=CROPS, loss=loss, train={"steps": 2, "precision": "bf16"})
    train(config, tmp_path / "run", distilled=Projected())
    found = numbers(tmp_path / "run")[0]
    total = found["dino"] + found["ibot"] + 0.2 * found["koleo"] + 2 * found["distil"] + found["distil_across"]
    assert found["loss"] == pytest.approx(total, rel=1e-5)


def test_an_encoder_without_the_term_and_a_term_without_an_encoder(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"loss\.distil\.weight is 0"):
        train(photo_config(photos, crops=CROPS), tmp_path / "run", distilled=Projected())
    with pytest.raises(UsageError, match="names no encoder"):
        distilling(photos, loss={**NOTHING, "distil": {"weight": 1}})
    with pytest.raises(UsageError, match="names an encoder but has weight 0"):
        distilling(photos, loss={"distil": {"encoder": "projected"}})
    with pytest.raises(UsageError, match="compare global crops of a sample, and crops give one"):
        distilling(photos, crops={**CROPS, "globals": {"count": 1, "size": 32}})
