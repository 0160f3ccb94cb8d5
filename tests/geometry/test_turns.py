"""Turns of a frame are what they are called, all eight differ, and no coordinate is lost."""

import numpy as np
import pytest
import torch

from patchatlas.errors import ShapeError
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.sampling import resample
from patchatlas.geometry.turns import Turn, turned, turns_of

PICTURE = np.arange(6).reshape(2, 3)

# numpy turns anticlockwise, so a clockwise quarter is rot90 with k = -1
LAID: dict[Turn, np.ndarray] = {
    "upright": PICTURE,
    "rot90": np.rot90(PICTURE, -1),
    "rot180": np.rot90(PICTURE, 2),
    "rot270": np.rot90(PICTURE, 1),
    "flip": np.fliplr(PICTURE),
    "flip-rot90": np.rot90(np.fliplr(PICTURE), -1),
    "flip-rot180": np.rot90(np.fliplr(PICTURE), 2),
    "flip-rot270": np.rot90(np.fliplr(PICTURE), 1),
}


@pytest.mark.parametrize("turn", list(LAID))
def test_pixels_are_laid_down_as_the_name_says(turn: Turn) -> None:
    drawn = resample(torch.from_numpy(PICTURE).float()[None], turned(Frame.whole((2, 3)), turn))
    assert drawn[0].tolist() == LAID[turn].tolist()


@pytest.mark.parametrize("turn", list(LAID))
def test_points_keep_their_source_coordinates(turn: Turn) -> None:
    frame = Frame.whole((20, 30)).resize((40, 90)).crop((-3, 5), (48, 64))
    laid = turned(frame, turn)
    points = torch.tensor([[3.25, 7.5], [29.0, 0.5]], dtype=torch.float64)
    assert torch.allclose(laid.to_source(laid.from_source(points)), points)
    corners = torch.tensor([[0.0, 0.0], [laid.size[1], laid.size[0]]], dtype=torch.float64)
    box = frame.boxes_to_source(torch.tensor([[0.0, 0.0, 64.0, 48.0]]))
    assert torch.allclose(laid.boxes_to_source(corners.reshape(1, 4)), box)


@pytest.mark.parametrize(
    ("kinds", "turns"),
    [
        ((), ["upright"]),
        (("flip",), ["upright", "flip"]),
        (("rot90",), ["upright", "rot90", "rot180", "rot270"]),
        (("rot90", "flip"), list(LAID)),
    ],
)
def test_kinds_are_closed_and_upright_comes_first(kinds: tuple[str, ...], turns: list[str]) -> None:
    assert list(turns_of(kinds)) == turns  # type: ignore[arg-type]


def test_volumes_have_no_turns() -> None:
    with pytest.raises(ShapeError, match="3 axes"):
        turned(Frame.whole((4, 4, 4)), "flip")
