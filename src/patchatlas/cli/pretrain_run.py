"""Pretrain an encoder by the settings in CONFIG, a YAML file; go on where a run in the same folder was left.

Under torchrun, several processes train together: torchrun --nproc-per-node 8 -m patchatlas.cli pretrain run CONFIG.
Exit code 3 if some photographs could not be used, 4 if the run was stopped on a collapse.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from patchatlas.cli.console import Output, emit, progress

if TYPE_CHECKING:
    from patchatlas.pretrain.trainer import Outcome


class Config(Output):
    """What `patchatlas pretrain run` is asked to do."""

    config: tyro.conf.Positional[Path]
    """YAML file of settings; what it leaves out keeps its default."""
    overrides: Annotated[tuple[str, ...], tyro.conf.arg(name="set"), tyro.conf.UseAppendAction] = ()
    """One setting in place of the file's, as in train.steps=1000; may be given several times."""
    output: Path | None = None
    """Folder of the run; CONFIG without its suffix if not given. A run that is there goes on."""


def run(config: Config) -> int:
    """Train, and print how it ended.

    Raises:
        UsageError: settings that are not known or do not fit the folder, the data or the machine.
        InputError: a config or data that is not there.
        WeightsError: weights to begin from that cannot be had.
    """
    from patchatlas.cli.main import BAD_INPUT, OK, SKIPPED
    from patchatlas.pretrain.config import read_config
    from patchatlas.pretrain.trainer import train

    settings = read_config(config.config, config.overrides)
    folder = config.output or config.config.with_suffix("")
    with progress() as bar:
        task = bar.add_task("pretraining", total=settings.train.steps)

        def show(done: int, numbers: dict[str, float], level: str) -> None:
            bar.update(task, completed=done, description=f"loss {numbers['loss']:.3f}, {level}")

        outcome = train(settings, folder, on_step=show)
    if outcome.first:
        emit(config, human=describe(outcome), data=to_json(outcome))
    if outcome.stopped:
        return BAD_INPUT
    return SKIPPED if outcome.skipped else OK


def describe(outcome: "Outcome") -> str:
    """How a run ended, in lines for people."""
    end = "stopped" if outcome.stopped else "done"
    lines = [f"{end} after {outcome.done} steps: {outcome.folder}", outcome.sentence]
    if outcome.encoder is None:
        lines.append("no encoder: there was no checkpoint without a collapse")
    else:
        lines.append(f"encoder after {outcome.good} steps: {outcome.encoder}")
    lines += [f"skipped {name}: {why}" for name, why in outcome.skipped]
    return "\n".join(lines)


def to_json(outcome: "Outcome") -> dict[str, object]:
    """How a run ended, for scripts."""
    return {
        "folder": str(outcome.folder),
        "done": outcome.done,
        "stopped": outcome.stopped,
        "level": outcome.level,
        "verdict": outcome.sentence,
        "good": outcome.good,
        "encoder": None if outcome.encoder is None else str(outcome.encoder),
        "skipped": [{"name": name, "why": why} for name, why in outcome.skipped],
    }
