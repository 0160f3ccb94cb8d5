"""The page on pretraining: its settings are taken, and it names every group of them."""

import re
from pathlib import Path

import yaml

from patchatlas.pretrain.config import FREE, PretrainConfig, make_config

PAGE = (Path(__file__).parents[2] / "docs" / "pretrain.md").read_text(encoding="utf-8")


def test_the_yaml_is_taken():
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(blocks) == 2
    kinds = [make_config(yaml.safe_load(block)).crops.kind for block in blocks]
    assert kinds == ["volumes", "photos"]


def test_every_group_and_every_free_setting_is_named():
    groups = set(PretrainConfig.model_fields) - {"data", "name", "licence"}
    assert all(f"`{group}`" in PAGE for group in groups)
    assert all(name in PAGE for name in FREE)
