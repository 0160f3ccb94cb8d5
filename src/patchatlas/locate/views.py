"""One landmark with several source views: each view votes for a place in the target, and the votes meet.

Points are (x, y[, z]) in the source plane of their own picture or volume. A view that saw the mark hidden, blurred or
wrongly marked votes for somewhere else; it is left out and named, rather than averaged in.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.errors import ShapeError
from patchatlas.features import FeatureMap
from patchatlas.geometry.turns import Turn
from patchatlas.locate.result import Finding, Point
from patchatlas.locate.search import RADIUS, locate_points, patch_side
from patchatlas.matching.confidence import Calibration, Cues
from patchatlas.matching.consensus import Consensus, meet
from patchatlas.matching.verdict import State, judge


@dataclass(frozen=True)
class Vote:
    """What one view says, and what the others say without it.

    Attributes:
        view: name of the view.
        source_xy: the mark in it.
        target_xy: its own best place in the target.
        state: what it alone would answer.
        confidence: how sure it alone would be.
        turn: how the view was laid down when it was encoded.
        cycle_px: its own cycle, in pixels of the view.
        spread_px: how wide its peak is, in target pixels.
        weight: how much it counted.
        agrees: whether it is within the radius of the common place.
        without_xy: where the other views meet; `None` if there are none.
        error_px: from `target_xy` to `without_xy`: how far off this view is by the judgement of the others.
    """

    view: str
    source_xy: Point
    target_xy: Point
    state: State
    confidence: float
    turn: Turn
    cycle_px: float
    spread_px: float
    weight: float
    agrees: bool
    without_xy: Point | None
    error_px: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class ViewsFinding:
    """One landmark, looked for from several views.

    Attributes:
        finding: of the view that agrees best, with the common place, spread, state and reason in place of its own.
        votes: one a view, in the order given.
        best: number of the view that agrees best: of those that agree, the one with the shortest cycle in patches.
        support: part of all weight that agrees, 0..1.
    """

    finding: Finding
    votes: tuple[Vote, ...]
    best: int
    support: float

    def to_json(self, *, target: str) -> dict[str, Any]:
        """`Finding.to_json` of the view that agrees best, with `views` and `support` beside it."""
        stored = self.finding.to_json(source=self.votes[self.best].view, target=target)
        return {**stored, "support": self.support, "views": [vote.to_json() for vote in self.votes]}


def locate_from_views(
    source_maps: Sequence[FeatureMap],
    points_source: Float[Tensor, "v ndim"],
    target_map: FeatureMap,
    *,
    views: Sequence[str],
    uuid: str,
    image_size: int,
    calibration: Calibration | None = None,
) -> ViewsFinding:
    """Find one landmark in a target from all its views.

    A view's weight is one plus twice its own confidence. Votes agree within `RADIUS` patches of the target. `absent`
    and `uncertain` views vote too: a weak best place that many views share is evidence. The state is that of the cues
    of the views that agree (the median of each), of how many they are, and of their part of the weight.

    Args:
        source_maps: one a view, made in the same way as the target's.
        points_source: the mark in each view.
        target_map: of the target.
        views: names of the views.
        uuid: whose landmark it is; a label.
        image_size: long side of all encoder inputs, for the record.
        calibration: makes probabilities of cues; that of the encoder if not given.

    Raises:
        ShapeError: no view, or not one map and name a point.
        StampError: maps made in different ways.
    """
    if not len(source_maps) == len(points_source) == len(views) or not len(views):
        raise ShapeError(
            f"{len(source_maps)} maps, {len(points_source)} points and {len(views)} names of views; give one of each a "
            "view, and at least one view"
        )
    alone = [
        locate_points(
            source_map,
            target_map,
            points_source[v : v + 1],
            uuids=[uuid],
            image_size=image_size,
            calibration=calibration,
        )[0]
        for v, source_map in enumerate(source_maps)
    ]
    return meet_views(alone, views=views)


def meet_views(alone: Sequence[Finding], *, views: Sequence[str]) -> ViewsFinding:
    """What several views of one landmark, each looked for by itself in one target, say together.

    Args:
        alone: one a view, best as `locate_points` gives them.
        views: names of the views.

    Raises:
        ShapeError: no view, or not one name a view.
    """
    if len(alone) != len(views) or not views:
        raise ShapeError(f"{len(alone)} findings and {len(views)} names of views; give one name each, and at least one")
    weights = torch.tensor([1 + 2 * finding.confidence for finding in alone], dtype=torch.float64)
    patch_px = patch_side(alone[0].grid)
    together = _meet(alone, weights, patch_px, leave_out=None)
    assert together is not None, "there is at least one view"

    votes = []
    for v, finding in enumerate(alone):
        others = _meet(alone, weights, patch_px, leave_out=v)
        without = None if others is None else tuple(others.place.tolist())
        votes.append(
            Vote(
                view=views[v],
                source_xy=finding.source_xy,
                target_xy=finding.target_xy,
                state=finding.state,
                confidence=finding.confidence,
                turn=finding.turn,
                cycle_px=finding.cycle_px,
                spread_px=finding.spread_px,
                weight=float(weights[v]),
                agrees=bool(together.agrees[v]),
                without_xy=without,
                error_px=None if without is None else math.dist(finding.target_xy, without),
            )
        )
    agreeing = [v for v in range(len(alone)) if together.agrees[v]]
    closest = min(agreeing, key=lambda v: (alone[v].cues.cycle, v))
    if len(alone) == 1:
        return ViewsFinding(alone[0], tuple(votes), 0, together.support)
    cues = _cues_together([alone[v].cues for v in agreeing], support=together.support)
    verdict = judge(cues, alone[closest].calibration)
    spread = torch.linalg.eigvalsh(together.covariance)[-1].sqrt()
    finding = replace(
        alone[closest],
        target_xy=tuple(together.place.tolist()),
        covariance=tuple(tuple(row) for row in together.covariance.tolist()),
        spread_px=float(spread),
        state=verdict.state,
        confidence=verdict.confidence,
        cues=cues,
        reason=f"{len(agreeing)} of {len(alone)} views agree; {verdict.reason}",
    )
    return ViewsFinding(finding, tuple(votes), closest, together.support)


def _cues_together(agreeing: Sequence[Cues], *, support: float) -> Cues:
    """The cues of a place that several views agree on."""
    leads = [cues.lead for cues in agreeing if cues.lead is not None]
    return Cues(
        lead=statistics.median(leads) if leads else None,
        cycle=statistics.median(cues.cycle for cues in agreeing),
        entropy=statistics.median(cues.entropy for cues in agreeing),
        views=len(agreeing),
        agreement=support,
    )


def _meet(
    alone: Sequence[Finding], weights: Float[Tensor, " v"], patch_px: float, *, leave_out: int | None
) -> Consensus | None:
    kept = [v for v in range(len(alone)) if v != leave_out]
    if not kept:
        return None
    places = torch.tensor([alone[v].target_xy for v in kept], dtype=torch.float64)
    spreads = torch.tensor([alone[v].covariance for v in kept], dtype=torch.float64)
    return meet(places, spreads, weights[kept], radius=RADIUS * patch_px)
