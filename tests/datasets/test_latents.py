"""Latents: a tiny random AutoencoderKL in a folder, encoded as diffusers itself does, and every way it can be wrong."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from patchatlas.datasets import latents
from patchatlas.datasets.latents import CONFIG, WEIGHTS, load_vae
from patchatlas.errors import MissingExtraError, ShapeError, UsageError, WeightsError
from patchatlas.stamp import Stamp


def tiny_vae(**config: object) -> AutoencoderKL:
    """Stride 8, 4 latent channels, random weights of seed 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            latent_channels=4,
            norm_num_groups=4,
            **config,
        ).eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("vae")
    tiny_vae().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(saved, tmp_path / "vae"))


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(1))


def edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, **changes}))


def test_the_facts_of_a_folder(saved):
    spec = load_vae(saved, device="cpu").spec
    assert (spec.family, spec.patch, spec.dim, spec.dtype) == ("vae", (8, 8), 4, "fp32")
    assert spec.weights_sha256 == latents.digest([saved / WEIGHTS])


def test_latents_are_the_mean_of_diffusers_times_the_factor(saved, pixels):
    with torch.no_grad():
        theirs = tiny_vae().encode(pixels * 2 - 1).latent_dist.mean
    raw = load_vae(saved, device="cpu", scaled=False)
    torch.testing.assert_close(raw(pixels), theirs, rtol=1e-5, atol=1e-6)
    assert theirs.shape == (2, 4, 6, 8)
    encoder = load_vae(saved, device="cpu")
    torch.testing.assert_close(encoder(pixels), theirs * 0.18215)
    assert torch.equal(encoder(pixels), encoder(pixels))
    assert encoder.facts["latents_scaled"] is True
    assert encoder.facts["latents_factor"] == 0.18215
    scaled, unscaled = (Stamp.of(one.spec, **one.facts) for one in (encoder, raw))
    assert scaled.digest != unscaled.digest


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"shift_factor": 0.1159, "scaling_factor": 0.3611}, lambda z: (z - 0.1159) * 0.3611),
        (
            {"latents_mean": [1.0, 2.0, 3.0, 4.0], "latents_std": [2.0, 2.0, 4.0, 4.0], "scaling_factor": 0.5},
            lambda z: (
                (z - torch.tensor([1.0, 2, 3, 4])[:, None, None]) / torch.tensor([2.0, 2, 4, 4])[:, None, None] * 0.5
            ),
        ),
    ],
    ids=["shift", "mean and std"],
)
def test_scaling_follows_the_config(folder, pixels, changes, expected):
    raw = load_vae(folder, device="cpu", scaled=False)(pixels)
    before = load_vae(folder, device="cpu")
    edit_config(folder, **changes)
    after = load_vae(folder, device="cpu")
    torch.testing.assert_close(after(pixels), expected(raw))
    assert Stamp.of(after.spec, **after.facts) != Stamp.of(before.spec, **before.facts)


def test_a_name_or_a_version_in_the_config_changes_no_stamp(folder):
    before = load_vae(folder, device="cpu")
    edit_config(folder, _name_or_path="elsewhere", _diffusers_version="0.1", sample_size=512)
    after = load_vae(folder, device="cpu")
    assert Stamp.of(after.spec, **after.facts) == Stamp.of(before.spec, **before.facts)


def test_latent_pixels_sit_where_their_pixels_are(tmp_path):
    """Noise with one 8 x 8 block replaced: the latents that change most are near it. Random kernels wander a little."""
    tiny_vae(mid_block_add_attention=False).save_pretrained(tmp_path)
    encoder = load_vae(tmp_path, device="cpu", scaled=False)
    for row, column in ((5, 2), (1, 9), (7, 11)):
        calm, other = torch.rand(2, 16, 3, 64, 96, generator=torch.Generator().manual_seed(row))
        at = (..., slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
        changed = calm.clone()
        changed[at] = other[at]
        change = (encoder(changed) - encoder(calm)).square().sum(dim=(0, 1))
        found = divmod(int(change.argmax()), change.shape[1])
        assert abs(found[0] - row) <= 1
        assert abs(found[1] - column) <= 2


def test_bf16_is_close_and_another_stamp(saved, pixels):
    exact, half = (load_vae(saved, device="cpu", dtype=dtype) for dtype in ("fp32", "bf16"))
    assert half(pixels).dtype == torch.float32
    torch.testing.assert_close(half(pixels), exact(pixels), rtol=0.1, atol=0.02)
    assert Stamp.of(half.spec) != Stamp.of(exact.spec)


def test_sizes_that_would_be_cut_are_refused(saved):
    encoder = load_vae(saved, device="cpu")
    with pytest.raises(ShapeError, match=r"96x60 px .* side 60 is no multiple of the stride 8"):
        encoder(torch.zeros(1, 3, 60, 96))
    encoder.require_fit((832, 1216))


def test_a_whole_pipeline_holds_its_vae_in_a_folder(saved, tmp_path, pixels):
    shutil.copytree(saved, tmp_path / "pipeline" / "vae")
    inside = load_vae(tmp_path / "pipeline", device="cpu")
    assert torch.equal(inside(pixels), load_vae(saved, device="cpu")(pixels))


def lose_a_weight(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    del state["encoder.conv_in.weight"]
    save_file(state, folder / WEIGHTS)


def add_a_weight(folder: Path) -> None:
    save_file({**load_file(folder / WEIGHTS), "stray": torch.zeros(1)}, folder / WEIGHTS)


def cut_weights(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:1000])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / WEIGHTS).unlink(), rf"lacks {WEIGHTS}"),
        (lambda f: (f / CONFIG).unlink(), r"lacks config\.json"),
        (lambda f: (f / CONFIG).write_text("{"), "is not JSON"),
        (lambda f: edit_config(f, _class_name="UNet2DModel"), "holds a UNet2DModel, not an AutoencoderKL"),
        (lambda f: edit_config(f, latent_channels=8), "cannot be loaded as an AutoencoderKL: .*size mismatch"),
        (lose_a_weight, r"do not fit its config\.json: .*missing_keys.*encoder\.conv_in\.weight"),
        (add_a_weight, r"do not fit its config\.json: .*unexpected_keys.*stray"),
        (cut_weights, "cannot be loaded as an AutoencoderKL"),
    ],
    ids=["no weights", "no config", "no JSON", "another class", "other shape", "missing", "extra", "cut short"],
)
def test_folders_that_are_wrong(folder, spoil, message):
    spoil(folder)
    with pytest.raises(WeightsError, match=message):
        load_vae(folder, device="cpu")


@pytest.mark.parametrize("name", ["nowhere", "/no/where", Path("owner/name")])
def test_paths_that_do_not_exist_are_no_hub_ids(name):
    with pytest.raises(WeightsError, match="does not exist"):
        load_vae(name, device="cpu")


def test_options_that_do_not_exist(saved):
    with pytest.raises(UsageError, match="fp16 is refused"):
        load_vae(saved, device="cpu", dtype="fp16")


def test_a_hub_id_is_taken_from_the_cache_first(saved, monkeypatch, pixels):
    def cached(repo_id: str, *, allow_patterns: list[str], local_files_only: bool = False) -> str:
        assert (repo_id, local_files_only) == ("owner/name", True)
        assert f"vae/{WEIGHTS}" in allow_patterns
        return str(saved)

    monkeypatch.setattr(latents, "snapshot_download", cached)
    encoder = load_vae("owner/name", device="cpu")
    assert (encoder.spec.source, encoder.spec.name) == ("owner/name", "name")
    assert encoder(pixels).shape == (2, 4, 6, 8)


def test_a_hub_that_cannot_be_reached(monkeypatch):
    def refuse(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(latents, "snapshot_download", refuse)
    with pytest.raises(WeightsError, match=r"owner/name is not in the local cache.*hf download owner/name"):
        load_vae("owner/name", device="cpu")


def test_without_diffusers_the_extra_is_named(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingExtraError, match=r"encoding latents needs diffusers.*patchatlas\[latents\]"):
        load_vae(saved, device="cpu")


def test_the_module_loads_without_diffusers_and_diffusers_without_torchvision_or_network():
    """In a process of its own, where every connection is refused."""
    script = """
import socket, sys
def refuse(*_, **__): raise AssertionError("network")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
sys.modules["torchvision"] = None
import patchatlas.datasets.latents
assert "diffusers" not in sys.modules
from diffusers import AutoencoderKL
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
