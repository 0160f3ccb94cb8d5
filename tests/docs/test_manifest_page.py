"""The worked example of the manifest's page, computed."""

import json
import re
from fractions import Fraction
from pathlib import Path

from patchatlas.datasets.ids import image_id
from patchatlas.datasets.placement import cell_at, encoder_frame, patch_box, place
from patchatlas.geometry.buckets import MEGAPIXEL_BUCKETS
from patchatlas.io.manifest import KNOWN, Record
from patchatlas.io.reasons import REASONS

PAGE = (Path(__file__).parents[2] / "docs" / "formats" / "manifest-v3.md").read_text(encoding="utf-8")


def example() -> Record:
    text = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert text is not None
    row = json.loads(re.sub(r'"([0-9a-f]+)…"', lambda m: f'"{m[1]:0<64}"', text[1].replace("\n", " ")))
    return Record.from_json(row)


def test_the_example_is_what_the_program_makes():
    record = example()
    assert record.image_id == image_id(record.image_path)
    assert record == place(record, MEGAPIXEL_BUCKETS)
    box = (Fraction(22680, 19), Fraction(10080, 19), Fraction(23688, 19), Fraction(11088, 19))
    assert patch_box(record, (16, 16), 10, 20) == box
    stored = patch_box(record, (16, 16), 10, 20, plane="stored")
    assert stored == (Fraction(10080, 19), Fraction(33768, 19), Fraction(11088, 19), Fraction(34776, 19))
    assert cell_at(record, (16, 16), 1200, 800) == (15, 20)
    rows, cols = record.features["dinov3_patches"].grid
    assert encoder_frame(record, (16, 16)).size == (16 * rows, 16 * cols)
    assert encoder_frame(record, (14, 14)).size == (14 * 87, 14 * 59)
    assert record.features["dinov3_patches"].bytes == 128 + rows * cols * 1024 * 2  # an .npy header has 128 bytes


def test_the_page_names_every_key_and_reason():
    named = re.findall(r"^\| (`[^|]*) \|", PAGE, re.MULTILINE)
    assert {key for cell in named for key in re.findall(r"`(\w+)`", cell)} == KNOWN
    listed = re.search(r"`type` MUST be one of (.*?)\.", PAGE, re.DOTALL)
    assert listed is not None
    assert tuple(re.findall(r"`(\w+)`", listed[1])) == REASONS
