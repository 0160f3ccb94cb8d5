"""Packing a run's encoder: half the bytes, the same tokens to rounding, a header and a card that tell all."""

import json

import pytest
import torch
from safetensors import safe_open

from patchatlas.encoders import checkpoint
from patchatlas.errors import UsageError, WeightsError
from tests.encoders.test_bundled import write_tiny
from tools.bundled import pack as packing
from tools.bundled.pack import FACTS, agreement, main, pack, read_facts
from tools.bundled.pictures import Row

PICTURES = [
    Row("a", "endless-sky-data", "0.9", "land/a.jpg", "NASA", "public-domain", "From NASA.", "00", "yes", ""),
    Row("c", "endless-sky-data", "0.9", "land/c.jpg", "NASA", "public-domain", "From NASA.", "02", "yes", ""),
    Row("b", "endless-sky-data", "0.9", "land/b.jpg", "Bert", "CC-BY-SA-4.0", "", "01", "no", "share-alike"),
]
TOLD = {key: f"the {key}" for key in FACTS} | {"name": "tiny16", "seed": 8}


@pytest.fixture
def run(tmp_path):
    write_tiny(tmp_path / "encoder.safetensors", name="run-name")
    return tmp_path / "encoder.safetensors"


def test_half_the_bytes_and_nearly_the_same_tokens(run, tmp_path):
    done = pack(run, tmp_path, facts=TOLD, figures="", pictures=PICTURES)
    assert done.sha256 == checkpoint.digest([tmp_path / "tiny16.safetensors"])
    with safe_open(done.weights, framework="pt") as opened:
        dtypes = {key: opened.get_tensor(key).dtype for key in opened.keys()}
    assert dtypes["blocks.0.attention.qkv.weight"] == dtypes["blocks.1.ffn.down.weight"] == torch.float16
    assert dtypes["norm.weight"] == dtypes["patch_embed.weight"] == dtypes["blocks.0.norm1.weight"] == torch.float32
    assert 0.9999 < agreement(run, done.weights, dtype="fp32") < 1.0
    assert agreement(done.weights, done.weights, dtype="bf16") > 0.99


def test_agreement_tells_other_weights(run, tmp_path):
    write_tiny(tmp_path / "other.safetensors", seed=5)
    assert agreement(run, tmp_path / "other.safetensors", dtype="fp32") < 0.9


def test_the_header(run, tmp_path):
    done = pack(run, tmp_path, facts=TOLD, figures="", pictures=PICTURES)
    metadata = checkpoint.read(done.weights).metadata
    assert (metadata["name"], metadata["licence"]) == ("bundled:tiny16", "Apache-2.0")
    assert metadata["source_sha256"] == checkpoint.digest([run])
    card = json.loads(metadata["card"])
    assert (card["seed"], card["pictures"], card["hardware"]) == (8, 2, "the hardware")


def test_the_card(run, tmp_path):
    done = pack(run, tmp_path, facts=TOLD, figures="| a | b |", pictures=PICTURES)
    text = done.card.read_text(encoding="utf-8")
    assert done.card.name == "tiny16.md"
    for part in ("bundled:tiny16", done.sha256, "the recipe", "Seed 8", "the hardware", "the limits", "| a | b |"):
        assert part in text
    assert "| endless-sky-data 0.9 | NASA | public-domain | land/a.jpg, land/c.jpg | From NASA. |" in text
    assert "land/b.jpg" not in text


def test_the_same_run_gives_the_same_bytes(run, tmp_path):
    (tmp_path / "again").mkdir()
    one = pack(run, tmp_path, facts=TOLD, figures="", pictures=PICTURES)
    two = pack(run, tmp_path / "again", facts=TOLD, figures="", pictures=PICTURES)
    assert one.weights.read_bytes() == two.weights.read_bytes()
    assert one.card.read_bytes() == two.card.read_bytes()


def test_too_large_a_network_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "MOST_BYTES", 1000)
    with pytest.raises(WeightsError, match="at most 1,000"):
        pack(run, tmp_path, facts=TOLD, figures="", pictures=PICTURES)
    assert not (tmp_path / "tiny16.safetensors").exists()


@pytest.mark.parametrize("content", ["name: a\n", "", "- 1\n", "name: ''\n"])
def test_missing_facts_are_told(tmp_path, content):
    (tmp_path / "facts.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match="it must hold name, seed"):
        read_facts(tmp_path / "facts.yaml")


def test_as_a_command(run, tmp_path, capsys):
    facts = tmp_path / "facts.yaml"
    facts.write_text("".join(f"{key}: {value}\n" for key, value in TOLD.items()), encoding="utf-8")
    assert main([str(run), "--facts", str(facts), "--into", str(tmp_path / "new")]) == 0
    out = capsys.readouterr().out
    sha256 = checkpoint.digest([tmp_path / "new" / "tiny16.safetensors"])
    assert f'"tiny16": "{sha256}",' in out
    assert main([str(facts), "--facts", str(facts), "--into", str(tmp_path)]) == 1
    assert "error:" in capsys.readouterr().err
