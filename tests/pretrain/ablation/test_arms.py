"""Arms: each part changes what it says and nothing else, parts join, and what makes no sense is refused."""

from pathlib import Path

import pytest
import yaml

from patchatlas.errors import UsageError
from patchatlas.pretrain.ablation.arms import (
    PARTS,
    PLAIN,
    SOLUTIONS,
    STANDARD,
    UNIFORM,
    arm_config,
    changes_of,
    described,
    parts_of,
)
from patchatlas.pretrain.config import differences, read_config
from tests.pretrain.ablation.volumes import tiny_config
from tests.pretrain.tiny import photo_config

BASE = tiny_config(
    "cache",
    crops={"globals": {"size": 16, "min_foreground_ratio": 0.7, "min_overlap": 0.6}},
    loss={"match": {"weight": 0.5}, "distil": {"weight": 0.5, "encoder": "another"}},
)
HARNESS = Path(__file__).parents[3] / "benchmarks" / "pretrain" / "ablation.yaml"


def test_uniform_has_none_of_the_solutions_whatever_the_config_has():
    crops = arm_config(BASE, UNIFORM, seed=0).crops
    assert (crops.globals.min_foreground_ratio, crops.locals.min_foreground_ratio) == (0, 0)
    assert (crops.globals.min_overlap, crops.locals.inside) == (0, "volume")
    assert crops.globals.size == BASE.crops.globals.size


@pytest.mark.parametrize("part", PARTS)
def test_a_part_changes_all_that_it_names_and_nothing_else(part):
    told = differences(arm_config(BASE, UNIFORM, seed=0), arm_config(BASE, part, seed=0))
    named = set(PARTS[part][1])
    changed = {one.partition(":")[0] for one in told}
    groups = {name.rpartition(".")[0] for name in changed}
    assert all(name in changed or name in groups for name in named)
    assert all(any(name.startswith(one) for one in named) for name in changed)


def test_the_defaults_of_crops_are_the_solutions_that_are_shipped():
    plain = tiny_config("cache")
    shipped = arm_config(plain, "S1+S2+overlap", seed=0)
    assert differences(plain, shipped) == []


def test_parts_join_and_are_left_out():
    assert parts_of("uniform") == ()
    assert parts_of("S1+S2+overlap") == ("S1", "S2", "overlap")
    assert parts_of("all") == SOLUTIONS
    assert parts_of("all-S3") == ("S1", "S2", "S4", "S5", "S6", "overlap")
    assert parts_of("all+no-koleo") == (*SOLUTIONS, "no-koleo")
    assert changes_of("S2+overlap") == {
        **PLAIN,
        "crops.locals.inside": "global",
        "crops.globals.min_overlap": 0.3,
    }


def test_every_standard_arm_is_a_config_of_its_own():
    configs = [arm_config(BASE, arm, seed=0) for arm in STANDARD]
    for number, one in enumerate(configs):
        assert all(differences(one, other) for other in configs[:number]), STANDARD[number]


def test_sigreg_alone_is_alone():
    loss = arm_config(BASE, "sigreg", seed=0).loss
    weights = {name: term["weight"] for name, term in loss.model_dump().items() if "weight" in term}
    assert {name for name, weight in weights.items() if weight} == {"sigreg"}


def test_the_seed_is_of_the_run_and_no_run_stops_early():
    stopping = tiny_config("cache", monitor={"on_collapse": "stop"})
    config = arm_config(stopping, "S1", seed=5)
    assert config.train.seed == 5
    assert config.monitor.on_collapse == "warn"


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ("S7", "no part 'S7'"),
        ("", "no part ''"),
        ("all-S7", "no part 'S7'"),
        ("all-origin", "no part 'origin'"),
        ("S1+S1", "twice"),
        ("all+S1", "twice"),
        ("S3+mean", "'pair' and 'mean'"),
        ("S5+prototype", "'foreground' and 'prototype'"),
    ],
)
def test_an_arm_that_makes_no_sense(arm, said):
    with pytest.raises(UsageError, match=said):
        arm_config(BASE, arm, seed=0)


def test_photographs_have_no_arms():
    with pytest.raises(UsageError, match="photographs"):
        arm_config(photo_config(Path("pictures")), UNIFORM, seed=0)


def test_a_config_that_an_arm_does_not_fit_is_named():
    large = tiny_config("cache", crops={"globals": {"size": 16}, "locals": {"size": 24, "inside": "volume"}})
    with pytest.raises(UsageError, match=r"the arm S2: .*does not fit"):
        arm_config(large, "S2", seed=0)


def test_all_parts_and_arms_are_described():
    text = described(["uniform", "S1"])
    assert all(f"  {part} " in text for part in PARTS)
    assert "crops.globals.min_overlap: 0.3" in text
    assert text.endswith("arms: uniform S1")


def test_the_harness_on_phantoms_is_a_config_that_all_arms_fit():
    base = read_config(HARNESS)
    assert yaml.safe_load(HARNESS.read_text(encoding="utf-8"))["train"]["steps"] == 600
    for arm in STANDARD:
        arm_config(base, arm, seed=0)
