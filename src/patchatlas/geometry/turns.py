"""The eight ways to lay a picture down: as it is or mirrored, turned by quarters; all exact on frames.

A turn says what is done to what the encoder sees. Points and patches keep their source coordinates, since a `Frame`
carries the turn in its map.
"""

from collections.abc import Collection
from typing import Literal

from patchatlas.errors import ShapeError
from patchatlas.geometry.frame import Frame

Turn = Literal["upright", "rot90", "rot180", "rot270", "flip", "flip-rot90", "flip-rot180", "flip-rot270"]
"""`rot90` is a quarter turn clockwise; `flip` swaps left and right, and comes first."""

TurnKind = Literal["flip", "rot90"]

_STEPS: dict[Turn, tuple[bool, int]] = {  # mirrored?, quarters clockwise
    "upright": (False, 0),
    "rot90": (False, 1),
    "rot180": (False, 2),
    "rot270": (False, 3),
    "flip": (True, 0),
    "flip-rot90": (True, 1),
    "flip-rot180": (True, 2),
    "flip-rot270": (True, 3),
}


def turns_of(kinds: Collection[TurnKind]) -> tuple[Turn, ...]:
    """What there is to try: upright always and first, mirrored with `flip`, quarters with `rot90`, all with both."""
    return tuple(
        turn
        for turn, (mirrored, quarters) in _STEPS.items()
        if ("flip" in kinds or not mirrored) and ("rot90" in kinds or not quarters)
    )


def turned(frame: Frame, turn: Turn) -> Frame:
    """The same rectangle, laid down another way.

    Raises:
        ShapeError: a frame that is not of a picture.
    """
    if frame.ndim != 2:
        raise ShapeError(f"turns are for pictures, this frame has {frame.ndim} axes")
    mirrored, quarters = _STEPS[turn]
    if mirrored:
        frame = frame.flip(1)
    for _ in range(quarters):
        frame = frame.transpose((1, 0)).flip(1)  # rows become columns, then the first comes last: clockwise
    return frame
