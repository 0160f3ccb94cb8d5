"""The page on encoders: its table is the catalogue, and it names every check that there is."""

import re
from pathlib import Path

from patchatlas.encoders.catalogue import CATALOGUE
from patchatlas.encoders.verification.verify import verify

PAGE = (Path(__file__).parents[2] / "docs" / "encoders.md").read_text(encoding="utf-8")
WEIGHTS = Path(__file__).parents[1] / "golden" / "dino" / "dinov3_mlp_d128h2.weights.safetensors"


def test_the_table_is_the_catalogue() -> None:
    rows = {cells[0].strip("`"): cells for cells in table_with("where to get it")}
    assert list(rows) == list(CATALOGUE)
    for name, entry in CATALOGUE.items():
        _, dim, patch, registers, size, licence, where = rows[name]
        assert (int(dim), int(registers), licence) == (entry.dim, entry.registers, entry.licence)
        assert patch == "x".join(str(side) for side in entry.patch)
        number, unit = size.split()
        assert abs(float(number) * {"MB": 1e6, "GB": 1e9}[unit] / entry.size_bytes - 1) < 0.05
        ids = [one for one in (entry.timm_id, entry.hf_id) if one] or [entry.meta_file]
        assert re.findall("`(.+?)`", where) == ids
        assert ("(gated)" in where) == entry.gated


def test_every_check_is_told() -> None:
    told = {name for cells in table_with("what is verified") for name in re.findall(r"`(\w+)`", cells[0])}
    assert {check.name for check in verify(WEIGHTS, forward=False).checks} | {"index"} == told


def table_with(heading: str) -> list[list[str]]:
    """Cells of the rows of the table that has this heading."""
    (table,) = (block for block in re.findall(r"(?:^\|.*\n)+", PAGE, flags=re.M) if heading in block.splitlines()[0])
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
