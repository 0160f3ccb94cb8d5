"""The pages on inputs of re-identification say what the program takes."""

import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from patchatlas.io.video import VideoFrame
from patchatlas.reid.config import PRESETS, ReidConfig, make_config, read_settings
from patchatlas.reid.detect.boxes_file import BoxesFile
from patchatlas.reid.detect.plugin import PluginDetector

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "formats" / "perception.md").read_text(encoding="utf-8")


def test_the_yaml_is_taken(tmp_path: Path) -> None:
    text = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert text is not None
    (tmp_path / "c.yaml").write_text(text[1], encoding="utf-8")
    config = make_config(read_settings(tmp_path / "c.yaml"))
    assert config.embedding.encoder == Path("weights/dinov3-vitb16")


def test_every_setting_and_preset_is_on_the_page() -> None:
    for name, field in ReidConfig.model_fields.items():
        row = re.search(rf"^\| `{name}` \| (.*)$", PAGE, re.MULTILINE)
        assert row is not None, name
        for setting in getattr(field.annotation, "model_fields", ()):
            assert f"`{setting}`" in row[1], f"{name}.{setting}"
    for preset in PRESETS:
        assert f"`{preset}`" in PAGE


def test_the_line_of_jsonl_is_taken(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "formats" / "boxes.md").read_text(encoding="utf-8")
    text = re.search(r"```json\n(.*?)```", page, re.DOTALL)
    assert text is not None
    (tmp_path / "boxes.jsonl").write_text(text[1], encoding="utf-8")
    found = BoxesFile(tmp_path / "boxes.jsonl")(VideoFrame(12, Fraction(3), np.zeros((480, 640, 3), dtype=np.uint8)))
    assert found.boxes.tolist() == [[104.5, 220, 161, 371.25]]


def test_the_ultralytics_example_turns_colours_and_names_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a stand-in for their model, which records what it is given."""
    given = []

    class Boxes:
        xyxy, conf, cls = torch.tensor([[1.0, 2, 30, 40]]), torch.tensor([0.5]), torch.tensor([1.0])

    class Result:
        names, boxes = {0: "cat", 1: "dog"}, Boxes()

    class Model:
        def predict(self, picture: np.ndarray, *, verbose: bool) -> list[Result]:
            assert not verbose
            given.append(picture)
            return [Result()]

    detector = PluginDetector(f"{ROOT / 'examples' / 'ultralytics_detector.py'}:detect")
    monkeypatch.setitem(detector._function.__globals__, "model", Model)  # type: ignore[attr-defined]
    picture = np.zeros((48, 64, 3), dtype=np.uint8)
    picture[..., 0] = 200
    found = detector(VideoFrame(0, Fraction(0), picture))
    assert (found.labels, found.boxes.tolist(), found.scores.tolist()) == (("dog",), [[1, 2, 30, 40]], [0.5])
    assert given[0][0, 0].tolist() == [0, 0, 200]
