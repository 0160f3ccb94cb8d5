"""Kept maps: the same as made ones, found only under all they depend on, and never read when damaged."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from patchatlas.encoders.fake import FakeEncoder
from patchatlas.errors import FormatError, ResourceError
from patchatlas.features import FeatureMap
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.turns import turned
from patchatlas.locate.automark.cache import Facts, FeatureCache, facts_of, halved
from patchatlas.locate.encoding import encode_view
from patchatlas.locate.recipe import Recipe
from tests.disk_limit import no_file_may_grow
from tests.locate.automark.conftest import scene

RECIPE = Recipe(image_size=160)
FRAME = Frame.whole((160, 160))
ENCODER = FakeEncoder(position_code=True)


def facts(**changes) -> Facts:
    given = {"picture": "aa", "mask": None, "spec": ENCODER.spec, "recipe": RECIPE, "frame": FRAME, **changes}
    return facts_of(**given)


@pytest.fixture
def made() -> FeatureMap:
    return halved(encode_view(scene().astype("uint8"), ENCODER, RECIPE, frame=FRAME))


def test_what_is_kept_comes_back_bit_for_bit(made, tmp_path):
    cache = FeatureCache(tmp_path / "features")
    assert cache.read(facts()) is None
    cache.keep(facts(), made)
    back = cache.read(facts())
    assert back is not None
    assert back.tokens.dtype == torch.float16
    assert torch.equal(back.tokens, made.tokens)
    assert (back.grid, back.spec, back.stamp) == (made.grid, made.spec, made.stamp)
    assert sorted(path.suffix for path in (tmp_path / "features").iterdir()) == [".json", ".safetensors"]


def test_halved_keeps_patch_tokens_in_fp16(made):
    whole = encode_view(scene().astype("uint8"), ENCODER, RECIPE, frame=FRAME)
    assert whole.cls is not None
    assert torch.equal(made.tokens, whole.tokens.half())
    assert made.cls is None
    assert made.registers is None


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 65520.0, -65520.0])
def test_numbers_that_fp16_does_not_hold_are_refused(made, value):
    tokens = made.tokens.float()
    tokens[3, 1] = value
    with pytest.raises(FormatError, match="fp16"):
        halved(replace(made, tokens=tokens))


@pytest.mark.parametrize(
    "changes",
    [
        {"picture": "ab"},
        {"mask": "aa"},
        {"spec": replace(ENCODER.spec, weights_sha256="other")},
        {"spec": replace(ENCODER.spec, layer=1)},
        {"spec": replace(ENCODER.spec, norm="final")},
        {"spec": replace(ENCODER.spec, dtype="bf16")},
        {"spec": replace(ENCODER.spec, layers=(0, 1))},
        {"spec": replace(ENCODER.spec, debias=3)},
        {"frame": FRAME.resize((320, 320))},
        {"frame": turned(FRAME, "flip")},
        {"recipe": Recipe(image_size=160, windows=80)},
        {"recipe": Recipe(image_size=160, windows=80, global_view=False)},
    ],
)
def test_anything_that_changes_the_numbers_makes_another_key(made, tmp_path, changes):
    cache = FeatureCache(tmp_path)
    cache.keep(facts(), made)
    assert cache.read(facts(**changes)) is None
    assert cache.read(facts()) is not None


def test_windows_with_and_without_the_whole_beside_them_differ():
    with_it, without = (facts(recipe=Recipe(image_size=160, windows=80, global_view=view)) for view in (True, False))
    assert with_it != without


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": Recipe(image_size=160, zoom=2.0, max_memory=10**9, peak="soft-argmax")},
        {"spec": replace(ENCODER.spec, name="the same weights by another name", source="elsewhere")},
    ],
)
def test_what_changes_no_number_finds_the_same_map(made, tmp_path, changes):
    cache = FeatureCache(tmp_path)
    cache.keep(facts(), made)
    assert cache.read(facts(**changes)) is not None


def damage_token(map_file: Path, _: Path) -> None:
    content = bytearray(map_file.read_bytes())
    content[-3] ^= 1
    map_file.write_bytes(content)


def cut(map_file: Path, _: Path) -> None:
    map_file.write_bytes(map_file.read_bytes()[:-100])


def cut_beside(_: Path, beside: Path) -> None:
    beside.write_text(beside.read_text()[:50])


def lose_map(map_file: Path, _: Path) -> None:
    map_file.unlink()


def lose_beside(_: Path, beside: Path) -> None:
    beside.unlink()


def claim_other_facts(_: Path, beside: Path) -> None:
    stored = json.loads(beside.read_text())
    stored["facts"]["picture_sha256"] = "ab"
    beside.write_text(json.dumps(stored))


def no_object(_: Path, beside: Path) -> None:
    beside.write_text("[]")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (damage_token, True), (cut, True), (cut_beside, True), (lose_map, False), (lose_beside, False),
        (claim_other_facts, True), (no_object, True),
    ],
)  # fmt: skip
def test_a_damaged_map_is_not_read_and_made_anew(made, tmp_path, caplog, harm, said):
    cache = FeatureCache(tmp_path)
    cache.keep(facts(), made)
    (map_file,) = tmp_path.glob("*.safetensors")
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    harm(map_file, map_file.with_suffix(".json"))
    with caplog.at_level(logging.WARNING, logger="patchatlas"):
        assert cache.read(facts()) is None
    assert ("made anew" in caplog.text) == said
    cache.keep(facts(), made)
    assert cache.read(facts()) is not None
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == whole


def test_a_cache_may_be_read_only_or_none_at_all(made, tmp_path):
    FeatureCache(tmp_path, write=False).keep(facts(), made)
    FeatureCache(None).keep(facts(), made)
    assert not list(tmp_path.iterdir())
    assert FeatureCache(None).read(facts()) is None
    FeatureCache(tmp_path).keep(facts(), made)
    assert FeatureCache(tmp_path, write=False).read(facts()) is not None


def test_a_full_disk_is_told(made, tmp_path):
    with no_file_may_grow(), pytest.raises(ResourceError, match="run again"):
        FeatureCache(tmp_path).keep(facts(), made)
    assert not list(tmp_path.iterdir())
