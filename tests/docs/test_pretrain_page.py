"""The page on pretraining: its settings are taken, and it names every group of them."""

import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
import yaml

from patchatlas.pretrain.config import FREE, PretrainConfig, make_config
from patchatlas.pretrain.export import write_encoder
from patchatlas.pretrain.model import make_student, with_mean_std
from tests.pretrain.ablation.volumes import tiny_config

PAGE = (Path(__file__).parents[2] / "docs" / "pretrain.md").read_text(encoding="utf-8")


def test_the_yaml_is_taken():
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(blocks) == 3
    kinds = [make_config(yaml.safe_load(block)).crops.kind for block in blocks]
    assert kinds == ["volumes", "photos", "photos"]


def test_every_group_and_every_free_setting_is_named():
    groups = set(PretrainConfig.model_fields) - {"data", "name", "licence"}
    assert all(f"`{group}`" in PAGE for group in groups)
    assert all(name in PAGE for name in FREE)


def test_the_encoder_is_used_as_the_page_says(tmp_path, monkeypatch):
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL) if "load_encoder" in block)
    config = with_mean_std(tiny_config("cache"))
    student = make_student(config)
    (tmp_path / "ct").mkdir()
    (tmp_path / "scans").mkdir()
    path = tmp_path / "ct" / "encoder.safetensors"
    write_encoder(path, student.state_dict(), student.vit.config, config, step=0, spacing_mm=(2.0, 1.0, 1.0))
    values = np.full((45, 41, 13), -500, np.int16)  # (x, y, z): no side is a multiple of the patch
    values[:20] = 40
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 1.0, 3.0, 1.0])), tmp_path / "scans" / "one.nii.gz")
    monkeypatch.chdir(tmp_path)
    told: dict = {}
    exec(code.replace("windows=96", "windows=16"), told)
    assert told["features"].grid.shape == (3, 6, 6)  # 13 slices of 3 mm are 20 of 2 mm, 24 with padding
    assert told["pixels"].unique().tolist() == pytest.approx([0.25, 0.52])
