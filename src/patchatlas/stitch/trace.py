"""The opt-in trace of a stitch: one JSON line at each boundary, telling what passed it; off and free by default.

A line has `stage`, `shape`, `dtype`, `min`, `max`, `mean`, `std`, `not_finite`, `unique_rows` and `sha256`, and what
else the stage gave. Minimum, maximum, mean and deviation are of the finite numbers; of complex ones, of their absolute
values. Rows run along the first axis: one a position, one a tile. The hash is of the bytes in C order, low end first.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from torch import Tensor

from patchatlas.errors import FormatError, InputError

VARIABLE = "PATCHATLAS_STITCH_TRACE"
"""Environment variable that names the file to trace to."""

_log = logging.getLogger(__name__)


class Trace:
    """A trace that goes nowhere: called and done, nothing is computed."""

    def __call__(self, stage: str, array: Tensor | ndarray, /, **facts: Any) -> None:
        """Note what passes `stage`.

        Args:
            stage: name of the boundary, such as `positions`, `tiles`, `canvas`.
            array: what passes.
            facts: more to note, as JSON takes it: origin, interpolation, ...
        """


class FileTrace(Trace):
    """A trace that appends to a file, each line flushed at once, so that it survives a crash of what follows."""

    def __init__(self, path: str | Path) -> None:
        """Start a trace; lines that the file has stay.

        Raises:
            InputError: the file cannot be written.
        """
        self.path = Path(path)
        try:
            self.path.open("a").close()
        except OSError as error:
            raise InputError(
                f"cannot write the trace {self.path}: {error.strerror}; name a file in a folder you may write to"
            ) from error

    def __call__(self, stage: str, array: Tensor | ndarray, /, **facts: Any) -> None:
        """See `Trace`."""
        line = json.dumps({"stage": stage, **describe(array), **facts})
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(line + "\n")


def start_trace(path: str | Path | None = None, *, environment: Mapping[str, str] | None = None) -> Trace:
    """The trace that was asked for: by argument, else by `PATCHATLAS_STITCH_TRACE`, else one that goes nowhere."""
    environment = os.environ if environment is None else environment
    path = path or environment.get(VARIABLE)
    if not path:
        return Trace()
    _log.debug("tracing the stitch to %s", path)
    return FileTrace(path)


def describe(array: Tensor | ndarray) -> dict[str, Any]:
    """What a line says of an array; numbers that do not exist (of an empty array) are null."""
    values = array.detach().resolve_conj().cpu() if isinstance(array, Tensor) else np.asarray(array)
    held: ndarray = (
        values.float().numpy() if isinstance(values, Tensor) and values.dtype.itemsize == 2 else np.asarray(values)
    )
    numbers = np.abs(held) if np.iscomplexobj(held) else held
    finite = numbers[np.isfinite(numbers)].astype(np.float64)
    known = bool(finite.size)
    return {
        "shape": list(held.shape),
        "dtype": str(array.dtype).removeprefix("torch."),
        "min": float(finite.min()) if known else None,
        "max": float(finite.max()) if known else None,
        "mean": float(finite.mean()) if known else None,
        "std": float(finite.std()) if known else None,
        "not_finite": int(numbers.size - finite.size),
        "unique_rows": _unique_rows(held),
        "sha256": _hash(held),
    }


def read_trace(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a trace, in order.

    Raises:
        FormatError: a line is no JSON object with a stage; the last one of a killed run may be cut.
    """
    lines = []
    for number, text in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        try:
            line = json.loads(text)
        except json.JSONDecodeError as error:
            raise FormatError(f"{path}, line {number} is no JSON: {error}; was the run killed?") from error
        if not isinstance(line, dict) or "stage" not in line:
            raise FormatError(f"{path}, line {number} has no stage; is this a trace of patchatlas stitch?")
        lines.append(line)
    return lines


def _unique_rows(array: ndarray) -> int:
    if array.ndim < 2:
        return len(np.unique(array))
    return len({hashlib.sha256(np.ascontiguousarray(row).tobytes()).digest() for row in array})


def _hash(array: ndarray) -> str:
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return hashlib.sha256(np.ascontiguousarray(little).tobytes()).hexdigest()
