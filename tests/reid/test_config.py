"""Settings: presets, YAML and flags fill one model; what is unknown or impossible is refused with what is allowed."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from patchatlas.encoders.fake import FakeEncoder
from patchatlas.errors import InputError, UsageError, WeightsError
from patchatlas.reid.config import PRESETS, EmbeddingConfig, make_config, read_settings, to_yaml


def test_backends_really_differ() -> None:
    """The earlier project took the flag and used V-JEPA 2 whatever it said."""
    asked = {
        backend: make_config({"embedding": {"backend": backend}}).embedding
        for backend in ("dinov2", "dinov3", "vjepa2")
    }
    assert {name: one.encoder for name, one in asked.items()} == {
        "dinov2": "dinov2-vitb14-reg",
        "dinov3": "dinov3-vitb16",
        "vjepa2": "vjepa2-vitl",
    }
    assert make_config().embedding.encoder is None
    assert make_config({"embedding": {"backend": "my/encoder"}}).embedding.encoder == "my/encoder"


def test_weights_folder_is_what_is_loaded() -> None:
    config = make_config({"embedding": {"backend": "dinov3", "dinov3_weights_dir": "weights"}})
    assert config.embedding.encoder == Path("weights")
    assert config.embedding.model is None


@pytest.mark.parametrize(
    ("backend", "pooling", "regions", "clip_frames"),
    [
        ("bundled", "none", "crops", None),
        ("dinov2", "mean", "auto", None),
        ("dinov3", "mean", "auto", None),
        ("vjepa2", "mean", "crops", 4),
        ("facebook/some-vit", "mean", "auto", None),
    ],
)
def test_defaults_follow_the_backend_and_are_written_out(
    backend: str, pooling: str, regions: str, clip_frames: int | None
) -> None:
    one = make_config({"embedding": {"backend": backend}}).embedding
    assert (one.pooling, one.regions, one.clip_frames) == (pooling, regions, clip_frames)


def test_boxes_of_a_whole_frame_have_no_class_token_of_their_own() -> None:
    one = make_config({"embedding": {"backend": "dinov3", "regions": "frame"}}).embedding
    assert one.pooling == "mean"


@pytest.mark.parametrize("preset", PRESETS)
def test_the_dumped_config_is_the_same_config(tmp_path: Path, preset: str) -> None:
    config = make_config({"detection": {"labels": ["person"]}, "fps": 7.5}, preset=preset)
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert make_config(read_settings(path)) == config
    dumped = yaml.safe_load(path.read_text(encoding="utf-8"))["perception"]
    assert dumped.keys() == {"fps", "embedding", "detection", "tracking", "link"}
    assert dumped["embedding"].keys() == EmbeddingConfig.model_fields.keys()


def test_later_layers_win_over_file_and_preset(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("perception:\n  embedding:\n    backend: dinov3\n    batch_size: 4\n  fps: 2\n", encoding="utf-8")
    config = make_config(read_settings(path), {"embedding": {"batch_size": 9}}, preset="vjepa2")
    assert (config.embedding.backend, config.embedding.batch_size, config.fps) == ("dinov3", 9, 2.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"embeding": {}}, "perception.embeding is no setting; allowed are fps, embedding, detection, tracking, link"),
        ({"embedding": {"embedding_dim": 768}}, "embedding_dim is no setting (the dimension comes from the encoder)"),
        ({"embedding": {"embedding_dim": 768}}, "allowed are backend, model, dinov3_weights_dir, batch_size"),
        ({"tracking": {"max_age": 30}}, "perception.tracking.max_age is no setting; allowed are method, patience_s"),
        ({"embedding": {"backend": "dinov2", "dinov3_weights_dir": "x"}}, "dinov3_weights_dir is for backend dinov3"),
        (
            {"embedding": {"backend": "dinov3", "dinov3_weights_dir": "x", "model": "dinov3-vitb16"}},
            "both name weights; give one of them",
        ),
        ({"embedding": {"backend": "bundled", "model": "dinov3-vitb16"}}, "names its encoder itself"),
        ({"embedding": {"backend": "dinov2", "model": "dinov3-vitb16"}}, "model dinov3-vitb16 is dinov3, not dinov2"),
        ({"embedding": {"backend": "bundled", "pooling": "cls"}}, "bundled has no tokens and takes none"),
        ({"embedding": {"backend": "dinov3", "pooling": "none"}}, "all others take cls, mean, cls+mean or gem"),
        ({"embedding": {"backend": "vjepa2", "pooling": "cls+mean"}}, "V-JEPA 2 has none; allowed are mean and gem"),
        ({"embedding": {"backend": "vjepa2", "regions": "frame"}}, "allowed is crops"),
        ({"embedding": {"backend": "bundled", "regions": "auto"}}, "allowed is crops"),
        ({"embedding": {"backend": "dinov3", "regions": "frame", "pooling": "cls"}}, "mean and gem are allowed"),
        ({"embedding": {"backend": "vjepa2", "clip_frames": 5}}, "clip_frames 5 is odd"),
        ({"embedding": {"backend": "dinov3", "clip_frames": 8}}, "clip_frames is for backend vjepa2"),
        ({"embedding": {"device": "gpu"}}, "allowed are auto, cpu, cuda, cuda:N and mps"),
        ({"embedding": {"batch_size": 0}}, "perception.embedding.batch_size: input should be greater than 0, given 0"),
        ({"embedding": 3}, "perception.embedding:"),
        ({"fps": float("nan")}, "perception.fps: input should be a finite number"),
        ({"detection": {"detector": "yolo"}}, "allowed are motion, boxes, hog, saliency, hf:NAME and module:function"),
        ({"detection": {"detector": "boxes"}}, "belong together"),
        ({"detection": {"boxes": "gt.txt"}}, "belong together"),
        ({"link": {"threshold": 1.5}}, "perception.link.threshold"),
        ({"link": {"cosine": 0.8, "false_links": 0.1}}, "give one of them"),
    ],
)
def test_unknown_keys_and_impossible_mixes(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_config(settings)
    assert message in str(caught.value)


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        make_config({"fps": 0, "embedding": {"backned": "dinov3"}})
    assert "perception.fps" in str(caught.value)
    assert "perception.embedding.backned" in str(caught.value)


def test_unknown_preset() -> None:
    with pytest.raises(UsageError, match="there are dinov3, dinov2, vjepa2, fast"):
        make_config(preset="accurate")


@pytest.mark.parametrize(
    "text", ["", "embedding:\n  backend: dinov3\n", "perception: 3\n", "perception: {}\nmore: 1\n"]
)
def test_yaml_needs_the_one_key(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="must have one key at the top"):
        read_settings(path)


def test_yaml_that_is_none_and_file_that_is_absent(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("perception: [", encoding="utf-8")
    with pytest.raises(UsageError, match="is not YAML"):
        read_settings(path)
    with pytest.raises(InputError, match="cannot open"):
        read_settings(tmp_path / "none.yaml")


def test_weights_of_another_family_are_refused() -> None:
    """A mistyped folder made the earlier project load DINOv2 and report DINOv3."""
    spec = FakeEncoder().spec
    config = make_config({"embedding": {"backend": "dinov3", "dinov3_weights_dir": "x"}}).embedding
    with pytest.raises(WeightsError, match=r"backend dinov3 was asked for, but x holds fake \(fake\)"):
        config.require(spec)
    for family in ("dinov3", "convnext"):
        config.require(dataclasses.replace(spec, family=family))
    make_config({"embedding": {"backend": "x"}}).embedding.require(spec)
