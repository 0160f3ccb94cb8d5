"""A detector of the user's own: a function `module:function` or `file.py:function`.

It is called with the upright RGB picture, uint8 (h, w, 3), and the time in seconds, and returns boxes (n, 4) as xyxy in
pixels of that picture, n scores in 0..1 and n labels; arrays, tensors or lists.
"""

import importlib
import importlib.util
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from patchatlas.errors import InputError, UsageError
from patchatlas.io.video import VideoFrame
from patchatlas.reid.boxes import Detections, clean


class PluginDetector:
    """Calls a function on every frame.

    Args:
        name: `module:function`, importable, or `path/to/file.py:function`. What is named is run: name only code that
            you trust.

    Raises:
        UsageError: there is no such module or function.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._function = _function(name)
        self.facts: dict[str, object] = {"name": name, "licence": "the user's own"}
        self.dropped: Counter[str] = Counter()

    def __call__(self, frame: VideoFrame, /) -> Detections:
        """What the function returned, cleaned.

        Raises:
            InputError: it did not return boxes, scores and labels, one of each a box.
        """
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


def _function(name: str) -> Callable[..., Any]:
    where, _, what = name.rpartition(":")
    if not where or not what:
        raise UsageError(f"{name!r} names no function; give module:function or file.py:function")
    function = getattr(_module(where), what, None)
    if not callable(function):
        raise UsageError(f"{where} has no function {what}; check the name")
    found: Callable[..., Any] = function
    return found


def _module(where: str) -> ModuleType:
    if where.endswith(".py"):
        path = Path(where)
        spec = importlib.util.spec_from_file_location(path.stem, path) if path.is_file() else None
        if spec is None or spec.loader is None:
            raise UsageError(f"there is no file {where}; check the path of the detector")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
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
