"""The opt-in trace of a stitch: one JSON line at each boundary, telling what passed it; off and free by default.

A line has `stage`, `shape`, `dtype`, `min`, `max`, `mean`, `std`, `not_finite`, `unique_rows` and `sha256`, and what
else the stage gave. Minimum, maximum, mean and deviation are of the finite numbers; of complex ones, of their absolute
values. Rows run along the first axis: one a position, one a tile. The hash is of the bytes in C order, low end first.
"""

import hashlib
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from patchatlas.errors import FormatError, InputError

VARIABLE = "PATCHATLAS_STITCH_TRACE"
"""Environment variable that names the file to trace to."""

PORTION = 1 << 16
"""Numbers that are looked at in one go; a row that is longer is looked at whole."""

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
    """What a line says of an array; numbers that do not exist (of an empty array) are null.

    It is read in portions of `PORTION` numbers, so that one that is mapped from a file is never in memory as a whole.
    """
    values = array.detach() if isinstance(array, Tensor) else np.asarray(array)
    count, mean, squares, least, most = 0, 0.0, 0.0, math.inf, -math.inf
    digest = hashlib.sha256()
    rows: set[bytes] = set()
    distinct: ndarray | None = None
    for portion in _portions(values):
        digest.update(portion.astype(portion.dtype.newbyteorder("<"), copy=False).tobytes())
        if portion.ndim < 2:
            distinct = np.unique(portion if distinct is None else np.concatenate([distinct, portion]))
        else:
            rows.update(hashlib.sha256(row.tobytes()).digest() for row in portion)
        numbers = np.abs(portion) if np.iscomplexobj(portion) else portion
        finite = numbers[np.isfinite(numbers)].astype(np.float64)
        if finite.size:
            # Mean and squared deviations of two parts: Chan, Golub, LeVeque, The American Statistician 37, 1983.
            apart, total = float(finite.mean()) - mean, count + finite.size
            squares += float(np.square(finite - finite.mean()).sum()) + apart**2 * count * finite.size / total
            mean += apart * finite.size / total
            count, least, most = total, min(least, float(finite.min())), max(most, float(finite.max()))
    size = math.prod(values.shape)
    return {
        "shape": list(values.shape),
        "dtype": str(array.dtype).removeprefix("torch."),
        "min": least if count else None,
        "max": most if count else None,
        "mean": mean if count else None,
        "std": math.sqrt(squares / count) if count else None,
        "not_finite": size - count,
        "unique_rows": len(rows if distinct is None else distinct),
        "sha256": digest.hexdigest(),
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


def _portions(values: Tensor | ndarray) -> Iterator[ndarray]:
    """Some whole rows at a time, as NumPy arrays in one piece; float32 for halves, for NumPy has no bfloat16."""
    if not values.shape:
        values = values.reshape(1)
    step = max(1, PORTION // max(1, math.prod(values.shape[1:])))
    for first in range(0, len(values), step):
        part = values[first : first + step]
        if isinstance(part, Tensor):
            part = part.resolve_conj().resolve_neg().cpu()
            part = (part.float() if part.dtype in (torch.float16, torch.bfloat16) else part).numpy()
        yield np.ascontiguousarray(part)
