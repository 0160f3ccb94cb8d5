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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchatlas import __version__
from patchatlas.errors import FormatError, InputError, UsageError
from patchatlas.files import write_text
from patchatlas.pretrain.config import PretrainConfig, differences, read_config, to_yaml

FORMAT = "patchatlas.pretrain-run"
VERSION = 1

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


def open_run(folder: str | Path, config: PretrainConfig, *, fingerprint: str) -> RunFolder:
    """A new folder for a run, or the one that it goes on in.

    Raises:
        UsageError: the folder holds a run with other settings or data, or something else.
        FormatError: it holds a run that cannot be read.
    """
    run = RunFolder(Path(folder))
    if run.facts.exists():
        told = run.read_facts()
        differing = differences(read_config(run.config), config)
        if differing:
            raise UsageError(
                f"{run.path} holds a run with other settings ({'; '.join(differing[:8])}, its own first); resume with "
                "its own, or name another folder"
            )
        if told["data"] != fingerprint:
            raise UsageError(f"{config.data} is not what the run in {run.path} began with; name another folder")
    elif run.path.is_dir() and {path.name for path in run.path.iterdir()} - {run.config.name, "states", "teachers"}:
        raise UsageError(f"{run.path} holds other files and no run; name a new or an empty folder")
    for made in (run.path, run.states, run.teacher(0).parent):
        made.mkdir(parents=True, exist_ok=True)
    write_text(run.config, to_yaml(config))
    if not run.facts.exists():
        run.write_facts(data=fingerprint, steps=config.train.steps, done=0, good=None, verdict=None)
    return run
