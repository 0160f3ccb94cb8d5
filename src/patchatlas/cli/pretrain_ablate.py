"""Train CONFIG in several named ways, each with several seeds, and compare them in one table.

Every run is scored by the organs of held-out volumes that its frozen features tell apart, beside random weights and
raw intensities. Run it again to go on after a stop: what is finished is not done again.
"""

from pathlib import Path
from typing import Annotated

import tyro

from patchatlas.cli.console import Output, emit, progress


class Config(Output):
    """What `patchatlas pretrain ablate` is asked to do."""

    config: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="CONFIG")] = None
    """YAML file of settings, as for `pretrain run`: what all arms have in common."""
    labelled: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder with volumes/ and labels/ of the same file names, none of them in the cache."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of all runs and the table; one that is there is gone on in."""
    arms: Annotated[tuple[str, ...], tyro.conf.arg(metavar="ARM ...")] = ()
    """Arms, such as uniform, S1, S1+S2+overlap, all-S3; the standard list if not given."""
    seeds: Annotated[int, tyro.conf.arg(metavar="N")] = 3
    """Runs of each arm, seeds 0 to N - 1."""
    overrides: Annotated[
        tuple[str, ...], tyro.conf.arg(name="set", metavar="KEY=VALUE"), tyro.conf.UseAppendAction
    ] = ()
    """One setting in place of the file's, as in train.steps=1000; may be given several times."""
    list_arms: Annotated[bool, tyro.conf.arg(name="list")] = False
    """Say what the parts of arms are, and train nothing."""


def run(config: Config) -> int:
    """Do what is left of the ablation, and print its table.

    Raises:
        UsageError: options, arms or settings that do not fit.
        InputError: a config, cache or volumes that are not there.
    """
    from patchatlas.cli.main import OK
    from patchatlas.errors import UsageError
    from patchatlas.pretrain.ablation.arms import PARTS, STANDARD, changes_of, described

    arms = config.arms or STANDARD
    if config.list_arms:
        data = {"parts": {name: line for name, (line, _) in PARTS.items()}}
        emit(config, human=described(arms), data={**data, "arms": {arm: changes_of(arm) for arm in arms}})
        return OK
    if config.config is None or config.labelled is None or config.output is None:
        raise UsageError("give CONFIG, --labelled DIR and --output DIR; --list says what the arms are")
    from patchatlas.pretrain.ablation.run import Told, run_ablation
    from patchatlas.pretrain.config import read_config

    base = read_config(config.config, config.overrides)
    with progress() as bar:
        task = bar.add_task("ablation", total=None)

        def show(told: Told) -> None:
            bar.update(
                task,
                total=told.steps,
                completed=told.step,
                description=f"{told.finished} of {told.of} done; {told.arm}, seed {told.seed}",
            )

        try:
            table = run_ablation(
                base, arms, seeds=config.seeds, labelled=config.labelled, output=config.output, on_step=show
            )
        except KeyboardInterrupt as stop:
            kept = f"what is finished is kept in {config.output}, the same command goes on"
            raise KeyboardInterrupt(kept) from stop
    emit(config, human=table.to_markdown(), data=table.to_json())
    return OK
