"""What the monitors say of runs that are over: their logs are judged again, by the limits of today.

    python -m benchmarks.pretrain.alarms RUN ... --patience 100

prints a row of Markdown for each folder of a run: the last numbers, and each rule that spoke with its first step. Give
runs that are known to be sound, and ones into which a fault was planted, to see whether the limits tell them apart.
What a log holds is taken as it is: `fg_rank_of_best` counts from the `from_step` that the run had.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from patchatlas.pretrain.monitors.config import MonitorConfig
from patchatlas.pretrain.monitors.log import read_log
from patchatlas.pretrain.monitors.probes import left_open
from patchatlas.pretrain.monitors.verdict import Judge
from patchatlas.pretrain.run_folder import RunFolder
from patchatlas.pretrain.watch import YOUNG

SHOWN = ("row_entropy", "kl", "fg_rank", "fg_alpha", "cls_cosine", "cls_lidar", "foreground_r2", "background_share")


@dataclass(frozen=True)
class Judged:
    """What is said of a run.

    Attributes:
        steps: of its log.
        spoke: by rule, the first step on which it spoke.
        last: the last value of each number.
    """

    steps: int
    spoke: dict[str, int]
    last: dict[str, float]


def judged(log: Path, config: MonitorConfig, *, from_step: int) -> Judged:
    """Judge the numbers of a log again.

    Args:
        log: of a run.
        config: limits, patience and looks.
        from_step: step to judge from.
    """
    judge = Judge(config, from_step=from_step)
    spoke: dict[str, int] = {}
    last: dict[str, float] = {}
    steps = 0
    first_r2: float | None = None
    for line in read_log(log):
        step, numbers = line["step"], {name: float(value) for name, value in line["numbers"].items()}
        if "foreground_r2" in numbers:
            first_r2 = numbers["foreground_r2"] if first_r2 is None else first_r2
            numbers["foreground_r2_left"] = left_open(numbers["foreground_r2"], first_r2)
        for alarm in judge.judge(step, numbers, looked="fg_std" in numbers).alarms:
            spoke.setdefault(f"{alarm.rule} ({alarm.level})", step)
        last |= numbers
        steps = step + 1
    return Judged(steps, spoke, last)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--from-step", type=int, default=YOUNG, help="step to judge from")
    parser.add_argument("--patience", type=int, default=MonitorConfig().patience, help="steps a rule waits for")
    options = parser.parse_args()
    config = MonitorConfig(patience=options.patience)
    print(f"| run | steps | {' | '.join(SHOWN)} | speaks from step |")
    print("| --- " * (len(SHOWN) + 3) + "|")
    for run in options.runs:
        found = judged(RunFolder(run).log, config, from_step=options.from_step)
        values = " | ".join(f"{found.last[name]:.3f}" if name in found.last else "" for name in SHOWN)
        spoke = ", ".join(f"{rule} {step}" for rule, step in found.spoke.items()) or "none"
        print(f"| {'/'.join(run.parts[-2:])} | {found.steps} | {values} | {spoke} |")


if __name__ == "__main__":
    main()
