"""The backend that was asked for is the one that runs, or there is an error that says why not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from patchatlas.encoders import hub
from patchatlas.encoders.fake import FakeEncoder
from patchatlas.errors import UsageError, WeightsError
from patchatlas.reid.config import EmbeddingConfig, make_config
from patchatlas.reid.embed.backend import Backend, Embedder, backend_of, load_backend
from patchatlas.reid.embed.cache import CachedEmbedder
from patchatlas.reid.embed.lab import LabEmbedder
from tests.encoders import tiny_transformers as tiny
from tests.encoders.test_loading import V2, huggingface_folder

GOLDEN = Path(__file__).parents[2] / "golden" / "dino"
DINOV3 = GOLDEN / "dinov3_mlp_d128h2.weights.safetensors"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(repo_id: str, **_: Any) -> None:
        raise AssertionError(f"{repo_id} was asked of the hub")

    monkeypatch.delenv("PATCHATLAS_WEIGHTS", raising=False)
    monkeypatch.setattr(hub, "snapshot_download", absent)


@pytest.fixture(scope="module")
def vjepa2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.saved(tiny.vjepa2(), tmp_path_factory.mktemp("vjepa2"))


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return huggingface_folder(tmp_path_factory.mktemp("dinov2"), V2)


def config(**embedding: Any) -> EmbeddingConfig:
    return make_config({"embedding": {"device": "cpu", "dtype": "fp32", "crop_size": 112, **embedding}}).embedding


def settings(dinov2: Path, vjepa2: Path) -> dict[str, dict[str, Any]]:
    return {
        "bundled": {},
        "dinov2": {"backend": "dinov2", "model": str(dinov2)},
        "dinov3": {"backend": "dinov3", "dinov3_weights_dir": DINOV3},
        "vjepa2": {"backend": "vjepa2", "model": str(vjepa2), "clip_frames": 4},
        "path": {"backend": str(DINOV3)},
    }


def test_the_switch_switches(dinov2: Path, vjepa2: Path) -> None:
    """Defects 1, 2 and 4: whatever was asked for, V-JEPA 2 or DINOv2 ran, under the name that was asked for."""
    crop = np.random.default_rng(0).integers(0, 256, (90, 40, 3), np.uint8)
    made: dict[str, Backend] = {name: load_backend(config(**one)) for name, one in settings(dinov2, vjepa2).items()}
    rows = {name: one.crops.embed_crops([crop])[0][0] for name, one in made.items()}
    assert {name: one.crops.spec.family for name, one in made.items()} == {
        "bundled": "lab",
        "dinov2": "dinov2",
        "dinov3": "dinov3",
        "vjepa2": "vjepa2",
        "path": "dinov3",
    }
    # Defect 21: any length is right.
    assert {name: len(row) for name, row in rows.items()} == {
        "bundled": LabEmbedder().dim,
        "dinov2": 64,
        "dinov3": 128,
        "vjepa2": 36,
        "path": 128,
    }
    assert len({one.crops.stamp.digest for one in made.values()}) == 4  # the last two are the same weights
    for name, one in made.items():
        assert dict(one.crops.stamp.facts)["weights_sha256"] == one.crops.spec.weights_sha256, name
        assert isinstance(one.crops, Embedder)
        assert one.crops.dim == len(rows[name])
        torch.testing.assert_close(rows[name].norm(), torch.tensor(1.0))


def test_a_config_opens_the_ways_that_it_allows(dinov2: Path, vjepa2: Path) -> None:
    ways = {}
    for name, one in {
        **settings(dinov2, vjepa2),
        "still": {"backend": "vjepa2", "model": str(vjepa2), "clip_frames": 2},
        "frame": {"backend": "dinov3", "model": str(DINOV3), "regions": "frame"},
        "crops": {"backend": str(DINOV3), "regions": "crops"},
        "token": {"backend": str(DINOV3), "pooling": "cls+mean"},
    }.items():
        made = load_backend(config(**one))
        ways[name] = (made.regions is not None, made.clips is not None)
    assert ways == {
        "bundled": (False, False),
        "dinov2": (True, False),
        "dinov3": (True, False),
        "vjepa2": (False, True),
        "path": (True, False),
        "still": (False, False),
        "frame": (True, False),
        "crops": (False, False),
        "token": (False, False),  # the class token is for crops
    }


def test_a_mistyped_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    """Defect 4: facebook/dinov2-base was loaded instead, and still called dinov3."""
    with pytest.raises(WeightsError, match=r"dinov3-vitb61.* does not exist"):
        load_backend(config(backend="dinov3", dinov3_weights_dir=tmp_path / "dinov3-vitb61"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="no weights"):
        load_backend(config(backend="dinov3", dinov3_weights_dir=tmp_path / "empty"))


def test_weights_of_another_family_are_refused(dinov2: Path) -> None:
    with pytest.raises(WeightsError, match=r"backend dinov3 was asked for, but .* holds dinov2"):
        load_backend(config(backend="dinov3", dinov3_weights_dir=dinov2))


def test_a_name_without_weights_is_an_error_and_no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    """Defect 3: what was called a hub download could not download, and something else was taken."""
    monkeypatch.setattr(hub, "cached", lambda _: None)
    with pytest.raises(WeightsError, match="dinov3-vitb16 are not on this machine"):
        load_backend(config(backend="dinov3"))


def test_what_an_encoder_cannot_do_is_said() -> None:
    with pytest.raises(UsageError, match=r"pooling cls needs a class token, fake has none"):
        backend_of(FakeEncoder(has_cls=False), config(backend="some/fake", pooling="cls"))
    with pytest.raises(UsageError, match="clip_frames needs an encoder of video, fake is of pictures"):
        backend_of(FakeEncoder(), config(backend="some/fake", clip_frames=4))
    with pytest.raises(UsageError, match="fake does not take RGB pictures"):
        backend_of(FakeEncoder(patch=(4, 8, 8)), config(backend="some/fake"))
    with pytest.raises(UsageError, match="fake does not take RGB pictures"):
        backend_of(FakeEncoder(channels=1), config(backend="some/fake"))
    with pytest.raises(UsageError, match="pooling none is for backend bundled"):
        backend_of(FakeEncoder(), config())


def test_all_ways_are_embedders(tmp_path: Path) -> None:
    assert isinstance(LabEmbedder(), Embedder)
    assert isinstance(CachedEmbedder(LabEmbedder(), tmp_path), Embedder)
