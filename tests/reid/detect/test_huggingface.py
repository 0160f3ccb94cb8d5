"""Detection networks of transformers: the real classes, tiny and with random weights."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from patchatlas.errors import WeightsError
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.sampling import resample_picture
from patchatlas.io.video import VideoFrame
from patchatlas.reid.config import make_config
from patchatlas.reid.detect.huggingface import HuggingFaceDetector, Recipe
from patchatlas.reid.detect.loading import load_detector

transformers = pytest.importorskip("transformers")

SQUARE = {"do_resize": True, "size": {"height": 64, "width": 96}, "do_rescale": True, "rescale_factor": 1 / 255}
LABELS = {0: "cat", 1: "dog", 2: "hat"}


def detr(**more: Any) -> dict[str, Any]:
    return {
        "encoder_hidden_dim": 16,
        "encoder_in_channels": [8, 16, 16],
        "encoder_ffn_dim": 16,
        "encoder_attention_heads": 2,
        "d_model": 16,
        "decoder_in_channels": [16, 16, 16],
        "decoder_ffn_dim": 16,
        "decoder_layers": 2,
        "decoder_attention_heads": 2,
        "num_queries": 12,
        "num_denoising": 0,
        "feat_strides": [8, 16, 32],
        "num_feature_levels": 3,
        "id2label": LABELS,
        **more,
    }


def config_of(kind: str) -> Any:
    stages = {"out_features": ["stage2", "stage3", "stage4"], "embedding_size": 8, "depths": [1, 1, 1, 1]}
    if kind == "d_fine":
        backbone = transformers.HGNetV2Config(
            stem_channels=[3, 8, 8],
            stage_in_channels=[8, 8, 8, 16],
            stage_mid_channels=[8, 8, 8, 8],
            stage_out_channels=[8, 8, 16, 16],
            stage_num_blocks=[1, 1, 1, 1],
            stage_numb_of_layers=[1, 1, 1, 1],
            hidden_sizes=[8, 8, 16, 16],
            **stages,
        )
        return transformers.DFineConfig(backbone_config=backbone, **detr())
    if kind == "rf_detr":
        backbone = transformers.RfDetrDinov2Config(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            patch_size=16,
            image_size=64,
            num_windows=1,
            out_indices=[1, 2],
        )
        return transformers.RfDetrConfig(
            backbone_config=backbone,
            d_model=16,
            decoder_layers=1,
            decoder_self_attention_heads=2,
            decoder_cross_attention_heads=2,
            decoder_ffn_dim=16,
            num_queries=12,
            group_detr=1,
            id2label=LABELS,
        )
    backbone = transformers.RTDetrResNetConfig(hidden_sizes=[8, 8, 16, 16], layer_type="basic", **stages)
    return transformers.RTDetrV2Config(backbone_config=backbone, **detr())


def folder_of(path: Path, kind: str = "rf_detr", recipe: dict[str, Any] | None = None) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = transformers.AutoModelForObjectDetection.from_config(config_of(kind))
    network.eval().save_pretrained(path)
    (path / "preprocessor_config.json").write_text(json.dumps(recipe or SQUARE), encoding="utf-8")
    (path / "README.md").write_text("---\nlicense: apache-2.0\n---\n", encoding="utf-8")
    return path


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (90, 130, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["rf_detr", "d_fine", "rt_detr_v2"])
def test_network_answers_as_transformers_says(tmp_path: Path, kind: str) -> None:
    """Beside a plain loop over the raw answer of the class itself."""
    folder = folder_of(tmp_path / kind, kind)
    detector = HuggingFaceDetector(str(folder), device="cpu", least_score=0.0)
    found = detector(VideoFrame(0, Fraction(0), picture()))

    network = transformers.AutoModelForObjectDetection.from_pretrained(folder).eval()
    small = resample_picture(picture(), Frame.whole((90, 130)).resize((64, 96)))[None]
    with torch.no_grad():
        answer = network(pixel_values=small)
    expected = []
    for query, logits in enumerate(answer.logits[0].tolist()):
        cx, cy, w, h = answer.pred_boxes[0, query].tolist()
        for label, logit in enumerate(logits):
            corners = ((cx - w / 2) * 130, (cy - h / 2) * 90, (cx + w / 2) * 130, (cy + h / 2) * 90)
            expected.append((1 / (1 + np.exp(-logit)), LABELS.get(label, f"class {label}"), corners))
    expected.sort(key=lambda one: -one[0])

    assert len(found) + sum(detector.dropped.values()) == 12
    assert found.scores.tolist() == pytest.approx([one[0] for one in expected[: len(found)]], abs=1e-5)
    best = found.boxes[0].tolist()
    near = [one for one in expected[:6] if one[1] == found.labels[0]]
    gap = min(np.abs(np.clip(one[2], 0, [130, 90, 130, 90]) - best).max() for one in near)
    assert gap < 1e-3


def test_scores_are_sorted_and_cut(tmp_path: Path) -> None:
    folder = str(folder_of(tmp_path / "d"))
    frame = VideoFrame(0, Fraction(0), picture())
    scores = HuggingFaceDetector(folder, device="cpu", least_score=0.0)(frame).scores
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    limit = float(scores[3])
    assert len(HuggingFaceDetector(folder, device="cpu", least_score=limit)(frame)) == 4


def test_provenance_and_licence_are_on_record(tmp_path: Path) -> None:
    config = make_config({"detection": {"detector": f"hf:{folder_of(tmp_path / 'd')}", "device": "cpu"}}).detection
    facts = json.loads(json.dumps(load_detector(config, fps=4.0).facts))
    assert (facts["model_type"], facts["licence"], len(facts["weights_sha256"])) == ("rf_detr", "apache-2.0", 64)
    assert facts["preprocessing"]["size"] == {"height": 64, "width": 96}


@pytest.mark.parametrize(
    ("size", "given", "drawn"),
    [
        ({"height": 64, "width": 96}, (90, 130), (64, 96)),
        ({"shortest_edge": 80}, (100, 200), (80, 160)),
        ({"shortest_edge": 80, "longest_edge": 120}, (100, 200), (60, 120)),
        ({"shortest_edge": 80, "longest_edge": 500}, (200, 100), (160, 80)),
    ],
)
def test_sizes(size: dict[str, int], given: tuple[int, int], drawn: tuple[int, int]) -> None:
    assert Recipe(size, 1 / 255, (0.0,) * 3, (1.0,) * 3).size_for(given) == drawn


def test_normalisation_is_read_from_the_folder(tmp_path: Path) -> None:
    facts = {**SQUARE, "do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(facts), encoding="utf-8")
    grey = torch.full((3, 1, 1), 0.5)
    assert Recipe.read(tmp_path).normalised(grey).flatten().tolist() == pytest.approx([0, 0.5, 2])
    facts = {**SQUARE, "do_rescale": False}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(facts), encoding="utf-8")
    assert Recipe.read(tmp_path).normalised(grey).flatten().tolist() == pytest.approx([127.5] * 3)


def test_folders_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="neither a folder with a detector nor a hub id"):
        HuggingFaceDetector(str(tmp_path / "none"), device="cpu")

    folder = folder_of(tmp_path / "d")
    weights = load_file(folder / "model.safetensors")
    lost = sorted(weights)[0]
    save_file(
        {key: value for key, value in weights.items() if key != lost}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(WeightsError, match=r"do not fill RfDetrForObjectDetection: missing: "):
        HuggingFaceDetector(str(folder), device="cpu")

    (folder / "preprocessor_config.json").write_text('{"size": {"max_height": 3}}', encoding="utf-8")
    with pytest.raises(WeightsError, match="known are height and width"):
        HuggingFaceDetector(str(folder), device="cpu")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match=r"no preprocessor_config\.json"):
        HuggingFaceDetector(str(folder), device="cpu")

    (folder / "config.json").write_text('{"model_type": "yolos"}', encoding="utf-8")
    with pytest.raises(WeightsError, match="model_type 'yolos'"):
        HuggingFaceDetector(str(folder), device="cpu")
