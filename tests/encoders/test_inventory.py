"""The list of encoders: every fact of the catalogue, what is here and what is not, without torch or network."""

import json
import subprocess
import sys

import pytest

from patchatlas.encoders import inventory
from patchatlas.encoders.bundled import names
from patchatlas.encoders.catalogue import CATALOGUE
from patchatlas.encoders.inventory import Source, take
from patchatlas.encoders.loading import load_encoder
from patchatlas.errors import UsageError


@pytest.fixture(autouse=True)
def empty_machine(monkeypatch):
    monkeypatch.delenv("PATCHATLAS_WEIGHTS", raising=False)
    monkeypatch.setattr("patchatlas.encoders.hub.cached", lambda _: None)


def test_every_encoder_is_listed_once_bundled_ones_first():
    assert [item.name for item in take()] == [*(f"bundled:{name}" for name in names()), *CATALOGUE]
    assert [item.name for item in take() if item.ready] == ["bundled:sift", "bundled:vit-tiny16"]


def test_the_facts_of_one():
    (item,) = take(["dinov3-vitb16"])
    assert (item.family, item.parameters, item.dim, item.patch) == ("dinov3", 85_669_632, 768, (16, 16))
    assert (item.registers, item.licence, item.gated) == (4, "dinov3-license", False)
    assert item.sources == (
        Source(id="timm/vit_base_patch16_dinov3.lvd1689m", gated=False),
        Source(id="facebook/dinov3-vitb16-pretrain-lvd1689m", gated=True),
    )
    assert (item.sha256_start, item.size_bytes) == ("73cec8be", 4 * 85_669_632)
    assert (item.path, item.bytes_here, item.ready) == (None, None, False)


def test_gated_only_where_no_other_place_is_known():
    assert [item.name for item in take() if item.gated] == [
        "dinov3-vitl16plus", *(f"dinov3-convnext-{size}" for size in ("tiny", "small", "base", "large")),
    ]  # fmt: skip


def test_sizes_are_known_of_all_networks():
    assert all(item.size_bytes for item in take() if not item.bundled)


@pytest.mark.parametrize("name", ["dinov2-vits14", "facebook/dinov2-small", "dinov2_vits14_pretrain.pth"])
def test_a_file_in_the_weights_folder_is_here(monkeypatch, tmp_path, name):
    (tmp_path / "dinov2_vits14_pretrain.pth").write_bytes(bytes(1234))
    monkeypatch.setenv("PATCHATLAS_WEIGHTS", str(tmp_path))
    (item,) = take([name])
    assert (item.path, item.bytes_here, item.ready) == (tmp_path / "dinov2_vits14_pretrain.pth", 1234, True)


def test_a_folder_in_the_hub_cache_is_here(monkeypatch, tmp_path):
    for name, size in {"model.safetensors": 100, "config.json": 5}.items():
        (tmp_path / name).write_bytes(bytes(size))
    monkeypatch.setattr("patchatlas.encoders.hub.cached", lambda i: tmp_path if i == "facebook/dinov2-base" else None)
    (item,) = take(["dinov2-vitb14"])
    assert (item.path, item.bytes_here) == (tmp_path, 100)


def test_an_extra_that_is_not_installed_is_told(monkeypatch, tmp_path):
    (tmp_path / "vjepa2-vitl.safetensors").touch()
    monkeypatch.setenv("PATCHATLAS_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(inventory, "find_spec", lambda _: None)
    for name, extra in {"bundled:sift": "opencv", "vjepa2-vitl": "transformers"}.items():
        (item,) = take([name])
        assert (item.extra, item.extra_installed, item.ready) == (extra, False, False)
    assert take(["dinov2-vits14"])[0].extra is None


def test_sift_is_listed_with_the_facts_that_it_has():
    spec = load_encoder("bundled:sift", device="cpu").spec
    (item,) = take(["sift"])
    assert (item.name, item.family) == (spec.name, spec.family)
    assert (item.dim, item.patch, item.licence) == (spec.dim, spec.patch, spec.licence)
    assert item.registers == spec.registers


def test_an_unknown_name():
    with pytest.raises(
        UsageError, match=r"called 'dinov9'; there are: bundled:sift, bundled:vit-tiny16, dinov3-vits16"
    ):
        take(["dinov9"])


def test_json_holds_everything():
    assert json.loads(json.dumps(take(["dinov3-vits16"])[0].to_json()))["sources"][1]["gated"] is True


def test_torch_is_not_imported():
    code = "import sys; from patchatlas.encoders.inventory import take; take(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
