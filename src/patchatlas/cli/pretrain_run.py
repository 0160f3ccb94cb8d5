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

    config: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CONFIG")]
    """YAML file of settings; what it leaves out keeps its default."""
    overrides: Annotated[
        tuple[str, ...], tyro.conf.arg(name="set", metavar="KEY=VALUE"), tyro.conf.UseAppendAction
    ] = ()
    """One setting in place of the file's, as in train.steps=1000; may be given several times."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of the run; CONFIG without its suffix if not given. A run that is there goes on."""
    from_good: bool = False
    """Go back to the last good checkpoint: states, encoders and log lines after it are dropped. What verdicts advise to
    change may be changed then by --set: optim, masks, loss.koleo, loss.sinkhorn, loss.foreground, crops.augment, and of
    the crops min_foreground_ratio, foreground_crop_prob and min_overlap."""


def run(config: Config) -> int:
    """Train, and print how it ended.

    Raises:
        UsageError: settings that are not known or do not fit the folder, the data or the machine; a folder in which
            another process trains; a run that stopped on a collapse, without --from-good.
        InputError: a config or data that is not there.
        WeightsError: weights to begin from that cannot be had.
        ResourceError: the disk is full, or the folder may not be written.
    """
    from patchatlas.cli.main import BAD_INPUT, OK, SKIPPED
    from patchatlas.pretrain.config import read_config
    from patchatlas.pretrain.trainer import train

    settings = read_config(config.config, config.overrides)
    folder = config.output or config.config.with_suffix("")
    reached = 0
    with progress() as bar:
        task = bar.add_task("pretraining", total=settings.train.steps)

        def show(done: int, numbers: dict[str, float], level: str) -> None:
            nonlocal reached
            reached = done
            bar.update(task, completed=done, description=f"loss {numbers['loss']:.3f}, {level}")

        try:
            outcome = train(settings, folder, from_good=config.from_good, on_step=show)
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(interrupted(folder, reached, from_good=config.from_good)) from stop
    if outcome.first:
        emit(config, human=describe(outcome), data=to_json(outcome))
    if outcome.stopped:
        return BAD_INPUT
    return SKIPPED if outcome.skipped else OK


def interrupted(folder: Path, reached: int, *, from_good: bool) -> str:
    """What a run leaves that was interrupted: how far it was, and from where it goes on."""
    from patchatlas.pretrain import checkpoint
    from patchatlas.pretrain.run_folder import RunFolder

    states = RunFolder(folder).states
    kept = checkpoint.steps(states) if states.is_dir() else []
    at = f"after {reached} steps; " if reached else ""
    if not kept:
        return f"{at}{folder} has no checkpoint yet, the same command begins anew"
    command = "the same command"
    if from_good and reached:  # it has gone back; to do so again would drop what it did since
        command += " without --from-good"
    return f"{at}the checkpoint after {kept[-1]} steps is kept in {folder}, {command} goes on from there"


def describe(outcome: "Outcome") -> str:
    """How a run ended, in lines for people."""
    from patchatlas.pretrain.run_folder import WAY_BACK

    end = "stopped" if outcome.stopped else "done"
    before = f", {outcome.began} of them before" if outcome.began else ""
    lines = [f"{end} after {outcome.done} steps{before}: {outcome.folder}", outcome.sentence]
    if outcome.began == outcome.done:
        lines[0] = f"nothing was left to do, the run had its {outcome.done} steps before: {outcome.folder}"
    if outcome.encoder is None:
        lines.append(
            "no encoder: a rule of collapse was alarmed at every checkpoint; the teachers of all lie in "
            f"{outcome.folder / 'teachers'}"
        )
    else:
        later = "" if outcome.good == outcome.done else ", the last without a rule of collapse that was alarmed"
        lines.append(f"encoder after {outcome.good} steps{later}: {outcome.encoder}")
    if outcome.stopped and outcome.good is None:
        lines.append("there is no good checkpoint to go back to: change what the verdict advises, in another folder")
    elif outcome.stopped:
        lines.append(f"to go on: {WAY_BACK}")
    lines += [f"skipped {name}: {why}" for name, why in outcome.skipped]
    return "\n".join(lines)


def to_json(outcome: "Outcome") -> dict[str, object]:
    """How a run ended, for scripts."""
    return {
        "folder": str(outcome.folder),
        "began": outcome.began,
        "done": outcome.done,
        "stopped": outcome.stopped,
        "level": outcome.level,
        "verdict": outcome.sentence,
        "good": outcome.good,
        "encoder": None if outcome.encoder is None else str(outcome.encoder),
        "skipped": [{"name": name, "why": why} for name, why in outcome.skipped],
    }
