"""A process that does jobs for benchmarks/features.py and says how long each took; needs Python alone, and Linux."""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Job = dict[str, Any]
"""way, weights (folder holding `MODEL`), pictures (folder), out (fresh folder), size (h, w), layers, table (h, w) each,
shapes {file name: (h, w)}."""

Answer = dict[str, float]
"""Seconds `load` and `work`, and the largest resident memory meanwhile, `peak`, in MB; or what else a way measures."""

MODEL = "facebook/dinov3-vits16-pretrain-lvd1689m"
"""dinotool takes a folder of this relative name, if there is one, for the model of this name on the hub."""


class Child:
    """A running child, from the side of who asks it.

    Args:
        command: starts it.
    """

    def __init__(self, command: list[str]) -> None:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, job: Job) -> dict[str, Any]:
        """Have a job done and wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(job), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{job} ended the process that did it; what it wrote stands above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        """No more jobs."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve(ways: Mapping[str, Callable[[Job], Answer]], facts: Callable[[], dict[str, str]]) -> None:
    """Do the jobs that come in as lines of JSON, answer each with a line; a job without a way asks for the facts."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        job = json.loads(line)
        if "way" not in job:
            print(json.dumps(facts()), file=answers, flush=True)
            continue
        os.chdir(job["weights"])
        _forget_peak()
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                answer = ways[job["way"]](job)
            except BaseException:
                os.write(2, said.getvalue().encode())
                raise
        print(json.dumps({**answer, "peak": _peak()}), file=answers, flush=True)


def _forget_peak() -> None:
    """Start the peak of this process's memory anew; proc(5), clear_refs."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float:
    """Largest resident memory since `_forget_peak`, MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6
