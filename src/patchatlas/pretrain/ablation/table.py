"""The table of an ablation: means with 95 % t-intervals over seeds, and which arms clear `uniform`.

An arm clears `uniform` on a number if the 95 % t-interval of its difference, seed by seed, lies on the better side of
0: runs of one seed begin with the same weights and see the volumes in the same order. Two rows are apart if their own
intervals do not meet, which asks for more.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scipy import stats

from patchatlas import __version__
from patchatlas.files import write_text
from patchatlas.pretrain.ablation.arms import UNIFORM, changes_of
from patchatlas.pretrain.ablation.results import METRICS, Result
from patchatlas.pretrain.config import PretrainConfig
from patchatlas.pretrain.monitors.verdict import in_words

FORMAT = "patchatlas.ablation"
VERSION = 1

CLEARED = ("knn", "linear", "escape")
"""Numbers on which an arm is compared with `uniform`: the probe, or the time to a target that says something."""

PROBES = ("knn", "linear")
"""Numbers on which an arm is compared with every other row."""


MISSING = (
    "A `-` is a number that could not be taken: fg-R2 needs twice as many crops as features, RankMe and patch cosine a "
    "look of the monitor (`monitor.spectra_every` steps) with twice as many tokens as features, and what is of a run a "
    "baseline has not."
)
"""What is said below a table in which a number is missing."""

_MEANS = {
    "random": "these features are no better than what it began from",
    "raw": "no network is needed for as much",
}
"""What it says of an arm that it is not above a baseline, by the baseline's kind."""


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and its 95 % t-interval; of one seed there is none, and `low` and `high` are `None`."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Interval":
        """That of some values, one a seed; at least one."""
        n = len(values)
        mean = math.fsum(values) / n
        if n < 2:
            return Interval(mean, None, None, n)
        variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
        half = float(stats.t.ppf(0.975, n - 1)) * math.sqrt(variance / n)
        return Interval(mean, mean - half, mean + half, n)


@dataclass(frozen=True, eq=False)
class Row:
    """All runs of an arm, or a baseline.

    Attributes:
        name: of the arm.
        results: one a seed.
        intervals: by the names of METRICS. A run that never escaped counts as one that did after its last step.
        differences: from `uniform`, of the numbers of CLEARED that both have for two seeds or more.
        clears: numbers on which it clears `uniform`.
        apart: other rows above whose intervals those of this one lie on both probes.
    """

    name: str
    results: tuple[Result, ...]
    intervals: Mapping[str, Interval]
    differences: Mapping[str, Interval]
    clears: tuple[str, ...]
    apart: tuple[str, ...]

    @property
    def kind(self) -> str:
        """arm, random or raw."""
        return self.results[0].kind

    def to_json(self) -> dict[str, Any]:
        """Plain text, numbers and lists."""
        return {
            "name": self.name,
            "kind": self.kind,
            "changes": changes_of(self.name) if self.kind == "arm" else {},
            "intervals": {name: asdict(one) for name, one in self.intervals.items()},
            "differences": {name: asdict(one) for name, one in self.differences.items()},
            "clears": list(self.clears),
            "apart": list(self.apart),
            "results": [result.to_json() for result in self.results],
        }


@dataclass(frozen=True, eq=False)
class Table:
    """All rows of an ablation, arms first, in the order in which they came.

    Attributes:
        base: what all arms have in common.
        rows: arms and baselines.
        volumes: that runs learn from.
        held: labelled volumes that they do not.
    """

    base: PretrainConfig
    rows: tuple[Row, ...]
    volumes: int
    held: int

    @classmethod
    def of(cls, base: PretrainConfig, results: Iterable[Result], *, volumes: int, held: int) -> "Table":
        """The table of some results."""
        by_name: dict[str, list[Result]] = {}
        for result in results:
            by_name.setdefault(result.arm, []).append(result)
        order = sorted(by_name, key=lambda name: by_name[name][0].kind != "arm")
        intervals = {name: _intervals(by_name[name]) for name in order}
        plain = by_name.get(UNIFORM, [])
        rows = []
        for name in order:
            differences = {} if name == UNIFORM else _differences(by_name[name], plain)
            rows.append(
                Row(
                    name=name,
                    results=tuple(by_name[name]),
                    intervals=intervals[name],
                    differences=differences,
                    clears=tuple(metric for metric, one in differences.items() if _better(metric, one)),
                    apart=tuple(
                        other
                        for other in order
                        if _apart(intervals[name], intervals[other], exact=by_name[other][0].kind == "raw")
                    ),
                )
            )
        return Table(base, tuple(rows), volumes, held)

    def to_json(self) -> dict[str, Any]:
        """The content of `ablation.json`."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "package": __version__,
            "config": self.base.model_dump(mode="json"),
            "volumes": self.volumes,
            "held": self.held,
            "rows": [row.to_json() for row in self.rows],
        }

    def to_markdown(self) -> str:
        """The table for people."""
        captions = [metric.caption for metric in METRICS.values()]
        lines = [
            "| " + " | ".join(["arm", "seeds", *captions, "verdict at the end", "clears uniform on"]) + " |",
            "| --- |" + " ---: |" * (1 + len(captions)) + " --- | --- |",
        ]
        for row in self.rows:
            cells = [_cell(row, name) for name in METRICS]
            cleared = ", ".join(METRICS[name].caption for name in row.clears)
            parts = [row.name, str(len(row.results)), *cells, _verdicts(row.results), cleared]
            lines.append("| " + " | ".join(part or "-" for part in parts) + " |")
        lines += ["", f"Means over seeds ± half the 95 % t-interval; {self.base.train.steps} steps a run."]
        if any(name not in row.intervals for row in self.rows for name in METRICS):
            lines.append(MISSING)
        lines += self._no_better()
        lines += [
            f"`{row.name}` is apart from {', '.join(row.apart)} on both probes." for row in self.rows if row.apart
        ]
        return "\n".join(lines) + "\n"

    def _no_better(self) -> list[str]:
        """A sentence for each arm and each baseline whose mean it does not come above on a probe."""
        lines = []
        for row in self.rows:
            for other in self.rows:
                if row.kind != "arm" or other.kind == "arm":
                    continue
                level = [
                    METRICS[name].caption
                    for name in PROBES
                    if name in row.intervals
                    and name in other.intervals
                    and row.intervals[name].mean <= other.intervals[name].mean
                ]
                if level:
                    lines.append(
                        f"`{row.name}` is not above {other.name} in {' and '.join(level)}: {_MEANS[other.kind]}."
                    )
        return lines

    def write(self, folder: Path) -> None:
        """Write `ablation.json` and `ablation.md`."""
        write_text(folder / "ablation.json", json.dumps(self.to_json(), indent=2, allow_nan=False) + "\n")
        write_text(folder / "ablation.md", self.to_markdown())


def _value(result: Result, metric: str) -> float | None:
    if metric == "escape" and "row_entropy" in result.numbers:
        return result.numbers.get("escape", float(result.steps))
    return result.numbers.get(metric)


def _intervals(results: Sequence[Result]) -> dict[str, Interval]:
    found = {}
    for metric in METRICS:
        values = [value for result in results if (value := _value(result, metric)) is not None]
        if values:
            found[metric] = Interval.of(values)
    return found


def _differences(results: Sequence[Result], plain: Sequence[Result]) -> dict[str, Interval]:
    by_seed = {result.seed: result for result in plain}
    found = {}
    for metric in CLEARED:
        apart = []
        for result in results:
            mine = _value(result, metric)
            other = _value(by_seed[result.seed], metric) if result.seed in by_seed else None
            if mine is not None and other is not None:
                apart.append(mine - other)
        if len(apart) > 1:
            found[metric] = Interval.of(apart)
    return found


def _better(metric: str, difference: Interval) -> bool:
    better = difference.low if METRICS[metric].better == "higher" else difference.high
    assert better is not None, "differences are of two seeds or more"
    return better > 0 if METRICS[metric].better == "higher" else better < 0


def _apart(mine: Mapping[str, Interval], others: Mapping[str, Interval], *, exact: bool) -> bool:
    """Whether the whole interval lies above the other's, on both probes; what is exact has its mean for an interval."""
    for metric in PROBES:
        if metric not in mine or metric not in others:
            return False
        low, high = mine[metric].low, others[metric].mean if exact else others[metric].high
        if low is None or high is None or not low > high:
            return False
    return True


def _cell(row: Row, metric: str) -> str:
    if metric not in row.intervals:
        return ""
    interval, digits = row.intervals[metric], METRICS[metric].digits
    text = f"{round(interval.mean, digits) + 0.0:.{digits}f}"  # no minus before a zero
    if metric == "escape":
        escaped = sum("escape" in result.numbers for result in row.results)
        if not escaped:
            return "never"
        if escaped < len(row.results):
            return f"{text}, {escaped} of {len(row.results)}"
    return text if interval.low is None else f"{text} ± {interval.mean - interval.low:.{digits}f}"


def _verdicts(results: Sequence[Result]) -> str:
    """How many runs ended in each verdict, and why."""
    counted: dict[str, int] = {}
    for result in results:
        if result.level:
            why = f" ({', '.join(result.alarms)})" if result.alarms else ""
            level = in_words(result.level, judged_from=result.judged_from)
            before = "" if result.worst == result.level else f", {result.worst} before"
            counted[f"{level}{why}{before}"] = counted.get(f"{level}{why}{before}", 0) + 1
    return "; ".join(text if len(counted) == 1 else f"{count}: {text}" for text, count in counted.items())
