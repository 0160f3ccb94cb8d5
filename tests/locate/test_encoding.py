"""A recipe's encoding: nothing asked for changes nothing, a planted code of position goes, layers and windows tell."""

import logging
import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.dense import encode
from patchatlas.encoders import sift
from patchatlas.encoders.fake import FakeEncoder
from patchatlas.encoders.protocol import Encoder, Tokens
from patchatlas.errors import StampError, UsageError
from patchatlas.geometry.frame import Frame
from patchatlas.locate import encoding
from patchatlas.locate.encoding import encode_view, prepare
from patchatlas.locate.pair import locate_pair
from patchatlas.locate.recipe import Recipe
from patchatlas.spec import EncoderSpec


@dataclass
class CodedEncoder:
    """Mean colours less grey, to which a code of position is added: 2 features that depend on nothing but the place."""

    code: float = 4.0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    inputs: list[tuple[int, ...]] = field(default_factory=list)
    levels: list[tuple[float, float]] = field(default_factory=list)

    @property
    def spec(self) -> EncoderSpec:
        facts = FakeEncoder(patch=(8, 8)).spec
        return replace(facts, dim=5, mean=(0.5,) * 3, weights_sha256=f"coded {self.code}")

    def __call__(self, pixels: Float[Tensor, "b c *size"], /) -> Tokens:
        self.inputs.append(tuple(pixels.shape))
        self.levels.append((float(pixels.min()), float(pixels.max())))
        tokens = FakeEncoder(patch=(8, 8), position_code=True)(pixels)
        seen, place = tokens.patches[..., :3] - 0.5, tokens.patches[..., 3:]
        place = self.code * (place / place.amax(dim=1, keepdim=True) - 0.5)
        # Mixed into the others, so that no single feature is the code.
        mix = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0)))[0]
        return Tokens(torch.cat([seen, place], dim=-1) @ mix, tokens.cls, tokens.registers)


def picture(seed: int, rows: int = 64, columns: int = 96) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (rows // 8, columns // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)


@pytest.fixture(autouse=True)
def no_bases() -> None:
    encoding._bases.clear()


def test_a_plain_recipe_is_plain_encoding() -> None:
    encoder = FakeEncoder(patch=(8, 8))
    made = encode_view(picture(0), encoder, Recipe(image_size=192))
    plain = encode(picture(0), encoder, size=192)
    assert torch.equal(made.tokens, plain.tokens)
    assert made.stamp == plain.stamp
    assert prepare(encoder, Recipe()) is encoder


def test_a_frame_is_drawn_as_it_is() -> None:
    encoder = FakeEncoder(patch=(8, 8))
    frame = Frame.whole((64, 96)).crop((-8, 4), (32, 40))
    made = encode_view(picture(0), encoder, Recipe(), frame=frame)
    assert torch.equal(made.tokens, encode(picture(0), encoder, frame=frame).tokens)


def test_debias_takes_out_a_code_of_position_and_leaves_what_is_shown() -> None:
    recipe = Recipe(image_size=96, debias=2)
    made = encode_view(picture(0), CodedEncoder(), recipe)
    clean = encode_view(picture(0), CodedEncoder(code=0.0), Recipe(image_size=96))
    cosines = torch.nn.functional.normalize(clean.tokens, dim=1)
    assert torch.allclose(made.tokens @ made.tokens.T, cosines @ cosines.T, atol=1e-3)
    coded = torch.nn.functional.normalize(encode_view(picture(0), CodedEncoder(), Recipe(image_size=96)).tokens, dim=1)
    assert (coded @ coded.T - cosines @ cosines.T).abs().max() > 0.5


def test_a_loud_code_of_position_hides_the_place_and_debias_shows_it() -> None:
    """The scene moved by (24, 16), and what a patch shows counts less than where it is."""
    scene = picture(5, 96, 128)
    source, target = scene[:64, :96], scene[16:80, 24:120]
    mark, place = (60.0, 44.0), (36.0, 28.0)
    for debias in (0, 2):
        recipe = Recipe(image_size=96, debias=debias)
        finding = locate_pair(source, target, mark, CodedEncoder(), uuid="m", recipe=recipe)
        assert (math.dist(finding.target_xy, place) < 4.0) == (debias > 0)


def test_debiased_maps_say_so_and_are_compared_with_no_others() -> None:
    maps = [encode_view(picture(0), CodedEncoder(), Recipe(image_size=96, debias=k)) for k in (0, 1, 2)]
    assert [features.spec.debias for features in maps] == [0, 1, 2]
    assert "debias" not in dict(maps[0].stamp.facts)
    with pytest.raises(StampError, match="debias: 1 and 2"):
        maps[1].stamp.require(maps[2].stamp)


def test_the_empty_picture_is_shown_once_for_each_grid() -> None:
    encoder = CodedEncoder()
    recipe = Recipe(image_size=96, debias=2)
    for seed in range(3):
        encode_view(picture(seed), encoder, recipe)
    assert len(encoder.inputs) == 4
    assert encoder.levels.count((0.5, 0.5)) == 1  # the mean of the encoder's inputs
    encode_view(picture(0, 96, 64), encoder, recipe)
    assert encoder.inputs[4:] == [(1, 3, 96, 64)] * 2
    encode_view(picture(0), encoder, Recipe(image_size=96, debias=1))
    assert len(encoder.inputs) == 8


def test_no_more_than_so_many_bases_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "_KEPT", 2)
    encoder = CodedEncoder()
    for columns in (64, 72, 80, 64):
        encode_view(picture(0, 64, columns), encoder, Recipe(image_size=columns, debias=1))
    assert len(encoding._bases) == 2
    assert len(encoder.inputs) == 8


def test_an_encoder_that_sees_no_position_is_left_alone_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    encoder = FakeEncoder(patch=(8, 8))
    with caplog.at_level(logging.WARNING):
        made = encode_view(picture(0), encoder, Recipe(image_size=96, debias=2))
    assert "debias changes nothing" in caplog.text
    plain = encode(picture(0), encoder, size=96).tokens
    assert torch.allclose(made.tokens, torch.nn.functional.normalize(plain, dim=1))
    assert made.cls is not None


def test_windows_are_debiased_each_on_its_own_grid() -> None:
    encoder = CodedEncoder()
    recipe = Recipe(image_size=96, windows=48, debias=2, global_view=False)
    made = encode_view(picture(0), encoder, recipe)
    assert {shape[2:] for shape in encoder.inputs} == {(48, 48)}
    clean = encode_view(picture(0), CodedEncoder(code=0.0), Recipe(image_size=96))
    assert torch.allclose(
        made.similarity(made.at(made.grid.centres())), clean.similarity(clean.at(clean.grid.centres())), atol=1e-3
    )


def test_windows_with_and_without_the_whole_picture() -> None:
    encoder = FakeEncoder(patch=(8, 8))
    both = encode_view(picture(0), encoder, Recipe(image_size=96, windows=48))
    alone = encode_view(picture(0), encoder, Recipe(image_size=96, windows=48, global_view=False))
    plain = encode(picture(0), encoder, size=96, windows=48)
    assert torch.equal(alone.tokens, plain.tokens)
    assert both.spec.dim == both.tokens.shape[1] == 2 * plain.spec.dim
    assert both.grid == alone.grid


@pytest.mark.parametrize(
    ("encoder", "recipe", "said"),
    [
        (FakeEncoder(patch=(8, 8)), Recipe(jitter=3), "jitter 3 does not part .* 8 px; take one of 1, 2, 4"),
        (FakeEncoder(patch=(8, 8)), Recipe(jitter=8), "jitter 8 does not part"),
        (FakeEncoder(patch=(8, 8)), Recipe(debias=3), "debias 3 of the 3 features of fake; take 1 to 2"),
        (FakeEncoder(patch=(8, 8)), Recipe(layers=(1,)), "fake is none: leave layers out"),
        (sift.load(device=torch.device("cpu")), Recipe(layers=(1,)), "bundled:sift is none"),
        (prepare(FakeEncoder(patch=(8, 8)), Recipe(debias=1)), Recipe(debias=2), "debiased already"),
    ],
)
def test_recipes_that_an_encoder_cannot_follow_are_refused(encoder: Encoder, recipe: Recipe, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        encode_view(picture(0), encoder, recipe)


def test_a_prepared_encoder_is_not_prepared_twice() -> None:
    recipe = Recipe(debias=1)
    prepared = prepare(FakeEncoder(patch=(8, 8)), recipe)
    assert prepare(prepared, recipe) is prepared
