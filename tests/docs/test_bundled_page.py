"""The page on the bundled encoders: its counts are those of the list of pictures, its names those of the package."""

import re
from collections import Counter
from pathlib import Path

from patchatlas.cli.demo import Config
from patchatlas.encoders import bundled
from tools.bundled.packages import REFUSED
from tools.bundled.pictures import TABLE, read_table
from tools.bundled.textures import FAMILIES

PAGE = (Path(__file__).parents[2] / "docs" / "bundled-encoder.md").read_text(encoding="utf-8")


def test_the_counts_are_those_of_the_list() -> None:
    rows = read_table(TABLE)
    told = re.findall(r"^\| `([\w.-]+)` (\S+) \((?:Debian|PyPI)\) \| (\d+) \| (\d+) \|", PAGE, flags=re.M)
    listed = Counter((row.package, row.version) for row in rows)
    used = Counter((row.package, row.version) for row in rows if row.used == "yes")
    assert {(name, version): (int(a), int(b)) for name, version, a, b in told} == {
        package: (count, used[package]) for package, count in listed.items()
    }
    doubted = sum(row.used == "no" and "no such dedication" in row.reason for row in rows)
    assert f"{doubted} pictures are said to be in the public domain" in PAGE


def test_every_refused_package_is_named() -> None:
    assert all(f"`{one.name}`" in PAGE for one in REFUSED)


def test_every_encoder_and_texture_family_is_named() -> None:
    assert all(f"| `bundled:{name}` |" in PAGE for name in bundled.names())
    assert all(name in PAGE for name in FAMILIES if name != "leaves")
    assert "dead leaves" in PAGE


def test_the_default_of_the_demo_is_told() -> None:
    default = Config.model_fields["encoder"].default
    assert f"**The default of `patchatlas demo` is `{default}`**" in PAGE
