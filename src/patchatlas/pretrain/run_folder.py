"""The folder of a run: what lies where, and whether a run may go on in it.

    config.yaml                      all settings, also those that nobody gave
    run.json                         format, version, package, fingerprint of the data, progress, verdict
    log.jsonl                        a line a step
    tensorboard/                     the same numbers
    states/step-NNNNNNNN.pt          the whole state after so many steps, the last few
    teachers/step-NNNNNNNN.safetensors   the encoder after so many steps, all of them
    encoder.safetensors              the encoder of the last good one

The format's page: docs/formats/pretrain-run-v1.md.
"""

import json
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchatlas import __version__
from patchatlas.errors import FormatError, InputError, UsageError
from patchatlas.files import LOCK, holds_others, lock_folder, write_text
from patchatlas.io.disk import disk_errors
from patchatlas.io.writers import is_leftover
from patchatlas.pretrain import checkpoint
from patchatlas.pretrain.config import FREE, FROM_GOOD, PretrainConfig, differences, read_config, to_yaml

FORMAT = "patchatlas.pretrain-run"
VERSION = 1

WAY_BACK = (
    "go back to the last good checkpoint with --from-good, with what the verdict advises changed by --set, or go on "
    "all the same with --set monitor.on_collapse=warn"
)
"""What to do about a run that stopped on a collapse."""

_TEACHER = re.compile(r"step-(\d{8})\.safetensors")


@dataclass(frozen=True)
class RunFolder:
    """Paths in the folder of a run."""

    path: Path

    @property
    def config(self) -> Path:
        """All settings."""
        return self.path / "config.yaml"

    @property
    def facts(self) -> Path:
        """What the run is and how far it is."""
        return self.path / "run.json"

    @property
    def log(self) -> Path:
        """A line a step."""
        return self.path / "log.jsonl"

    @property
    def tensorboard(self) -> Path:
        """The same numbers for TensorBoard."""
        return self.path / "tensorboard"

    @property
    def states(self) -> Path:
        """Whole states."""
        return self.path / "states"

    @property
    def encoder(self) -> Path:
        """The encoder of the last good checkpoint."""
        return self.path / "encoder.safetensors"

    def teacher(self, step: int) -> Path:
        """The encoder after so many steps."""
        return self.path / "teachers" / f"step-{step:08d}.safetensors"

    def teachers(self) -> dict[int, Path]:
        """All encoders, by the steps done, rising."""
        folder = self.path / "teachers"
        found = {int(m[1]): p for p in folder.iterdir() if (m := _TEACHER.fullmatch(p.name))} if folder.is_dir() else {}
        return dict(sorted(found.items()))

    def read_facts(self) -> dict[str, Any]:
        """What `run.json` says.

        Raises:
            InputError: this is no folder of a run.
            FormatError: it is of another version, or damaged.
        """
        if not self.facts.is_file():
            raise InputError(f"{self.path} holds no run ({self.facts.name} is missing); make one with: pretrain run")
        try:
            facts = json.loads(self.facts.read_bytes())
            found = facts["format"], facts["version"]
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise FormatError(f"{self.facts} is damaged ({error}); begin the run in another folder") from error
        if found != (FORMAT, VERSION):
            raise FormatError(f"{self.facts} is {found[0]} {found[1]}; read is {FORMAT} {VERSION}")
        return facts  # type: ignore[no-any-return]

    def write_facts(self, **facts: Any) -> None:
        """Write `run.json`."""
        content = {"format": FORMAT, "version": VERSION, "package": __version__, **facts}
        write_text(self.facts, json.dumps(content, indent=2) + "\n")


def hold_run(folder: str | Path) -> AbstractContextManager[object]:
    """Take the folder of a run, made if it is not there, for this process alone, and clear away what a killed one left
    half written. The end of the context that is returned gives it back.

    Raises:
        UsageError: another process trains there, or the folder holds something else.
        ResourceError: the folder may not be written.
    """
    run = RunFolder(Path(folder))
    _refuse_other_files(run)
    busy = UsageError(f"another process is training in {run.path}; wait until it has ended, or name another folder")
    with disk_errors(run.path):
        run.path.mkdir(parents=True, exist_ok=True)
        held = lock_folder(run.path, busy=busy)
        for place in (run.path, run.states, run.teacher(0).parent):
            for path in place.iterdir() if place.is_dir() else ():
                if is_leftover(path.name):
                    path.unlink()
    return held


def open_run(folder: str | Path, config: PretrainConfig, *, fingerprint: str, from_good: bool = False) -> RunFolder:
    """A new folder for a run, or the one that it goes on in.

    Args:
        folder: held by this process, see `hold_run`.
        config: all settings.
        fingerprint: of the data.
        from_good: drop what the run did after its last good checkpoint; settings of `FROM_GOOD` may then differ.

    Raises:
        UsageError: the folder holds a run with other settings or data, one that stopped on a collapse, or something
            else; or nothing to go back to.
        FormatError: it holds a run that cannot be read.
    """
    run = RunFolder(Path(folder))
    told = run.read_facts() if run.facts.exists() else None
    if told is not None and not _begun(run, told):
        told = None
    if told is not None:
        former = read_config(run.config)
        differing = differences(former, config, free=(*FREE, *FROM_GOOD) if from_good else FREE)
        if differing:
            raise UsageError(
                f"{run.path} holds a run with other settings ({'; '.join(differing[:8])}, its own first); resume with "
                "its own, or name another folder"
            )
        if told["data"] != fingerprint:
            raise UsageError(f"{config.data} is not what the run in {run.path} began with; name another folder")
        if from_good:
            _go_back(run, told, config, changed=differences(former, config))
        elif former.monitor == config.monitor and _stopped(told, config):
            raise UsageError(f"the run in {run.path} stopped on a collapse after {told['done']} steps; {WAY_BACK}")
    else:
        _refuse_other_files(run)
        if from_good:
            raise UsageError(f"{run.path} holds no run that could go back; leave --from-good out")
    for made in (run.path, run.states, run.teacher(0).parent):
        made.mkdir(parents=True, exist_ok=True)
    write_text(run.config, to_yaml(config))
    if told is None:
        run.write_facts(data=fingerprint, steps=config.train.steps, done=0, good=None, verdict=None, went_back=[])
    return run


def _refuse_other_files(run: RunFolder) -> None:
    """Leave alone a folder that is neither empty nor of a run, or of one that was killed as it began."""
    if run.facts.exists() or not run.path.is_dir():
        return
    names = {path.name for path in run.path.iterdir() if not is_leftover(path.name)}
    others = names - {run.config.name, LOCK, run.states.name, run.teacher(0).parent.name}
    if others:
        raise holds_others(run.path, "run", some=sorted(others))


def _begun(run: RunFolder, told: dict[str, Any]) -> bool:
    """Whether a run did a step; one that failed before, for want of weights or memory, binds nobody to its settings."""
    states = checkpoint.steps(run.states) if run.states.is_dir() else []
    return bool(told["done"] or states or (run.log.exists() and run.log.stat().st_size))


def _stopped(told: dict[str, Any], config: PretrainConfig) -> bool:
    """Whether a run ended on a collapse and would end on it again."""
    collapsed = told["verdict"] is not None and told["verdict"]["level"] == "collapse"
    return collapsed and told["done"] < told["steps"] and config.monitor.on_collapse == "stop"


def _go_back(run: RunFolder, told: dict[str, Any], config: PretrainConfig, *, changed: list[str]) -> None:
    """Drop what lies after the last good checkpoint; `run.json` keeps that this was done.

    States go first: a process that is killed in here leaves a run that goes on from the good one, or back to it again.
    """
    done = checkpoint.steps(run.states)
    good = checkpoint.load(checkpoint.path_of(run.states, done[-1]))["good"] if done else None
    if good not in done:
        raise UsageError(
            f"the run in {run.path} has no checkpoint without a collapse to go back to; begin anew in another folder"
        )
    _refuse_short_queues(checkpoint.load(checkpoint.path_of(run.states, good)), config)
    for step in reversed(done[done.index(good) + 1 :]):
        checkpoint.path_of(run.states, step).unlink()
    for step, path in run.teachers().items():
        if step > good:
            path.unlink()
    record = {"from": done[-1], "to": good, "changed": changed}
    held = {key: told[key] for key in ("data", "steps")}
    run.write_facts(**held, done=good, good=good, verdict=None, went_back=[*told.get("went_back", []), record])


def _refuse_short_queues(state: dict[str, Any], config: PretrainConfig) -> None:
    """See before anything is dropped that the queues of a state fit."""
    queues = config.loss.sinkhorn
    for queue, name, capacity in (
        ("cls", "queue_rows", queues.queue_rows),
        ("patches", "queue_patch_rows", queues.queue_patch_rows),
    ):
        held = max(len(one[queue].get("rows", ())) for one in state["objective"])
        if held > capacity:
            raise UsageError(
                f"loss.sinkhorn.{name} is {capacity}, the checkpoint to go back to holds {held} rows in that queue; "
                f"give {held} or more"
            )
