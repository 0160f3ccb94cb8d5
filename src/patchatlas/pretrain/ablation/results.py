"""What one run of an ablation came to: numbers of its log and of the probe, its verdicts, and the file that holds them.

All numbers go by the names of METRICS. One that a run has none of, such as the entropy of targets without a teacher,
or the step of an escape that never came, is absent.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from patchatlas.errors import FormatError
from patchatlas.files import write_text
from patchatlas.pretrain.probe import Scores

BELOW = 0.95
"""Entropy of the teacher's targets over ln K under which class tokens have left the uniform target."""

WINDOW = 25
"""Steps over which that entropy is averaged: that of one batch varies."""

Kind = Literal["arm", "random", "raw"]
Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True)
class Metric:
    """A column of the table."""

    caption: str
    better: Better
    digits: int


METRICS: dict[str, Metric] = {
    "knn": Metric("kNN", "higher", 3),
    "linear": Metric("linear", "higher", 3),
    "row_entropy": Metric("row entropy / ln K", "lower", 3),
    "escape": Metric(f"steps to < {BELOW}", "lower", 0),
    "foreground_r2": Metric("fg-R2", "neither", 2),
    "background_share": Metric("air share", "neither", 2),
    "rank": Metric("RankMe / D", "higher", 2),
    "cosine": Metric("patch cosine", "lower", 2),
}
"""Numbers of a run by name, in the order of the table."""


@dataclass(frozen=True)
class Result:
    """One run, or one baseline.

    Attributes:
        arm: its name.
        kind: a run of an arm, random weights, or raw intensities.
        seed: of everything random.
        steps: done.
        level: verdict at the end; empty for a baseline.
        alarms: rules that spoke at the end, the most serious first.
        worst: the worst verdict of any step.
        judged_from: step before which the verdict at the end was not due, if the run ended before it; else 0.
        numbers: by the names of METRICS.
        seconds: of training.
    """

    arm: str
    kind: Kind
    seed: int
    numbers: Mapping[str, float]
    steps: int = 0
    level: str = ""
    alarms: tuple[str, ...] = ()
    worst: str = ""
    judged_from: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain text, numbers and lists."""
        return {**asdict(self), "numbers": dict(self.numbers), "alarms": list(self.alarms)}


def read_result(path: Path, *, key: str) -> Result | None:
    """The result of a run that was finished with the same settings and probe; `None` if there is none.

    Raises:
        FormatError: the file is damaged.
    """
    try:
        stored = json.loads(path.read_bytes())
        if stored["key"] != key:
            return None
        return Result(**{**stored["result"], "alarms": tuple(stored["result"]["alarms"])})
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path} is damaged ({error!r}); delete it, and the run is scored again") from error


def write_result(path: Path, result: Result, *, key: str) -> None:
    """Write a result with the key of what it was made with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"key": key, "result": result.to_json()}, indent=2) + "\n")


def probe_numbers(scores: Scores) -> dict[str, float]:
    """What the probe says, by the names of METRICS."""
    numbers = {
        "knn": scores.knn,
        "linear": scores.linear,
        "foreground_r2": scores.foreground_r2,
        "background_share": scores.background_share,
    }
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def summed_up(records: Iterable[Mapping[str, Any]], *, samples: int) -> dict[str, Any]:
    """Numbers of METRICS, verdicts and seconds of a run, as fields of its Result.

    Args:
        records: of its log, oldest first.
        samples: of a step.
    """
    entropies: list[float] = []
    numbers: dict[str, float] = {}
    last: Mapping[str, Any] = {"level": "ok", "alarms": []}
    levels = ("ok", "warn", "collapse")
    worst = 0
    seconds = 0.0
    for record in records:
        seen = record["numbers"]
        if "row_entropy" in seen:
            entropies.append(seen["row_entropy"])
        for name, logged in (("rank", "fg_rank"), ("cosine", "fg_cosine")):
            if logged in seen:
                numbers[name] = seen[logged]
        last = record.get("verdict", last)
        worst = max(worst, levels.index(last["level"]))
        seconds += samples / seen["samples_a_second"]
    if entropies:
        numbers["row_entropy"] = sum(entropies[-WINDOW:]) / len(entropies[-WINDOW:])
        escape = escape_step(entropies)
        if escape is not None:
            numbers["escape"] = float(escape)
    return {
        "numbers": {name: value for name, value in numbers.items() if math.isfinite(value)},
        "level": last["level"],
        "alarms": tuple(alarm["rule"] for alarm in last["alarms"]),
        "worst": levels[worst],
        "judged_from": last.get("judged_from", 0),
        "seconds": seconds,
    }


def escape_step(entropies: Sequence[float], *, below: float = BELOW, window: int = WINDOW) -> int | None:
    """The step from which on the mean entropy of the last `window` steps stays below; `None` if it does not at the end.

    A run that begins below and rises again has escaped only once it is below for good.
    """
    means = []
    for step in range(len(entropies)):
        recent = entropies[max(0, step + 1 - window) : step + 1]
        means.append(sum(recent) / len(recent))
    above = [step for step, mean in enumerate(means) if not mean < below]
    first = above[-1] + 1 if above else 0
    return first if first < len(means) else None
