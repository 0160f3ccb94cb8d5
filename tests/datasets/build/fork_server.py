"""Run the command line in forked children, and kill each of them where it is told: at its k-th touch of the disk.

A program of its own: it imports everything once, then reads one JSON request a line and answers with one a line. A
touch is what changes the disk: a file opened for writing, half a write, a whole one, a sync, a rename, a removal, a new
folder.
"""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

AUDITED = ("os.rename", "os.remove", "os.mkdir", "os.truncate")


class Touches:
    """Counts touches of one folder's disk, and ends the process at the one that is asked for."""

    def __init__(self, root: str, kill_at: int | None) -> None:
        self.count = 0
        self.trail: list[str] = []
        self._root = root
        self._kill_at = kill_at
        self._lock = threading.Lock()

    def touch(self, what: str) -> None:
        with self._lock:
            self.count += 1
            self.trail.append(what)
            if self.count == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    def audit(self, event: str, args: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if (writes or event in AUDITED) and os.fspath(str(args[0])).startswith(self._root):
            self.touch(f"{event} {args[0]}")

    def install(self) -> None:
        """Listen to Python's audit events, and stand before the calls that have none."""
        sys.addaudithook(self.audit)
        write, fsync = os.write, os.fsync

        def torn_write(descriptor: int, data: Any, /) -> int:
            half = bytes(data)[: len(data) // 2]
            if descriptor > 2 and half:  # the caller writes the rest
                done = write(descriptor, half)
                self.touch("half a write")
                return done
            return write(descriptor, data)

        def counted_fsync(descriptor: int, /) -> None:
            self.touch("fsync")
            fsync(descriptor)

        def torn_write_bytes(path: Path, data: bytes, /) -> int:
            with path.open("wb", buffering=0) as handle:
                handle.write(data[: len(data) // 2])
                self.touch(f"half of {path}")
                handle.write(data[len(data) // 2 :])
            self.touch(f"whole of {path}")
            return len(data)

        os.write, os.fsync = torn_write, counted_fsync
        Path.write_bytes = torn_write_bytes  # type: ignore[method-assign, assignment]


def child(request: dict[str, Any], answer: int) -> int:
    """Run one command; the answer is written as JSON into a pipe unless the process dies before."""
    from patchatlas.cli.main import main

    touches = Touches(request["root"], request["kill_at"])
    touches.install()
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(request["args"])
    touches._kill_at = None
    content = {"code": code, "touches": touches.count, "stdout": out.getvalue(), "stderr": err.getvalue()}
    with os.fdopen(answer, "w") as pipe:
        pipe.write(json.dumps(content))
    return code


def serve(modules: Sequence[str]) -> None:
    """Answer requests until the input ends; `modules` are imported once, before the first."""
    for module in modules:
        import_module(module)

    for line in sys.stdin:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            code = 70
            try:
                code = child(json.loads(line), writing)
            finally:
                os._exit(code)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            content = pipe.read()
        _, status = os.waitpid(pid, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        sys.stdout.write((content or json.dumps({"killed": killed, "status": status})) + "\n")
        sys.stdout.flush()


class ForkServer:
    """The other end: sends requests to a server that runs as a process."""

    def __init__(self, modules: Sequence[str]) -> None:
        root = Path(__file__).parents[3]
        environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.datasets.build.fork_server", *modules],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=root,
        )  # fmt: skip

    def run(self, args: list[str], *, root: Path, kill_at: int | None = None) -> dict[str, Any]:
        """What became of a command: `killed`, or `code`, `touches`, `stdout` and `stderr`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"args": args, "root": str(root), "kill_at": kill_at}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()


@contextmanager
def fork_server(*modules: str) -> Iterator[ForkServer]:
    """A server that ends with the block, and has imported `modules`."""
    server = ForkServer(modules)
    try:
        yield server
    finally:
        server.close()


if __name__ == "__main__":
    serve(sys.argv[1:])
