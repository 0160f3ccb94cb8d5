"""What became of each missing mark of a photo, as plain values: kept on disk, audited, shown and written as a mark."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from patchatlas.geometry.turns import Turn
from patchatlas.io.landmarks import Landmark
from patchatlas.matching.verdict import State

Point = tuple[float, float]

DIGITS = 4
"""Decimals of the confidence in a mark file; it is not known any better."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One missing mark, looked for in one photo.

    Attributes:
        uuid: whose.
        state: `found`, `uncertain` or `absent`.
        confidence: probability that the place is right, 0..1.
        reason: why, in words and numbers.
        proposed: whether it goes to the mark file.
        target_xy: the best place, in pixels of the photo.
        mel: column and row of that pixel.
        spread_px: how wide the peak is, in pixels of the photo.
        source: name of the reference that agrees best.
        source_xy: the mark in it.
        turn: how that reference was laid down.
        views: how many references show the mark.
        rank: 0 if it is the place that looks most like the mark, n if its nth runner-up was taken, with the company of
            the other marks in mind.
        predicted_xy: where the other marks put it; `None` without enough of them.
        prior_px: from there to `target_xy`.
        prior_sigma_px: standard deviation of that prediction along each axis.
        gap_px: to the nearest other mark of the photo, confirmed or not; `None` if there is none.
        identity_safe: whether the error to be expected is less than half that gap, and the gap more than half a patch.
    """

    uuid: str
    state: State
    confidence: float
    reason: str
    proposed: bool
    target_xy: Point
    mel: tuple[int, int]
    spread_px: float
    source: str
    source_xy: Point
    turn: Turn
    views: int
    rank: int
    predicted_xy: Point | None
    prior_px: float | None
    prior_sigma_px: float | None
    gap_px: float | None
    identity_safe: bool

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, one for each attribute."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Answer":
        """The inverse of `to_json`.

        Raises:
            KeyError: an attribute is missing.
        """
        known: dict[str, Any] = {field.name: stored[field.name] for field in fields(cls)}
        known |= {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
        return cls(**known)

    def as_mark(self) -> Landmark:
        """The proposal as mel's automatic markers write theirs: not confirmed, with its confidence."""
        column, row = self.mel
        return Landmark(self.uuid, column, row, False, {"confidence": round(self.confidence, DIGITS)})


def as_marks(answers: Sequence[Answer]) -> list[Landmark]:
    """The proposals among answers, in order."""
    return [answer.as_mark() for answer in answers if answer.proposed]
