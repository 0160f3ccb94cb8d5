"""Verify weights: a file or folder in any layout that can be loaded, or another name of an encoder.

Looks at files, sizes, hash, layout, names and shapes of tensors, config.json, NaN, and runs a small input. All
problems are told at once; with any, the exit code is 5.
"""

from typing import Annotated

import tyro
from pydantic import Field

from patchatlas.cli.console import Output, emit

WEIGHTS = 5
"""Exit code where something is missing or wrong."""


class Config(Output):
    """What `patchatlas weights check` is asked to do."""

    path: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PATH")]
    """Weights file or folder, catalogue name, hub id (downloaded if it is not in the cache) or bundled:NAME."""
    sha256: str | None = None
    """Hash that the file must have, or its first 8 digits or more. For shards see the page on encoders."""
    heads: Annotated[int | None, Field(gt=0)] = None
    """Attention heads, for weights that do not tell; all released ones do, or are known."""
    forward: bool = True
    """Load the encoder and run it on a small input, in float32 on the CPU."""


def run(config: Config) -> int:
    """Verify, print a line for each check, and say by the exit code whether all is well.

    Raises:
        UsageError: --sha256 is not a hash.
    """
    from patchatlas.encoders.verification.verify import verify

    report = verify(config.path, sha256=config.sha256, heads=config.heads, forward=config.forward)
    lines = [f"{check.state:<7}  {check.name:<7}  {check.found}" for check in report.checks]
    failures = [check.name for check in report.failures]
    skipped = [check.name for check in report.checks if check.state == "skipped"]
    if failures:
        verdict = f"{config.path}: {len(failures)} of {len(lines)} checks failed: {', '.join(failures)}"
    else:
        verdict = f"{config.path}: ok" + (f"; not checked: {', '.join(skipped)}" if skipped else "")
    data = {
        "subject": report.subject,
        "path": None if report.path is None else str(report.path),
        "ok": report.ok,
        "sha256": report.sha256,
        "model": list(report.model),
        "checks": [{"name": check.name, "state": check.state, "found": check.found} for check in report.checks],
    }
    emit(config, human="\n".join([*lines, verdict]), data=data)
    return 0 if report.ok else WEIGHTS
