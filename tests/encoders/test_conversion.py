"""Converting weights: any layout into one file of ours, the same tokens, the same bytes, and where it came from."""

import hashlib
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import patchatlas
from patchatlas.encoders import hub
from patchatlas.encoders.catalogue import CATALOGUE, IMAGENET, SAT493M
from patchatlas.encoders.conversion import convert
from patchatlas.encoders.loading import load_encoder
from patchatlas.encoders.vit import dtype_of
from patchatlas.errors import InputError, UsageError, WeightsError
from tests.encoders import tiny_transformers as tiny
from tests.encoders.dino_reference import reference
from tests.encoders.test_loading import (
    LAYOUTS,
    V2,
    V3,
    huggingface_folder,
    meta_pth,
    not_cached,
    our_file,
    write_json,
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_network_and_no_weights(monkeypatch):
    monkeypatch.delenv("PATCHATLAS_WEIGHTS", raising=False)
    monkeypatch.setattr(hub, "snapshot_download", not_cached)


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "a.safetensors"


def metadata_of(path):
    with safe_open(path, framework="pt") as opened:
        return opened.metadata()


def same_tokens(first, second):
    size = [2 * first.spec.patch[0], 5 * first.spec.patch[1]]
    pixels = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    one, other = first(pixels), second(pixels)
    return all(torch.equal(getattr(one, kind), getattr(other, kind)) for kind in ("patches", "cls", "registers"))


@pytest.mark.parametrize("name", [V3, V2])
@pytest.mark.parametrize("store", LAYOUTS, ids=lambda store: store.__name__)
def test_every_layout_gives_the_same_tokens_to_the_bit(tmp_path, out, store, name):
    heads = None if name == V3 else reference(name).heads
    path = store(tmp_path, name)
    done = convert(path, out, heads=heads)
    assert done.path == out
    before = load_encoder(path, device="cpu", dtype="fp32", heads=heads)
    after = load_encoder(out, device="cpu", dtype="fp32")
    assert same_tokens(before, after)
    for field in ("family", "patch", "dim", "registers", "mean", "std", "depth", "licence", "name"):
        assert getattr(before.spec, field) == getattr(after.spec, field), field


def test_bf16_storage_gives_the_same_tokens_in_bf16(tmp_path, out):
    path = meta_pth(tmp_path, V3)
    convert(path, out, dtype="bf16")
    assert same_tokens(*(load_encoder(one, device="cpu", dtype="bf16") for one in (path, out)))
    assert not same_tokens(*(load_encoder(one, device="cpu", dtype="fp32") for one in (path, out)))
    stored = load_file(out)
    assert {str(value.dtype) for value in stored.values()} == {"torch.float32", "torch.bfloat16"}
    assert all(value.dtype == dtype_of(key, torch.bfloat16) for key, value in stored.items())
    assert stored["rope.periods"].dtype == torch.float32


def test_half_precision_sources_are_stored_in_full(tmp_path, out):
    torch.save({key: value.half() for key, value in reference(V3).weights.items()}, tmp_path / "half.pth")
    convert(tmp_path / "half.pth", out)
    assert {value.dtype for value in load_file(out).values()} == {torch.float32}


def test_the_same_weights_give_the_same_bytes(tmp_path, out):
    path = meta_pth(tmp_path, V3)
    first = convert(path, out)
    content = out.read_bytes()
    second = convert(path, out, overwrite=True)
    assert out.read_bytes() == content
    assert first == second
    assert first.sha256 == hashlib.sha256(content).hexdigest()
    assert first.size_bytes == len(content)


def test_what_the_file_says(tmp_path, out):
    path = meta_pth(tmp_path, V3)
    convert(path, out)
    told = metadata_of(out)
    config = json.loads(told.pop("config"))
    assert (config["dim"], config["heads"], config["patch"], config["norm_eps"]) == (128, 2, [16, 16], 1e-5)
    assert json.loads(told.pop("preprocessing")) == {"mean": list(IMAGENET[0]), "std": list(IMAGENET[1])}
    assert told == {
        "format": "patchatlas.encoder", "version": "1", "package": patchatlas.__version__, "name": "backbone.pth",
        "licence": "unknown", "source": "backbone.pth", "source_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }  # fmt: skip


def test_licence_name_and_normalisation_travel(tmp_path, out, monkeypatch):
    entry = CATALOGUE["dinov3-vitl16-sat493m"]
    torch.save(reference(V3).weights, tmp_path / entry.meta_file)
    monkeypatch.setenv("PATCHATLAS_WEIGHTS", str(tmp_path))
    convert(entry.name, out)
    spec = load_encoder(out, device="cpu", dtype="fp32").spec
    assert (spec.name, spec.licence, (spec.mean, spec.std)) == (entry.name, "dinov3-license", SAT493M)
    assert metadata_of(out)["source"] == entry.meta_file


def test_our_own_files_keep_saying_where_they_came_from(tmp_path, out):
    path = meta_pth(tmp_path, V3)
    first = convert(path, out)
    second = convert(out, tmp_path / "b.safetensors", dtype="bf16")
    assert second.header == first.header
    fresh = convert(our_file(tmp_path, V3), tmp_path / "c.safetensors").header
    assert (fresh.source, fresh.licence, len(fresh.source_sha256)) == ("ours.safetensors", "cc0-1.0", 64)


def test_a_hub_id_is_the_source(tmp_path, out, monkeypatch):
    folder = huggingface_folder(tmp_path, V3)
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(folder))
    assert convert("someone/private", out).header.source == "someone/private"


@pytest.mark.parametrize("make", [tiny.vjepa2, tiny.convnext])
def test_networks_of_transformers_are_refused(tmp_path, out, make):
    folder = tiny.saved(make(), tmp_path / "folder")
    with pytest.raises(WeightsError, match="which transformers runs: our file format holds"):
        convert(folder, out)
    assert not out.exists()


def test_bundled_encoders_are_refused(out):
    with pytest.raises(WeightsError, match="bundled:sift has no weights to convert"):
        convert("bundled:sift", out)


def test_outputs_that_are_refused_before_anything_is_read(tmp_path, out):
    for name, error, message in (
        ("a.pth", UsageError, r"must end in \.safetensors"),
        ("absent/a.safetensors", InputError, "absent does not exist; create it first"),
    ):
        with pytest.raises(error, match=message):
            convert("no such weights", tmp_path / name)
    (tmp_path / "d.safetensors").mkdir()
    with pytest.raises(InputError, match="it is a folder"):
        convert("no such weights", tmp_path / "d.safetensors", overwrite=True)
    out.write_bytes(b"old")
    with pytest.raises(UsageError, match="is there already; pass --overwrite"):
        convert("no such weights", out)
    assert out.read_bytes() == b"old"


def test_a_failure_keeps_the_old_file_and_leaves_nothing(tmp_path, out):
    out.write_bytes(b"old")
    state = dict(reference(V3).weights)
    state["norm.weight"] = torch.ones(3)
    torch.save(state, tmp_path / "broken.pth")
    with pytest.raises(WeightsError, match=r"of another shape: norm\.weight"):
        convert(tmp_path / "broken.pth", out, overwrite=True)
    assert [(path.name, path.read_bytes()) for path in out.parent.iterdir()] == [("a.safetensors", b"old")]


def test_the_source_is_not_overwritten(tmp_path):
    path = our_file(tmp_path, V3)
    with pytest.raises(UsageError, match="is what is to be converted"):
        convert(path, path, overwrite=True)
    folder = tmp_path / "folder"
    folder.mkdir()
    huggingface_folder(folder, V3)
    with pytest.raises(UsageError, match="is what is to be converted"):
        convert(folder, folder / "model.safetensors", overwrite=True)


def test_a_network_that_is_not_known(tmp_path, out):
    folder = huggingface_folder(tmp_path, V3)
    write_json(folder / "config.json", model_type="dinov3_vit", hidden_act="relu")
    with pytest.raises(WeightsError, match="hidden_act 'relu'"):
        convert(folder, out)
