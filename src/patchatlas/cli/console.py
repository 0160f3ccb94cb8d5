"""What all commands share: output options, results on stdout, log and progress on stderr."""

import json
import logging
import sys
import time
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

EVERY_S = 30.0
"""Seconds between two lines of progress where stderr is no terminal."""


class Output(BaseModel):
    """Options that every command has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["human", "json"] = "human"
    """How the result is printed on stdout."""
    verbose: bool = False
    """Log what is done, on stderr."""


def emit(output: Output, *, human: str, data: dict[str, Any]) -> None:
    """Print a result: lines for people, or one JSON object for scripts."""
    print(json.dumps(data, indent=2) if output.format == "json" else human)


def log_to_stderr(*, verbose: bool) -> None:
    """Show the package's log on stderr: warnings always, the rest on request."""
    log = logging.getLogger("patchatlas")
    log.setLevel(logging.DEBUG if verbose else logging.WARNING)
    handler: logging.Handler
    if sys.stderr.isatty():
        handler = RichHandler(console=Console(stderr=True), show_path=False, show_time=verbose)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:  # one line a message, however long
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    log.handlers = [handler]


def progress(*columns: ProgressColumn) -> Progress:
    """A progress bar on stderr with some columns more; where stderr is no terminal, a line every `EVERY_S` seconds."""
    kind = Progress if sys.stderr.isatty() else _Lines
    return kind(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *columns,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


class _Lines(Progress):
    """For log files: what a bar would show, as a line now and then."""

    _told = 0.0

    def start(self) -> None:
        self._told = time.monotonic()
        super().start()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        self._tell(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._tell(task_id)

    def _tell(self, task_id: TaskID) -> None:
        now = time.monotonic()
        if now - self._told < EVERY_S:
            return
        self._told = now
        task = self._tasks[task_id]
        parts = [f"{task.description}: {task.completed:g}" + ("" if task.total is None else f" of {task.total:g}")]
        parts += [str(value) for value in task.fields.values() if value]
        if task.time_remaining is not None:
            parts.append(f"about {_clock(float(task.time_remaining))} left")
        print(", ".join(parts), file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    """1:02:03, or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
