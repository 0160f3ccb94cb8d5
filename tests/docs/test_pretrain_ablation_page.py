"""The page on ablations and its format: every part, column and number is named, and the commands fit the project."""

from pathlib import Path

from patchatlas.pretrain.ablation.arms import PARTS
from patchatlas.pretrain.ablation.results import BELOW, METRICS, WINDOW
from patchatlas.pretrain.ablation.table import FORMAT, VERSION

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "pretrain-ablation.md").read_text(encoding="utf-8")
FORMAT_PAGE = (ROOT / "docs" / "formats" / "ablation-v1.md").read_text(encoding="utf-8")


def test_every_part_is_named_with_what_it_is():
    for part, (line, _) in PARTS.items():
        assert f"`{part}`" in PAGE
        if part not in ("origin", "prototype", "no-koleo", "no-ibot"):  # said at more length, or together
            assert f"| `{part}` | {line}" in PAGE


def test_files_that_are_named_are_there():
    for named in ("benchmarks/pretrain/ablation.yaml", "benchmarks/pretrain/phantoms.py"):
        assert named in PAGE
        assert (ROOT / named).is_file()


def test_the_escape_is_said_with_its_numbers():
    for page in (PAGE, FORMAT_PAGE):
        assert str(BELOW) in page
        assert f"{WINDOW} steps" in page


def test_the_format_names_all_numbers_and_its_version():
    assert f"# {FORMAT}, version {VERSION}\n" in FORMAT_PAGE
    assert all(f"`{name}`" in FORMAT_PAGE for name in METRICS)
