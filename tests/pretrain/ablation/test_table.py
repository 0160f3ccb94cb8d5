"""The table: intervals by hand, what clears uniform and what does not, runs that never escape, and both files."""

import json

import pytest

from patchatlas.pretrain.ablation.results import METRICS, Result
from patchatlas.pretrain.ablation.table import Interval, Table
from tests.pretrain.ablation.volumes import tiny_config

BASE = tiny_config("cache")


def runs(arm: str, *, kind: str = "arm", **numbers: tuple[float | None, ...]) -> list[Result]:
    """One run a seed; `None` leaves a number out."""
    seeds = len(next(iter(numbers.values())))
    return [
        Result(
            arm,
            kind,
            seed,
            {name: values[seed] for name, values in numbers.items() if values[seed] is not None},
            steps=600 if kind == "arm" else 0,
            level="ok" if kind == "arm" else "",
            worst="ok" if kind == "arm" else "",
        )
        for seed in range(seeds)
    ]


def table(*groups: list[Result]) -> Table:
    return Table.of(BASE, [result for group in groups for result in group], volumes=20, held=8)


def row(found: Table, name: str):
    return next(row for row in found.rows if row.name == name)


def test_an_interval_by_hand():
    # Two values: t of 1 degree of freedom is 12.706; standard error of 1 and 3 is 1.
    two = Interval.of([1.0, 3.0])
    assert (two.mean, two.n) == (2, 2)
    assert two.high - two.mean == pytest.approx(12.706, abs=1e-3)
    # Three values 1, 2, 3: t of 2 is 4.303, standard error 1 / sqrt(3).
    three = Interval.of([1.0, 2.0, 3.0])
    assert three.mean - three.low == pytest.approx(4.303 / 3**0.5, abs=1e-3)
    assert Interval.of([5.0]) == Interval(5.0, None, None, 1)


def test_an_arm_clears_uniform_by_its_differences_seed_by_seed():
    uniform = runs("uniform", knn=(0.40, 0.50, 0.60), linear=(0.7, 0.7, 0.7))
    better = runs("S1", knn=(0.45, 0.55, 0.66), linear=(0.8, 0.6, 0.72))
    worse = runs("S2", knn=(0.35, 0.45, 0.55), linear=(0.7, 0.7, 0.7))
    found = table(uniform, better, worse)
    assert row(found, "S1").clears == ("knn",)  # seeds differ by 0.1, arms by 0.05 in each of them
    assert row(found, "S1").differences["knn"].mean == pytest.approx(0.16 / 3)
    assert row(found, "S2").clears == ()
    assert row(found, "uniform").differences == {}


def test_a_lower_number_of_steps_is_better_and_never_counts_as_all_of_them():
    never = (1.0, 1.0)
    uniform = runs("uniform", row_entropy=never, escape=(None, None))
    early = runs("S2+overlap", row_entropy=(0.9, 0.9), escape=(300.0, 302.0))
    late = runs("overlap", row_entropy=(0.9, 1.0), escape=(590.0, None))
    found = table(uniform, early, late)
    assert row(found, "S2+overlap").clears == ("escape",)
    assert row(found, "S2+overlap").differences["escape"].mean == -299
    assert row(found, "overlap").clears == ()
    text = found.to_markdown()
    assert "| never |" in next(line for line in text.splitlines() if line.startswith("| uniform"))
    assert "595, 1 of 2" in text
    assert "301 ± 13" in text
    assert "| S2+overlap | 2 |" in text
    assert "steps to < 0.95 |" in next(line for line in text.splitlines() if line.startswith("| S2+overlap"))


def test_rows_are_apart_when_their_intervals_do_not_meet_on_both_probes():
    uniform = runs("uniform", knn=(0.40, 0.41, 0.42), linear=(0.60, 0.61, 0.62))
    every = runs("all", knn=(0.50, 0.51, 0.52), linear=(0.70, 0.71, 0.72))
    half = runs("S1", knn=(0.50, 0.51, 0.52), linear=(0.60, 0.61, 0.62))
    near = runs("S2", knn=(0.43, 0.44, 0.45), linear=(0.63, 0.64, 0.65))  # differences clear, intervals meet
    raw = runs("raw mean and std", kind="raw", knn=(0.36,), linear=(0.47,))
    found = table(raw, uniform, every, half, near)
    assert row(found, "all").apart == ("uniform", "S2", "raw mean and std")
    assert row(found, "S1").apart == ("raw mean and std",)
    assert row(found, "S2").clears == ("knn", "linear")
    assert "uniform" not in row(found, "S2").apart
    assert [one.name for one in found.rows][-1] == "raw mean and std"
    assert "`all` is apart from uniform, S2, raw mean and std on both probes." in found.to_markdown()


def test_one_seed_has_no_interval_and_clears_nothing():
    found = table(runs("uniform", knn=(0.4,)), runs("S1", knn=(0.9,)))
    assert row(found, "S1").clears == ()
    assert row(found, "S1").apart == ()
    many = table(runs("uniform", knn=(0.1,), linear=(0.1,)), runs("S1", knn=(0.9, 0.9), linear=(0.9, 0.9)))
    assert row(many, "S1").apart == ()
    assert "| S1 | 1 | 0.900 |" in found.to_markdown()


def test_a_number_just_below_zero_has_no_sign():
    assert "| 0.00 |" in table(runs("S1", foreground_r2=(-0.001,))).to_markdown()


def test_without_uniform_nothing_is_cleared():
    assert table(runs("S1", knn=(0.4, 0.5))).rows[0].clears == ()


def test_verdicts_are_counted_with_their_reasons():
    first, second, third = runs("uniform", knn=(0.4, 0.4, 0.4))
    bad = Result("uniform", "arm", 1, second.numbers, level="collapse", alarms=("uniform", "lidar"), worst="collapse")
    mended = Result("uniform", "arm", 2, third.numbers, level="ok", worst="collapse")
    text = table([first, bad, mended]).to_markdown()
    assert "1: ok; 1: collapse (uniform, lidar); 1: ok, collapse before" in text


def test_both_files(tmp_path):
    found = table(runs("uniform", knn=(0.4, 0.5)), runs("S1", knn=(0.6, 0.6)), runs("raw", kind="raw", knn=(0.3,)))
    found.write(tmp_path)
    stored = json.loads((tmp_path / "ablation.json").read_text())
    assert (stored["format"], stored["version"]) == ("patchatlas.ablation", 1)
    assert [row["name"] for row in stored["rows"]] == ["uniform", "S1", "raw"]
    first = stored["rows"][1]
    assert first["changes"]["crops.globals.min_foreground_ratio"] == 0.5
    assert first["intervals"]["knn"]["mean"] == pytest.approx(0.6)
    assert [result["seed"] for result in first["results"]] == [0, 1]
    assert stored["rows"][2]["changes"] == {}
    assert stored["config"]["train"]["steps"] == 2
    assert (stored["volumes"], stored["held"]) == (20, 8)
    assert (tmp_path / "ablation.md").read_text() == found.to_markdown()


def test_a_run_that_was_not_judged_is_not_called_ok():
    short = Result("uniform", "arm", 0, {"knn": 0.4}, steps=60, level="ok", worst="ok", judged_from=200)
    text = table([short]).to_markdown()
    assert "| not judged before step 200 |" in text
    assert "| ok |" not in text


def test_numbers_that_are_missing_are_explained():
    text = table(runs("uniform", knn=(0.4, 0.5))).to_markdown()
    assert "A `-` is a number that could not be taken" in text
    whole = {name: (0.5, 0.5) for name in METRICS}
    assert "A `-` is" not in table(runs("S1", **whole)).to_markdown()


def test_arms_that_random_weights_beat_are_named():
    random = runs("random weights", kind="random", knn=(0.995, 0.99), linear=(0.9, 0.9))
    raw = runs("raw histogram", kind="raw", knn=(0.5,), linear=(0.95,))
    worse = runs("S1", knn=(0.974, 0.97), linear=(0.97, 0.98))
    better = runs("S2", knn=(0.999, 0.998), linear=(0.96, 0.97))
    text = table(random, raw, worse, better).to_markdown()
    assert "`S1` is not above random weights in kNN: these features are no better than what it began from." in text
    assert "`S2` is not" not in text
    below_raw = table(raw, runs("S1", knn=(0.9, 0.9), linear=(0.9, 0.9))).to_markdown()
    assert "`S1` is not above raw histogram in linear: no network is needed for as much." in below_raw
