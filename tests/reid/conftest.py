"""Small ways to make tracks and looks, for the tests of re-identification."""

from collections.abc import Callable

import pytest
import torch

from patchatlas.reid.boxes import Box, Observation, Tracklet
from patchatlas.reid.portraits import Portrait

MakeTracklet = Callable[..., Tracklet]
MakePortrait = Callable[..., Portrait]


@pytest.fixture
def tracklet() -> MakeTracklet:
    """A tracklet of one box, `dx` pixels further right in every frame."""

    def make(
        number: int, frames: range, box: Box = (0, 0, 10, 20), *, dx: float = 0, label: str = "person"
    ) -> Tracklet:
        x0, y0, x1, y1 = box
        seen = tuple(
            Observation(
                number, frame, frame / 10, (float(x0 + k * dx), float(y0), float(x1 + k * dx), float(y1)), 0.9, label
            )
            for k, frame in enumerate(frames)
        )
        return Tracklet(number, label, seen)

    return make


@pytest.fixture
def portrait() -> MakePortrait:
    """A tracklet with one crop a vector, spread over its frames from the first on."""

    def make(of: Tracklet, *vectors: tuple[float, ...], weights: tuple[float, ...] | None = None) -> Portrait:
        frames = [seen.frame for seen in of.observations]
        step = max(1, len(frames) // max(1, len(vectors)))
        rows = torch.tensor(vectors, dtype=torch.float64).reshape(len(vectors), len(vectors[0]) if vectors else 2)
        return Portrait(
            of,
            tuple(frames[k * step] for k in range(len(vectors))),
            torch.nn.functional.normalize(rows, dim=1),
            torch.tensor(weights or (1.0,) * len(vectors), dtype=torch.float64),
        )

    return make
