"""The whole state of a run in one file a checkpoint, written in one step, and only ever read as plain tensors.

A run that is killed at any moment finds its last whole checkpoint and goes on as if nothing had been. What is random
follows from the seed and the step, so no state of a generator is kept.
"""

import io
import pickle
import re
from pathlib import Path
from typing import Any

import torch

from patchatlas.errors import FormatError
from patchatlas.files import write_bytes

FORMAT = "patchatlas.pretrain-state"
VERSION = 1

_NAME = re.compile(r"step-(\d{8})\.pt")


def path_of(folder: Path, step: int) -> Path:
    """The file of a checkpoint; `step` counts the steps done."""
    return folder / f"step-{step:08d}.pt"


def save(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write the checkpoint after `step` steps."""
    path = path_of(folder, step)
    content = io.BytesIO()  # in memory first: torch's own writer of files hides that a disk is full
    torch.save({"format": FORMAT, "version": VERSION, "step": step, **state}, content)
    write_bytes(path, content.getvalue())
    return path


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        FormatError: no checkpoint of a run, or a damaged one.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise FormatError(
            f"{path} cannot be read ({error}); delete it, and the run resumes from the one before"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT or state.get("version") != VERSION:
        raise FormatError(f"{path} is no {FORMAT} of version {VERSION}; resume with the patchatlas that wrote it")
    return state


def steps(folder: Path) -> list[int]:
    """Steps done at each checkpoint in a folder, rising; what a killed process left half written does not count."""
    found = (_NAME.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in found if match)


def prune(folder: Path, *, keep: int, good: int | None) -> None:
    """Delete all but the last `keep` checkpoints and that of the step `good`."""
    for step in steps(folder)[:-keep]:
        if step != good:
            path_of(folder, step).unlink()
