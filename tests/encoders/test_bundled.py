"""Encoders with weights that come with the package: named, listed, loaded and checked like any other."""

import json
import subprocess
import sys
import time
from importlib import resources

import pytest
import torch

from benchmarks.random_vit import random_vit
from patchatlas.dense import encode
from patchatlas.encoders import bundled, inventory
from patchatlas.encoders.checkpoint import digest
from patchatlas.encoders.conversion import convert
from patchatlas.encoders.keymaps import own
from patchatlas.encoders.loading import load_encoder
from patchatlas.encoders.naming import resolve
from patchatlas.encoders.verification.verify import verify
from patchatlas.encoders.vit import ViT, ViTConfig
from patchatlas.errors import WeightsError
from patchatlas.io.images import read_image

TINY = ViTConfig(family="dinov3", patch=(16, 16), dim=32, depth=2, heads=2, registers=2, ffn_hidden=64)


def write_tiny(path, *, name="tiny", dtype=torch.float32, seed=0):
    """A small encoder of our own layout with random weights."""
    torch.manual_seed(seed)
    state = {key: value.float() for key, value in ViT(TINY).state_dict().items()}
    for key, value in state.items():
        if "periods" not in key and "norm" not in key:
            state[key] = 0.2 * torch.randn(value.shape)
    stored = {key: value.to(dtype) if ".attention." in key or ".ffn." in key else value for key, value in state.items()}
    header = own.Header(
        config=TINY, mean=(0.5,) * 3, std=(0.25,) * 3, name=name, licence="Apache-2.0", card={"seed": 8, "time": "1 h"}
    )
    own.write(path, stored, header)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A package in which `bundled:tiny` comes along; gives its file."""
    path = tmp_path / "tiny.safetensors"
    write_tiny(path, name="bundled:tiny", dtype=torch.float16)
    path.with_suffix(".md").write_text("# bundled:tiny\n\nCredits: somebody.\n", encoding="utf-8")
    monkeypatch.setattr(bundled, "FOLDER", tmp_path)
    monkeypatch.setattr(bundled, "SHA256", {"tiny": digest([path])})
    return path


def test_it_is_a_path_with_a_known_hash(tiny):
    where = resolve("bundled:tiny")
    assert (where.path, where.bundled, where.hub_id) == (tiny, None, None)
    assert where.sha256 == bundled.SHA256["tiny"]
    assert resolve("bundled:sift").bundled == "sift"


def test_it_loads_as_its_file_does(tiny):
    by_name = load_encoder("bundled:tiny", device="cpu", dtype="fp32")
    by_path = load_encoder(tiny, device="cpu", dtype="fp32")
    pixels = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    assert torch.equal(by_name(pixels).patches, by_path(pixels).patches)
    spec = by_name.spec
    assert (spec.name, spec.source, spec.licence) == ("bundled:tiny", "bundled", "Apache-2.0")
    assert (spec.dim, spec.registers) == (32, 2)
    assert spec.weights_sha256 == bundled.SHA256["tiny"]


@pytest.mark.usefixtures("tiny")
def test_the_options_of_a_network_work():
    early = load_encoder("bundled:tiny", device="cpu", dtype="bf16", layer=0, norm="none")
    assert (early.spec.layer, early.spec.norm, early.spec.dtype) == (0, "none", "bf16")


def test_other_bytes_are_refused(tiny):
    write_tiny(tiny, dtype=torch.float16, seed=1)
    with pytest.raises(WeightsError, match="install patchatlas again"):
        load_encoder("bundled:tiny", device="cpu")
    report = verify("bundled:tiny", forward=False)
    assert [check.name for check in report.failures] == ["sha256"]


@pytest.mark.usefixtures("tiny")
def test_verify_passes():
    report = verify("bundled:tiny")
    assert report.ok
    assert {check.name: check.state for check in report.checks}["sha256"] == "pass"


@pytest.mark.usefixtures("tiny")
def test_a_name_that_is_not_bundled_is_refused_with_those_that_are():
    with pytest.raises(WeightsError, match="bundled:sift, bundled:tiny"):
        resolve("bundled:other")
    with pytest.raises(WeightsError, match="you may mean bundled:tiny"):
        resolve("tiny")


@pytest.mark.parametrize("ask", [bundled.weights_file, bundled.card])
def test_a_missing_file_is_told(tiny, ask):
    tiny.unlink()
    tiny.with_suffix(".md").unlink()
    with pytest.raises(WeightsError, match="missing from this installation"):
        ask("tiny")


def test_the_inventory_tells_of_it(tiny):
    (item,) = inventory.take(["bundled:tiny"])
    assert item.name == "bundled:tiny"
    assert (item.family, item.dim, item.patch, item.registers) == ("dinov3", 32, (16, 16), 2)
    assert item.parameters == sum(value.numel() for value in ViT(TINY).state_dict().values())
    assert (item.bytes_here, item.licence, item.path) == (tiny.stat().st_size, "Apache-2.0", tiny)
    assert item.ready
    assert item.has_card
    assert "bundled:tiny" in [one.name for one in inventory.take()]
    assert not inventory.take(["bundled:sift"])[0].has_card


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0notjson!", b"\x02\0\0\0\0\0\0\0{}"])
def test_a_damaged_file_is_told(tiny, content):
    tiny.write_bytes(content)
    with pytest.raises(WeightsError, match="is damaged"):
        bundled.outline("tiny")


@pytest.mark.usefixtures("tiny")
def test_the_facts_of_the_card_survive_a_conversion(tmp_path):
    done = convert("bundled:tiny", tmp_path / "out.safetensors")
    assert done.header.card == {"seed": 8, "time": "1 h"}


def test_the_inventory_needs_no_torch():
    code = (
        "import sys\nfrom patchatlas.encoders import bundled, inventory\n"
        "inventory.take()\nassert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_shipped_is_whole_and_opens_fast():
    for name, sha256 in bundled.SHA256.items():
        path = bundled.weights_file(name)
        assert path.stat().st_size <= 24_000_000
        assert name in bundled.card(name)
        began = time.process_time()
        encoder = load_encoder(f"bundled:{name}", device="cpu", dtype="fp32")
        assert time.process_time() - began < 1.0
        assert encoder.spec.weights_sha256 == sha256
        pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        other = load_encoder(f"bundled:{name}", device="cpu", dtype="bf16")
        cosine = torch.nn.functional.cosine_similarity(encoder(pixels).patches, other(pixels).patches, dim=-1)
        assert cosine.min() > 0.99


def test_the_shipped_vit_finds_places_that_random_weights_do_not():
    """Six marks of the demo's pair, each by the patch most like its own, in both pictures at 448 px."""
    folder = resources.files("patchatlas") / "demo_data"
    known = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    visible = [mark for mark in known["landmarks"] if mark["target_xy"] is not None]
    left, right = (read_image(folder / known[side]) for side in ("source", "target"))
    assert len(visible) == 6
    trained = load_encoder("bundled:vit-tiny16", device="cpu", dtype="fp32")
    right_ones = {}
    for name, encoder in (("trained", trained), ("random", random_vit(trained.network.config, name="random"))):
        source, target = encode(left, encoder, size=448), encode(right, encoder, size=448)
        truth = torch.tensor([mark["target_xy"] for mark in visible], dtype=torch.float64)
        away = torch.tensor([[mark["disparity_px"], 0.0] for mark in visible], dtype=torch.float64)
        best = target.similarity(source.at(truth + away)).flatten(1).argmax(dim=1)
        found = target.grid.centres()[best]
        right_ones[name] = int(((found - truth).norm(dim=1) < 24).sum())
    assert right_ones["trained"] >= 5
    assert right_ones["random"] <= 3


def test_every_shipped_file_is_named():
    shipped = {path.stem for path in bundled.FOLDER.glob("*.safetensors")}
    assert shipped == set(bundled.SHA256)


def test_header_without_a_card_stays_as_it_was():
    header = own.Header(config=TINY, mean=(0.5,) * 3, std=(0.25,) * 3, name="a", licence="b")
    assert "card" not in header.to_metadata()
    assert own.read_header(header.to_metadata()) == header
    with_card = own.Header(config=TINY, mean=(0.5,) * 3, std=(0.25,) * 3, name="a", licence="b", card={"seed": 1})
    assert json.loads(with_card.to_metadata()["card"]) == {"seed": 1}
