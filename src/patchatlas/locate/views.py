"""One landmark with several source views: each view votes for a place in the target, and the votes meet.

Points are (x, y[, z]) in the source plane of their own picture or volume. A view that saw the mark hidden, blurred or
wrongly marked votes for somewhere else; it is left out and named, rather than averaged in.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.errors import ShapeError
from patchatlas.features import FeatureMap
from patchatlas.locate.result import Finding, Point
from patchatlas.locate.search import RADIUS, locate_points, patch_side
from patchatlas.matching.consensus import Consensus, meet
from patchatlas.matching.verdict import Limits, State, decide_together


@dataclass(frozen=True)
class Vote:
    """What one view says, and what the others say without it.

    Attributes:
        view: name of the view.
        source_xy: the mark in it.
        target_xy: its own best place in the target.
        state: what it alone would answer.
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
    limits: Limits | None = None,
) -> ViewsFinding:
    """Find one landmark in a target from all its views.

    A view's weight is one plus what it has of the two cues of `matching.verdict`: a short cycle and a clear lead. Votes
    agree within `RADIUS` patches of the target. `absent` and `uncertain` views vote too: a weak best place that many
    views share is evidence.

    Args:
        source_maps: one a view, made in the same way as the target's.
        points_source: the mark in each view.
        target_map: of the target.
        views: names of the views.
        uuid: whose landmark it is; a label.
        image_size: long side of all encoder inputs, for the record.
        limits: where found, uncertain and absent part for a view by itself.

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
            source_map, target_map, points_source[v : v + 1], uuids=[uuid], image_size=image_size, limits=limits
        )[0]
        for v, source_map in enumerate(source_maps)
    ]
    cycles = [f.cycle_px / patch_side(m.grid) for f, m in zip(alone, source_maps, strict=True)]
    weights = torch.tensor([_weight(f, cycle) for f, cycle in zip(alone, cycles, strict=True)], dtype=torch.float64)
    patch_px = patch_side(target_map.grid)
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
                cycle_px=finding.cycle_px,
                spread_px=finding.spread_px,
                weight=float(weights[v]),
                agrees=bool(together.agrees[v]),
                without_xy=without,
                error_px=None if without is None else math.dist(finding.target_xy, without),
            )
        )
    agreeing = [v for v in range(len(alone)) if together.agrees[v]]
    closest = min(agreeing, key=lambda v: (cycles[v], v))
    if len(alone) == 1:
        return ViewsFinding(alone[0], tuple(votes), 0, together.support)
    state, reason = decide_together([alone[v].state for v in agreeing], views=len(alone), support=together.support)
    spread = torch.linalg.eigvalsh(together.covariance)[-1].sqrt()
    finding = replace(
        alone[closest],
        target_xy=tuple(together.place.tolist()),
        covariance=tuple(tuple(row) for row in together.covariance.tolist()),
        spread_px=float(spread),
        state=state,
        reason=f"{reason}; of {views[closest]}: {alone[closest].reason}",
    )
    return ViewsFinding(finding, tuple(votes), closest, together.support)


def _weight(finding: Finding, cycle: float) -> float:
    """1 for a view that knows nothing, up to 3 for one with a short cycle and a clear lead."""
    deviation = float(finding.similarity_map[finding.scored].std(correction=0))
    lead = finding.margin / deviation if deviation > 0 else 0.0
    limits = finding.limits
    return 1 + min(1.0, limits.cycle_found / max(cycle, 1e-9)) + min(1.0, lead / max(limits.lead, 1e-9))


def _meet(
    alone: Sequence[Finding], weights: Float[Tensor, " v"], patch_px: float, *, leave_out: int | None
) -> Consensus | None:
    kept = [v for v in range(len(alone)) if v != leave_out]
    if not kept:
        return None
    places = torch.tensor([alone[v].target_xy for v in kept], dtype=torch.float64)
    spreads = torch.tensor([alone[v].covariance for v in kept], dtype=torch.float64)
    return meet(places, spreads, weights[kept], radius=RADIUS * patch_px)
