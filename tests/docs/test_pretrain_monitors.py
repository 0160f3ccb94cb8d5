"""The table of monitors in the manual names every rule with its level, and states the limits that are set."""

import re
from pathlib import Path

from patchatlas.pretrain.monitors.config import Limits, MonitorConfig
from patchatlas.pretrain.monitors.verdict import RULES

PAGE = Path(__file__).parents[2] / "docs" / "pretrain-monitors.md"


def table() -> dict[str, tuple[str, str, str]]:
    """Level, limit and wait of each rule in the manual."""
    rows = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 5:
            for name in re.findall(r"`(\w+)`", cells[0]):
                rows[name] = (cells[1], cells[3], cells[4])
    return rows


def test_every_rule_is_in_the_table_with_its_level() -> None:
    stated = {name: level for name, (level, _, _) in table().items()}
    assert stated == {rule.name: rule.level for rule in RULES} | {"not_finite": "collapse"}


def test_the_table_states_when_rules_speak() -> None:
    config = MonitorConfig()
    for rule in RULES:
        said = table()[rule.name][2]
        if rule.wait == "steps":
            assert said == f"{config.patience} steps"
        elif rule.wait == "looks":
            assert said.endswith(f"{config.looks} looks")
        else:
            assert said in ("the same step", "the first step", "the first look")


def test_the_table_states_the_limits() -> None:
    limits = Limits()
    stated = {
        "koleo": limits.koleo,
        "uniform": limits.row_entropy,
        "mode": limits.marginal_entropy,
        "complete_fg": limits.feature_std,
        "dimensional": limits.rank,
        "air": limits.background_share,
        "falling_rank": limits.rank_of_best,
        "lidar": limits.lidar,
        "uniformity": limits.uniformity,
    }
    for name, limit in stated.items():
        assert f"{limit:g}" in table()[name][1], name
