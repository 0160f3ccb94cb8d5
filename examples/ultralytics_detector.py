"""Let an Ultralytics YOLO model find the boxes: `--detector examples/ultralytics_detector.py:detect`.

Ultralytics and its models are AGPL-3.0, which is why patchatlas neither contains nor installs them: install the package
yourself (pip install ultralytics), and see that its licence suits what you do. The model is the file or name in the
environment variable YOLO_MODEL; Ultralytics downloads a name that it knows.
"""

import os
from functools import lru_cache
from typing import Any

import numpy as np


@lru_cache(maxsize=1)
def model() -> Any:
    """The model, loaded at the first frame."""
    from ultralytics import YOLO

    return YOLO(os.environ.get("YOLO_MODEL", "yolo11n.pt"))


def detect(picture: np.ndarray, _time_s: float) -> tuple[Any, Any, list[str]]:
    """Boxes (n, 4) as xyxy in pixels, scores and labels of one upright RGB picture."""
    (result,) = model().predict(picture[..., ::-1], verbose=False)  # Ultralytics takes arrays as BGR
    labels = [result.names[int(kind)] for kind in result.boxes.cls.tolist()]
    return result.boxes.xyxy, result.boxes.conf, labels
