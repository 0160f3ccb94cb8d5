"""The page on crops says what the code does."""

import re
from pathlib import Path

import yaml

from patchatlas.pretrain.crops.config import CropConfig
from patchatlas.pretrain.crops.records import FLAGS

PAGE = (Path(__file__).parents[2] / "docs" / "pretrain-crops.md").read_text(encoding="utf-8")


def test_the_settings_on_the_page_are_the_defaults() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    given = yaml.safe_load(block)["crops"]
    assert CropConfig.model_validate(given) == CropConfig()
    left_out = set(CropConfig.model_fields) - set(given)
    assert left_out == {"kind"}
    assert set(CropConfig().globals.model_dump()) == set(given["globals"])


def test_every_flag_is_explained() -> None:
    table = PAGE[PAGE.index("| flag |") :]
    assert re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE) == [*FLAGS[1:], FLAGS[0]]
