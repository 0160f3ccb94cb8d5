"""Numbers of a run: when class tokens left the uniform target, what a log comes to, and the file of a result."""

import math

import pytest

from patchatlas.errors import FormatError
from patchatlas.pretrain.ablation.results import (
    Result,
    escape_step,
    probe_numbers,
    read_result,
    summed_up,
    write_result,
)
from patchatlas.pretrain.probe import Scores


@pytest.mark.parametrize(
    ("entropies", "window", "step"),
    [
        ([1.0, 1.0, 0.9, 0.9], 1, 2),
        ([1.0, 1.0, 0.9, 0.9], 2, 3),  # the mean of 1.0 and 0.9 is not below 0.95
        ([0.9, 0.9], 1, 0),
        ([0.5, 1.0, 0.9, 1.0, 0.9], 1, 4),  # only once it is below for good
        ([0.5, 1.0], 1, None),
        ([1.0], 25, None),
        ([], 25, None),
        ([0.9, math.nan], 1, None),
    ],
)
def test_the_step_of_escape(entropies, window, step):
    assert escape_step(entropies, window=window) == step


def record(step: int, level: str = "ok", rules: tuple[str, ...] = (), **numbers: float) -> dict:
    alarms = [{"rule": rule} for rule in rules]
    return {
        "step": step,
        "numbers": {"samples_a_second": 8.0, **numbers},
        "verdict": {"level": level, "alarms": alarms},
    }


def test_what_a_log_comes_to():
    log = [record(0, row_entropy=1.0), record(1, "collapse", ("uniform",), row_entropy=1.0, fg_rank=0.5, fg_cosine=0.1)]
    log += [record(step, row_entropy=0.5) for step in range(2, 40)]
    log += [record(40, "warn", ("lidar",), row_entropy=0.5, fg_rank=0.4, fg_cosine=0.2)]
    told = summed_up(log, samples=4)
    assert told["numbers"] == {"row_entropy": 0.5, "escape": 2, "rank": 0.4, "cosine": 0.2}  # (1 + 1 + 0.5) / 3 < 0.95
    assert (told["level"], told["alarms"], told["worst"]) == ("warn", ("lidar",), "collapse")
    assert told["seconds"] == pytest.approx(41 * 4 / 8)


def test_a_run_that_ended_before_it_was_judged_says_so():
    young = record(0)
    young["verdict"]["judged_from"] = 200
    assert summed_up([young], samples=4)["judged_from"] == 200
    assert summed_up([young, record(200)], samples=4)["judged_from"] == 0


def test_a_run_without_a_teacher_has_no_entropy():
    assert summed_up([record(0), record(1, fg_rank=math.nan)], samples=4)["numbers"] == {}


def test_what_the_probe_cannot_tell_is_absent():
    scores = Scores(0.5, 0.6, {}, {}, foreground_r2=math.nan, background_share=0.3)
    assert probe_numbers(scores) == {"knn": 0.5, "linear": 0.6, "background_share": 0.3}


def test_a_result_is_read_back_only_under_its_key(tmp_path):
    result = Result("S1", "arm", 2, {"knn": 0.5}, steps=9, level="warn", alarms=("lidar",), worst="warn", seconds=1.5)
    path = tmp_path / "S1" / "seed-2.json"
    assert read_result(path, key="a") is None
    write_result(path, result, key="a")
    assert read_result(path, key="a") == result
    assert read_result(path, key="b") is None
    path.write_text("{}")
    with pytest.raises(FormatError, match="delete it"):
        read_result(path, key="a")
