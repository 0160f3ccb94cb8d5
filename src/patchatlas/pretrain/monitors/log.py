"""The log of a run: one JSON line a step, and the same numbers for TensorBoard; both go on from where a run resumes.

A line is `{"step": 12, "numbers": {"row_entropy": 0.93, ...}, "verdict": {"level": "ok", "alarms": []}}`. JSON has no
NaN, so numbers that are not finite are the strings "nan", "inf" and "-inf".
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from patchatlas.errors import FormatError, MissingExtraError
from patchatlas.files import replacing
from patchatlas.pretrain.monitors.verdict import Verdict


def read_log(path: str | Path) -> Iterator[dict[str, Any]]:
    """The records of a log, oldest first, numbers as floats.

    A last line that was cut off as its process was killed is left out.

    Raises:
        FormatError: any other line that is no record.
    """
    with Path(path).open("rb") as handle:
        for number, line in enumerate(handle, start=1):
            if not line.endswith(b"\n"):
                return
            yield _record(line, f"{path}, line {number}")


class JsonLines:
    """Appends records to a log, each written out before the call returns.

    Args:
        path: made if absent.
        resume_step: first step that will be written; records from it on are dropped, for a run that resumes from a
            checkpoint does those steps again.
    """

    def __init__(self, path: str | Path, *, resume_step: int = 0) -> None:
        self._path = Path(path)
        if self._path.exists():
            self._keep_before(resume_step)
        self._handle: IO[str] = self._path.open("a", encoding="utf-8")

    def write(self, step: int, numbers: Mapping[str, float], verdict: Verdict | None = None) -> None:
        """Append the record of a step."""
        record: dict[str, Any] = {"step": step, "numbers": {name: _plain(value) for name, value in numbers.items()}}
        if verdict is not None:
            record["verdict"] = verdict.to_json()
        self._handle.write(json.dumps(record, separators=(",", ":"), allow_nan=False) + "\n")
        self._handle.flush()

    def close(self) -> None:
        """Let go of the file."""
        self._handle.close()

    def __enter__(self) -> "JsonLines":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _keep_before(self, step: int) -> None:
        with replacing(self._path) as temporary, self._path.open("rb") as old, temporary.open("wb") as new:
            for number, line in enumerate(old, start=1):
                if not line.endswith(b"\n"):
                    break
                if _record(line, f"{self._path}, line {number}")["step"] < step:
                    new.write(line)


def require_tensorboard() -> None:
    """See that TensorBoard can be written, before anything is.

    Raises:
        MissingExtraError: tensorboard is not installed.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "tensorboard", extra="pretrain", needed_for="logging for TensorBoard (train.tensorboard=false does without)"
        ) from error


class TensorBoard:
    """Writes the numbers of steps as scalars for TensorBoard, and changes of the verdict as text.

    Args:
        folder: made if absent; each process writes a file of its own in it.
        resume_step: TensorBoard leaves out what earlier files hold from this step on.

    Raises:
        MissingExtraError: tensorboard is not installed.
    """

    def __init__(self, folder: str | Path, *, resume_step: int = 0) -> None:
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=resume_step or None)
        self._said = "ok"

    def write(self, step: int, numbers: Mapping[str, float], verdict: Verdict | None = None) -> None:
        """Add the scalars of a step; a verdict only where its level differs from the last."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        if verdict is not None and verdict.level != self._said:
            self._said = verdict.level
            self._writer.add_text("verdict", verdict.sentence, step)

    def close(self) -> None:
        """Write out what is held back and let go of the file."""
        self._writer.close()


def _record(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
        record["numbers"] = {name: float(value) for name, value in record["numbers"].items()}
        int(record["step"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{where} is no record of a run ({error}); move the file away to start a new log") from error
    return record  # type: ignore[no-any-return]


def _plain(value: float) -> float | str:
    return float(value) if math.isfinite(value) else str(float(value))
