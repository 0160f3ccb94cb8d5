"""What all commands share: output options, results on stdout, log and progress on stderr."""

import json
import logging
import sys
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


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


def progress() -> Progress:
    """A progress bar on stderr, silent where stderr is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
