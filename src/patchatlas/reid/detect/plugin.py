"""A detector of the user's own: a function `module:function` or `file.py:function`.

It is called with the upright RGB picture, uint8 (h, w, 3), and the time in seconds, and returns boxes (n, 4) as xyxy in
pixels of that picture, n scores in 0..1 and n labels; arrays, tensors or lists.

Its boxes are known by its name and by the file that it is in: a change of what it calls in other files does not show.
"""

import importlib
import importlib.util
import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from patchatlas.errors import InputError, PatchAtlasError, UsageError
from patchatlas.io.video import VideoFrame
from patchatlas.reid.boxes import Detections, clean


class PluginDetector:
    """Calls a function on every frame.

    Args:
        name: `module:function`, importable, or `path/to/file.py:function`. What is named is run: name only code that
            you trust.

    Raises:
        UsageError: there is no such module or function.
        InputError: the module cannot be run.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        module, self._function = _found(name)
        file = _source(module, self._function)
        self.facts: dict[str, object] = {
            "name": name,
            "sha256": None if file is None else sha256(file.read_bytes()).hexdigest(),
            "licence": "the user's own",
        }
        self.dropped: Counter[str] = Counter()

    def __call__(self, frame: VideoFrame, /) -> Detections:
        """What the function returned, cleaned.

        Raises:
            InputError: it raised an exception, or did not return boxes, scores and labels, one of each a box.
        """
        with _its_own(self._name, f"at frame {frame.number}"):
            returned = self._function(frame.pixels, float(frame.time))
        try:
            boxes, scores, labels = returned
            boxes, scores = _numbers(boxes).reshape(-1, 4), _numbers(scores).reshape(-1)
            labels = tuple(str(label) for label in labels)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{self._name} returned {type(returned).__name__} ({error}); it must return boxes (n, 4) as xyxy, n "
                "scores in 0..1 and n labels"
            ) from error
        if not len(boxes) == len(scores) == len(labels):
            raise InputError(
                f"{self._name} returned {len(boxes)} boxes, {len(scores)} scores and {len(labels)} labels; return one "
                "of each a box"
            )
        found, dropped = clean(boxes, scores, labels, frame.pixels.shape[:2])
        self.dropped.update(dropped)
        return found


@contextmanager
def _its_own(name: str, where: str) -> Iterator[None]:
    """Run code of the user's: its exceptions are told with the name of the plug-in, and are no bug of ours.

    Raises:
        InputError: there was one. What patchatlas raises, and lack of memory, pass.
    """
    try:
        yield
    except (PatchAtlasError, MemoryError):
        raise
    except Exception as error:  # whatever a user's code may raise
        raise InputError(
            f"the detector {name} raised {type(error).__name__} {where}: {error}; mend it, or choose another detector"
        ) from error


def _found(name: str) -> tuple[ModuleType, Callable[..., Any]]:
    """The function of that name, and the module it was asked of."""
    where, _, what = name.rpartition(":")
    if not where or not what:
        raise UsageError(f"{name!r} names no function; give module:function or file.py:function")
    module = _module(where)
    function = getattr(module, what, None)
    if not callable(function):
        raise UsageError(f"{where} has no function {what}; check the name")
    return module, function


def _source(module: ModuleType, function: Callable[..., Any]) -> Path | None:
    """The file in which a function is written, that of the module if it does not say; None for what has no file."""
    try:
        written = inspect.getsourcefile(inspect.unwrap(function))
    except (TypeError, OSError):  # an object that can be called, or one of compiled code
        written = None
    file = Path(written or getattr(module, "__file__", None) or "")
    return file if file.is_file() else None


def _module(where: str) -> ModuleType:
    if where.endswith(".py"):
        path = Path(where)
        spec = importlib.util.spec_from_file_location(path.stem, path) if path.is_file() else None
        if spec is None or spec.loader is None:
            raise UsageError(f"there is no file {where}; check the path of the detector")
        module = importlib.util.module_from_spec(spec)
        with _its_own(where, "when it was loaded"):
            spec.loader.exec_module(module)
        return module
    with _its_own(where, "when it was loaded"):
        try:
            return importlib.import_module(where)
        except ModuleNotFoundError as error:
            raise UsageError(
                f"the detector's module {where} cannot be imported ({error}); install it, or give the path of its file"
            ) from error


def _numbers(values: Any) -> Tensor:
    """Floats of an array, list or tensor on any device."""
    if isinstance(values, Tensor):
        return values.detach().to("cpu", torch.float64)
    return torch.from_numpy(np.asarray(values, dtype=np.float64))
