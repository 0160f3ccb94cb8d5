"""Verifying weights: each fault planted once, and named; sound weights of every layout pass."""

import hashlib
import json
import shutil
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from patchatlas.encoders import hub
from patchatlas.encoders.catalogue import CATALOGUE
from patchatlas.encoders.keymaps import meta, translate
from patchatlas.encoders.keymaps.layout import Facts
from patchatlas.encoders.released import models_of_shape
from patchatlas.encoders.verification import network as network_checks
from patchatlas.encoders.verification.agreement import config_differences
from patchatlas.encoders.verification.outline import read_outline
from patchatlas.encoders.verification.verify import verify
from patchatlas.errors import MissingExtraError, UsageError, WeightsError
from tests.encoders import tiny_transformers as tiny
from tests.encoders.dino_reference import reference, released
from tests.encoders.foreign_layouts import on_meta, to_huggingface, to_timm
from tests.encoders.test_loading import (
    LAYOUTS,
    V2,
    V3,
    huggingface_folder,
    huggingface_sharded,
    meta_pth,
    meta_safetensors,
    not_cached,
    timm_folder,
    write_json,
)  # fmt: skip

SHARD = "model-00002-of-00002.safetensors"


@pytest.fixture(autouse=True)
def no_network_and_no_weights(monkeypatch):
    monkeypatch.delenv("PATCHATLAS_WEIGHTS", raising=False)
    monkeypatch.setattr(hub, "snapshot_download", not_cached)


def states(report):
    return {check.name: check.state for check in report.checks}


def found(report, name):
    (check,) = (check for check in report.checks if check.name == name)
    return check.found


def failed(report):
    return [check.name for check in report.failures]


@pytest.mark.parametrize("name", [V3, V2])
@pytest.mark.parametrize("store", LAYOUTS, ids=lambda store: store.__name__)
def test_sound_weights_of_every_layout_pass(tmp_path, store, name):
    path = store(tmp_path, name)
    report = verify(path, heads=None if name == V3 else reference(name).heads)
    assert failed(report) == []
    for check in ("files", "size", "layout", "tensors", "values", "forward"):
        assert states(report)[check] == "pass", check
    assert report.path == path
    layout = {"meta": "Meta", "hugg": "Hugging Face", "timm": "timm", "our_": "patchatlas"}[store.__name__[:4]]
    assert found(report, "layout") == layout
    assert "6 finite tokens" in found(report, "forward")


@pytest.mark.parametrize("make", [tiny.vjepa2, tiny.convnext])
def test_networks_of_transformers_are_compared_with_its_class(tmp_path, make):
    folder = tiny.saved(make(), tmp_path)
    assert failed(verify(folder)) == []
    assert states(verify(folder, forward=False))["tensors"] == "pass"
    state = load_file(folder / "model.safetensors")
    gone = sorted(state)[0]
    save_file({key: value for key, value in state.items() if key != gone}, folder / "model.safetensors")
    report = verify(folder, forward=False)
    assert failed(report) == ["tensors"]
    assert "missing" in found(report, "tensors")


def test_networks_of_transformers_without_transformers(tmp_path, monkeypatch):
    folder = tiny.saved(tiny.vjepa2(), tmp_path)

    def absent(*_):
        raise MissingExtraError("transformers", extra="transformers", needed_for="this encoder")

    monkeypatch.setattr("patchatlas.encoders.transformers_adapter.require_complete", absent)
    assert r"pip install 'patchatlas[transformers]'" in found(verify(folder), "tensors")


def test_what_is_not_there(tmp_path):
    report = verify(tmp_path / "absent.pth")
    assert (report.ok, failed(report), report.path) == (False, ["files"], None)
    assert "does not exist; check the path" in found(report, "files")
    assert "Get them from" in found(verify("dinov3-vits16"), "files")
    assert "hf download facebook/dinov2-base" in found(verify("facebook/dinov2-base"), "files")
    assert "no weights" in found(verify(tmp_path), "files")


def test_bundled_encoders_only_run():
    assert states(verify("bundled:sift")) == {"files": "skipped", "forward": "pass"}


def test_the_rest_is_looked_at_when_a_shard_is_missing(tmp_path):
    folder = huggingface_sharded(tmp_path, V3)
    (folder / SHARD).unlink()
    report = verify(folder)
    assert failed(report) == ["files", "index", "tensors"]
    assert f"lacks the shards {SHARD}" in found(report, "files")
    assert states(report)["values"] == "pass"
    assert states(report)["sha256"] == states(report)["forward"] == "skipped"


@pytest.mark.parametrize("change", ["moved", "unknown"])
def test_an_index_that_does_not_fit(tmp_path, change):
    folder = huggingface_sharded(tmp_path, V3)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    key = next(key for key, shard in index["weight_map"].items() if shard == SHARD)
    index["weight_map"].pop(key) if change == "unknown" else index["weight_map"].update(
        {key: "model-00001-of-00002.safetensors"}
    )
    write_json(folder / "model.safetensors.index.json", **index)
    report = verify(folder, forward=False)
    assert failed(report) == ["index"]
    what = "not in the index" if change == "unknown" else "not in their shard"
    assert f"{what}: {key};" in found(report, "index")


def test_a_tensor_in_two_shards(tmp_path):
    """Which of the two is read would depend on the order of files."""
    folder = huggingface_sharded(tmp_path, V3)
    first = load_file(folder / "model-00001-of-00002.safetensors")
    key = sorted(first)[0]
    save_file({**load_file(folder / SHARD), key: first[key] + 1}, folder / SHARD)
    report = verify(folder, forward=False)
    assert failed(report) == ["index"]
    assert f"not in the index: {key};" in found(report, "index")


@pytest.mark.parametrize("cut", [1, 1000])
def test_a_download_that_was_cut_short(tmp_path, cut):
    path = meta_safetensors(tmp_path, V3)
    size = path.stat().st_size
    with path.open("r+b") as handle:
        handle.truncate(size - cut)
    report = verify(path)
    assert failed(report) == ["size"]
    assert f"has {size - cut:,} bytes, its header says {size:,}" in found(report, "size")
    assert states(report)["tensors"] == "pass"  # the header is whole
    assert states(report)["values"] == states(report)["forward"] == "skipped"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.safetensors", b"<!DOCTYPE html><html>Access denied</html>"),
        ("a.safetensors", b""),
        ("a.safetensors", struct.pack("<Q", 2**60)),
        ("a.safetensors", struct.pack("<Q", 2) + b"[]"),
        ("a.safetensors", struct.pack("<Q", 7) + b'{"a":1}'),
        ("a.pth", b"AccessDenied"),
        ("a.pth", b""),
    ],
)
def test_files_that_are_something_else(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    report = verify(tmp_path / name)
    assert failed(report) == ["size"]
    assert "download it again" in found(report, "size")


def test_a_torn_pth(tmp_path):
    path = meta_pth(tmp_path, V3)
    path.write_bytes(path.read_bytes()[:-100])
    assert failed(verify(path)) == ["size"]


def test_an_old_pth_has_no_size_to_compare(tmp_path):
    torch.save(reference(V3).weights, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    report = verify(tmp_path / "a.pth")
    assert (failed(report), states(report)["size"]) == ([], "skipped")


def test_the_hash_that_was_asked_for(tmp_path):
    path = meta_safetensors(tmp_path, V3)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert verify(path, forward=False).sha256 == digest
    assert states(verify(path, forward=False))["sha256"] == "skipped"
    for given in (digest, digest[:8], digest.upper()):
        assert states(verify(path, sha256=given, forward=False))["sha256"] == "pass"
    report = verify(path, sha256="0" * 8)
    assert (failed(report), states(report)["forward"]) == (["sha256"], "skipped")
    for nonsense in ("abc", digest + "0", "x" * 8):
        with pytest.raises(UsageError, match="is no SHA-256"):
            verify(path, sha256=nonsense)


def test_a_publishers_file_is_held_to_the_hash_in_its_name_and_to_its_shapes(tmp_path):
    path = tmp_path / CATALOGUE["dinov3-vits16"].meta_file
    shutil.copy(meta_pth(tmp_path, V3), path)
    report = verify(path)
    assert failed(report) == ["sha256", "model"]
    assert "not 08c60483 in the publisher's file name" in found(report, "sha256")
    assert "named dinov3-vits16, but the shapes are those of no released model" in found(report, "model")


def test_a_publishers_file_under_another_name_is_known_by_its_hash(tmp_path, monkeypatch):
    path = meta_pth(tmp_path, V3)
    digest = CATALOGUE["dinov3-vitb16"].sha256_start + "0" * 56
    monkeypatch.setattr("patchatlas.encoders.checkpoint.digest", lambda _: digest)
    report = verify(path)
    assert found(report, "sha256") == f"{digest}, as dinov3_vitb16_pretrain_lvd1689m-73cec8be.pth"
    assert report.model == ("dinov3-vitb16",)


def sparse(path, shapes):
    """A safetensors file of float32 zeros that takes no room on the disk."""
    header, end = {}, 0
    for key, shape in shapes.items():
        start, end = end, end + 4 * torch.Size(shape).numel()
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    content = json.dumps(header).encode()
    with path.open("wb") as handle:
        handle.write(struct.pack("<Q", len(content)) + content)
        handle.truncate(8 + len(content) + end)
    return path


def test_a_released_model_is_known_by_its_shapes(tmp_path):
    path = sparse(tmp_path / "weights.safetensors", released()["dinov3_vits16"]["state_dict"])
    report = verify(path, forward=False)
    assert report.model == ("dinov3-vits16",)
    assert found(report, "model") == "the shapes are those of dinov3-vits16, licence dinov3-license"
    assert failed(report) == []


def test_weights_that_were_never_filled(tmp_path):
    state = {key: torch.zeros_like(value) for key, value in reference(V3).weights.items()}
    state["rope_embed.periods"] = reference(V3).weights["rope_embed.periods"]
    torch.save(state, tmp_path / "a.pth")
    report = verify(tmp_path / "a.pth")
    assert failed(report) == ["forward"]
    assert "all patches of a noisy picture give the same token" in found(report, "forward")


@pytest.mark.parametrize("name", list(released()))
def test_the_catalogue_has_the_shapes_of_every_released_vit(name):
    _, config = translate(on_meta(released()[name]["state_dict"]), Facts())
    expected = name.replace("_sat493m", "-sat493m").replace("_reg", "-reg").replace("_", "-")
    assert expected in [entry.name for entry in models_of_shape(config)]
    assert {entry.training for entry in models_of_shape(config)} <= {"LVD-1689M", "SAT-493M", "LVD-142M"}


def test_timm_leaves_out_biases_and_is_known_all_the_same():
    state = {k: v for k, v in released()["dinov3_vits16"]["state_dict"].items() if "qkv.bias" not in k}
    _, config = translate(to_timm(on_meta(state)), Facts())
    assert [entry.name for entry in models_of_shape(config)] == ["dinov3-vits16"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_numbers_that_are_not_finite(tmp_path, suffix, value):
    state = {key: tensor.clone() for key, tensor in reference(V3).weights.items()}
    state["blocks.1.mlp.fc1.weight"][3, 4] = value
    path = tmp_path / f"a{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    report = verify(path)
    assert failed(report) == ["values"]
    assert "NaN or infinite numbers in: blocks.1.mlp.fc1.weight;" in found(report, "values")
    assert states(report)["forward"] == "skipped"


def test_tokens_that_are_not_finite(tmp_path):
    state = {key: tensor.clone() for key, tensor in reference(V3).weights.items()}
    state["patch_embed.proj.weight"] *= 1e38
    torch.save(state, tmp_path / "a.pth")
    report = verify(tmp_path / "a.pth")
    assert failed(report) == ["forward"]
    assert "not finite, though all weights are" in found(report, "forward")


def test_tensors_that_are_missing_left_over_and_misshapen_are_all_named(tmp_path):
    state = dict(reference(V3).weights)
    state["extra"] = state.pop("norm.weight")
    state["blocks.0.ls1.gamma"] = torch.ones(3)
    torch.save(state, tmp_path / "a.pth")
    report = verify(tmp_path / "a.pth")
    assert failed(report) == ["tensors"]
    for part in ("missing: norm.weight", "left over: extra", "blocks.0.scale1 (3,), not (128,)"):
        assert part in found(report, "tensors")


def test_a_layout_that_is_not_known(tmp_path):
    save_file({"conv1.weight": torch.ones(3)}, tmp_path / "resnet.safetensors")
    report = verify(tmp_path / "resnet.safetensors")
    assert failed(report) == ["layout"]
    assert "keys begin with conv1.weight" in found(report, "layout")
    assert states(report)["tensors"] == states(report)["model"] == "skipped"


def test_a_config_of_another_model(tmp_path):
    folder = huggingface_folder(tmp_path, V3)
    fields = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", **{**fields, "hidden_size": 384, "num_hidden_layers": 12})
    report = verify(folder)
    assert failed(report) == ["config"]
    assert "hidden_size says 384, the tensors 128; num_hidden_layers says 12, the tensors 2" in found(report, "config")
    write_json(folder / "config.json", **{**fields, "hidden_size": 128, "num_hidden_layers": 2})
    assert states(verify(folder, forward=False))["config"] == "pass"


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_json_that_cannot_be_read(tmp_path, name):
    folder = timm_folder(tmp_path, V3)
    (folder / name).write_text("{")
    report = verify(folder)
    assert "config" in failed(report)
    assert f"{name} is not JSON" in found(report, "config")


def test_configs_of_transformers_classes_agree_with_their_tensors():
    """The numbers that its classes write are compared by the right names."""
    from transformers import Dinov2Config, Dinov2WithRegistersConfig, DINOv3ViTConfig

    small = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6}
    v3 = DINOv3ViTConfig(**small, intermediate_size=1536, num_register_tokens=4).to_dict()
    _, config = translate(to_huggingface(on_meta(released()["dinov3_vits16"]["state_dict"])), Facts())
    assert config_differences(v3, config) == []
    assert config_differences({**v3, "num_register_tokens": 0, "patch_size": 14}, config) == [
        "num_register_tokens says 0, the tensors 4", "patch_size says 14, the tensors 16",
    ]  # fmt: skip
    for kind, name in ((Dinov2Config, "dinov2_vits14"), (Dinov2WithRegistersConfig, "dinov2_vits14_reg")):
        fields = kind(**small, patch_size=14, image_size=518).to_dict()
        _, config = translate(to_huggingface(on_meta(released()[name]["state_dict"])), Facts())
        assert config_differences(fields, config) == []
        assert config_differences({**fields, "image_size": 224}, config) == ["image_size says 224, the tensors 518"]
        assert config_differences({**fields, "mlp_ratio": 3}, config) == ["mlp_ratio says 3, the tensors 4.0"]


def test_a_network_of_transformers_under_another_name(tmp_path, monkeypatch):
    tiny.saved(tiny.vjepa2(), tmp_path / "vjepa2-vitl")
    monkeypatch.setenv("PATCHATLAS_WEIGHTS", str(tmp_path))
    report = verify("vjepa2-vitl", forward=False)
    assert failed(report) == ["model"]
    assert "named vjepa2-vitl, whose tokens have 1024 numbers; config.json says 36" in found(report, "model")


def test_shapes_are_read_without_the_numbers(tmp_path):
    path = sparse(tmp_path / "7b.safetensors", released()["dinov3_vit7b16"]["state_dict"])  # 26 GB if it were read
    outline = read_outline(path)
    assert outline.expected_bytes == path.stat().st_size > 26e9
    assert all(tensor.is_meta for tensor in outline.tensors.values())
    network, checks = network_checks.check_network({path: outline}, {}, heads=None)
    assert [check.state for check in checks] == ["pass", "pass"]
    assert (network.dim, network.depth, network.heads) == (4096, 40, 32)
    assert checks[0].found == meta.LAYOUT


def test_dtypes_of_a_header(tmp_path):
    state = {str(dtype): torch.zeros(2, dtype=dtype) for dtype in (torch.bfloat16, torch.float16, torch.int64)}
    save_file(state, tmp_path / "a.safetensors", metadata={"format": "pt"})
    outline = read_outline(tmp_path / "a.safetensors")
    assert all(str(tensor.dtype) == name for name, tensor in outline.tensors.items())
    assert outline.metadata == {"format": "pt"}
    (tmp_path / "b.safetensors").write_bytes(struct.pack("<Q", 100_000_001) + b"{}")
    with pytest.raises(WeightsError, match="no readable safetensors header"):
        read_outline(tmp_path / "b.safetensors")
