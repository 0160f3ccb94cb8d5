"""What locating many landmarks together gives: where each was put, why there, and whether it can be told from others.

Points are (x, y) in the continuous plane of the upright target; lengths are pixels of the target.
"""

from dataclasses import dataclass
from typing import Any

from patchatlas.locate.result import Point
from patchatlas.locate.views import ViewsFinding
from patchatlas.matching.confidence import Cues
from patchatlas.matching.prior import Prior
from patchatlas.matching.verdict import State


@dataclass(frozen=True, kw_only=True, eq=False)
class Placement:
    """One landmark among others.

    Attributes:
        uuid: whose landmark it is.
        views: what its appearance alone says, from every reference that has it.
        target_xy: where it was put; the best place there is, whatever the state.
        state: `found`, `uncertain` or `absent`.
        reason: why, in words and numbers.
        confidence: probability that `target_xy` is within one patch side of the truth, 0..1.
        cues: what the confidence rests on.
        spread_px: how wide the peak at `target_xy` is, see `Finding.spread_px`.
        rank: peaks of its appearance that look more like it than the place taken: 0 is the best place, n its n-th
            runner-up, 5 a place that is none of the best five.
        moved_by: from the best place by appearance to `target_xy`.
        taken_by: the landmark that was given the place this one liked best, where it was left with none.
        predicted_xy: where the other landmarks put it, by the reference that is surest; `None` without a prior.
        prior_px: from there to `target_xy`.
        prior_sigma_px: standard deviation of a place about its prediction, along each axis.
        gap_px: to the nearest other mark of the target, known or placed and not absent; `None` if it is the only one.
        identity_safe: whether it is found, and the error to be expected, of appearance and prior together, is below
            half the gap: then it can be taken for no other mark.
    """

    uuid: str
    views: ViewsFinding
    target_xy: Point
    state: State
    reason: str
    confidence: float
    cues: Cues
    spread_px: float
    rank: int
    moved_by: float
    taken_by: str | None
    predicted_xy: Point | None
    prior_px: float | None
    prior_sigma_px: float | None
    gap_px: float | None
    identity_safe: bool

    def to_json(self) -> dict[str, Any]:
        """Everything but the maps, as plain JSON values; `appearance` holds what it would be by itself."""
        alone = self.views.finding
        return {
            "uuid": self.uuid,
            "target_xy": list(self.target_xy),
            "state": self.state,
            "reason": self.reason,
            "confidence": self.confidence,
            "spread_px": self.spread_px,
            "rank": self.rank,
            "moved_by": self.moved_by,
            "taken_by": self.taken_by,
            "predicted_xy": None if self.predicted_xy is None else list(self.predicted_xy),
            "prior_px": self.prior_px,
            "prior_sigma_px": self.prior_sigma_px,
            "gap_px": self.gap_px,
            "identity_safe": self.identity_safe,
            "appearance": {
                "target_xy": list(alone.target_xy),
                "state": alone.state,
                "reason": alone.reason,
                "confidence": alone.confidence,
                "support": self.views.support,
                "views": [vote.to_json() for vote in self.views.votes],
            },
        }


@dataclass(frozen=True, eq=False)
class ReferencePrior:
    """The map from one reference to the target.

    Attributes:
        name: of the reference.
        prior: the map; `None` where there is none.
        agreeing: marks that agree with it.
        marks: of the reference, that are known in the target or looked for.
        reason: what it is, or why there is none, in words.
    """

    name: str
    prior: Prior | None
    agreeing: int
    marks: int
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "reference": self.name,
            "kind": None if self.prior is None else self.prior.kind,
            "agreeing": self.agreeing,
            "marks": self.marks,
            "error_px": None if self.prior is None else self.prior.error_px,
            "reason": self.reason,
        }


@dataclass(frozen=True, eq=False)
class Together:
    """All landmarks that were looked for in one target.

    Attributes:
        placements: in the order they were asked for.
        priors: one a reference, in their order.
    """

    placements: tuple[Placement, ...]
    priors: tuple[ReferencePrior, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "placements": [placement.to_json() for placement in self.placements],
            "priors": [prior.to_json() for prior in self.priors],
        }
