"""Where each reference puts the landmarks: a smooth map to the target, from marks that are known or likely there.

A map is believed if the target bears it out: the landmarks that it was not fitted to, and each of the others by the map
without it, must look like what is where it puts them. Of several references the one with the most evidence is believed
first, and the others must agree with it too.

Axes: k landmarks, r references, q landmarks that one map says something of, n patches of the target. Points are (x, y)
in the source plane of their own picture.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from patchatlas.locate.candidates import Looks
from patchatlas.locate.placement import ReferencePrior
from patchatlas.locate.reference import Reference
from patchatlas.locate.result import Point
from patchatlas.matching.belief import PER_DEVIATION
from patchatlas.matching.prior import LEAST, Prior, fit_prior

EVIDENCE = 10.0
"""Nats that the first map must have for it. It is the best of thousands that were tried: among marks at random places
some get up to 10, right maps mostly above 20. Between 3 and 10 hardly anything changes on development cases."""

AGREEMENT = 3.0
"""Nats that a map must have for it once another is believed: then it has to agree with that as well."""

PROPOSED = 10.0
"""Sets of marks as large that may be expected to agree by chance where a map is only proposed: the target decides."""

FEWEST = min(LEAST.values())

ENOUGH = 0.75
"""Part of a reference's marks that agree on a map beside which no other is looked for."""


@dataclass(frozen=True)
class Anchor:
    """A mark of the target that maps are fitted to.

    Attributes:
        uuid: whose.
        target_xy: where.
        sure: it was marked there, not found.
        likely: it is likelier there than anywhere else, or nowhere.
    """

    uuid: str
    target_xy: Point
    sure: bool
    likely: bool


@dataclass(frozen=True, eq=False)
class Expectation:
    """What the believed maps say.

    Attributes:
        predicted: where each reference puts each landmark, by a map that does not rest on the landmark's own place; NaN
            where it has no such mark, or no map.
        deviation: of a place about the prediction, along each axis, in target pixels; NaN likewise.
        priors: one a reference, believed or not.
    """

    predicted: Float64[Tensor, "k r 2"]
    deviation: Float64[Tensor, "k r"]
    priors: tuple[ReferencePrior, ...]

    @classmethod
    def nothing(cls, landmarks: int, references: int) -> "Expectation":
        """No map."""
        blank = torch.full((landmarks, references, 2), torch.nan, dtype=torch.float64)
        return Expectation(blank, blank[:, :, 0].clone(), ())

    def surest(self, landmark: int) -> tuple[int, Point, float] | None:
        """The reference that is surest of a landmark, where it puts it, and the deviation."""
        deviation = self.deviation[landmark].nan_to_num(torch.inf)
        r = int(deviation.argmin())
        if deviation[r] == torch.inf:
            return None
        return r, tuple(self.predicted[landmark, r].tolist()), float(deviation[r])


def expect(
    references: Sequence[Reference], anchors: Sequence[Anchor], uuids: Sequence[str], looks: Looks, *, tolerance: float
) -> Expectation:
    """Fit a map from each reference, and believe those that the target bears out.

    A reference's map is fitted to its likely marks. Unless most of all its marks agree with that, another is fitted to
    all; the target decides. (Maps to the second and third best places of each as well found no more.)

    Args:
        references: at least one.
        anchors: marks of the target, each once.
        uuids: the landmarks that are looked for.
        looks: how like them the patches of the target are.
        tolerance: how far a right match may be off by itself, in target pixels.
    """
    row = {uuid: k for k, uuid in enumerate(uuids)}
    expected = Expectation.nothing(len(uuids), len(references))
    proposed = {r: _propose(r, one, anchors, row, tolerance=tolerance) for r, one in enumerate(references)}
    alone = {
        r: max((one.sure, evidence(looks, one, given=expected)) for one in maps) for r, maps in proposed.items() if maps
    }
    priors = [_unfitted(one, anchors) for one in references]
    believed = 0
    for r in sorted(alone, key=lambda r: alone[r], reverse=True):
        weighed = ((evidence(looks, one, given=expected), one) for one in proposed[r])
        nats, best = max(weighed, key=lambda pair: (pair[1].sure, pair[0]))
        enough = best.sure or nats >= (AGREEMENT if believed else EVIDENCE)
        priors[r] = best.report(references[r].name, nats, believed=enough)
        if enough:
            believed += 1
            expected.predicted[best.rows, r], expected.deviation[best.rows, r] = best.predicted, best.deviation
    return Expectation(expected.predicted, expected.deviation, tuple(priors))


@dataclass(frozen=True, eq=False)
class Proposal:
    """A map from one reference, and what it says of the landmarks that are looked for.

    Attributes:
        reference: its number.
        prior: the map.
        agreeing: marks that agree with it.
        marks: of the reference, that are known or looked for.
        rows: numbers of the landmarks.
        predicted: where it puts them, each without the help of its own place.
        deviation: of a place about the prediction, along each axis, in target pixels.
        sure: it agrees with most of the marks that are known, and those alone would be enough to fit it: then it needs
            no evidence.
    """

    reference: int
    prior: Prior
    agreeing: int
    marks: int
    sure: bool
    rows: Int64[Tensor, " q"]
    predicted: Float64[Tensor, "q 2"]
    deviation: Float64[Tensor, " q"]

    def report(self, name: str, nats: float, *, believed: bool) -> ReferencePrior:
        """What became of it."""
        said = (
            f"{self.prior.kind} map that {self.agreeing} of {self.marks} marks agree on to {self.prior.error_px:.1f} px"
        )
        if believed:
            return ReferencePrior(name, self.prior, self.agreeing, self.marks, f"{said} (evidence {nats:.1f} nats)")
        return ReferencePrior(name, None, 0, self.marks, f"the target does not bear out the {said} ({nats:.1f} nats)")


def evidence(looks: Looks, proposal: Proposal, *, given: Expectation) -> float:
    """By how many nats a map makes the likenesses likelier than no map does (a log Bayes factor).

    A landmark adds what the map says of the places that its appearance, and the maps that are believed already, point
    to; if they point to none above others, or to its being absent, it adds next to nothing.

    Args:
        looks: of the landmarks.
        proposal: the map.
        given: the maps that are believed already.
    """
    total, closed = 0.0, ~looks.scored.flatten()
    for some in looks.chunks(len(proposal.rows)):
        rows = proposal.rows[some]
        before = looks.density(given.predicted[rows], given.deviation[rows]).flatten(1)
        score = (PER_DEVIATION * looks.likeness[rows] + before.log()).masked_fill(closed, -torch.inf)
        belief = torch.softmax(torch.cat([score, torch.full_like(score[:, :1], looks.nowhere)], dim=1), dim=1)
        density = looks.density(proposal.predicted[some, None], proposal.deviation[some, None]).flatten(1)
        total += float(((belief[:, :-1] * density).sum(dim=1) + belief[:, -1]).log().sum())
    return total


def _propose(
    r: int, reference: Reference, anchors: Sequence[Anchor], row: Mapping[str, int], *, tolerance: float
) -> list[Proposal]:
    at = dict(zip(reference.uuids, reference.points_source.double(), strict=True))
    mine = [anchor for anchor in anchors if anchor.uuid in at]
    wanted = [uuid for uuid in reference.uuids if uuid in row]
    known = sum(anchor.sure for anchor in mine)
    if not wanted:
        return []
    points, rows = torch.stack([at[uuid] for uuid in wanted]), torch.tensor([row[uuid] for uuid in wanted])
    proposals: list[Proposal] = []
    for matches in ([anchor for anchor in mine if anchor.likely], mine):
        if len(matches) < FEWEST:
            continue
        source = torch.stack([at[anchor.uuid] for anchor in matches])
        target = torch.tensor([anchor.target_xy for anchor in matches], dtype=torch.float64)
        sure = torch.tensor([anchor.sure for anchor in matches])
        prior = fit_prior(source, target, tolerance=tolerance, sure=sure, chance=PROPOSED)
        if prior is None:
            continue
        predicted, deviation = prior.predict(points), prior.deviations(points)
        match_of = {anchor.uuid: m for m, anchor in enumerate(matches)}
        for n, uuid in enumerate(wanted):
            if uuid in match_of:
                predicted[n] = prior.held_out[match_of[uuid]]
        agreeing, agree = int(prior.inliers.sum()), int((sure & prior.inliers).sum())
        certain = agree >= LEAST[prior.kind] and 2 * agree > known
        proposals.append(Proposal(r, prior, agreeing, len(mine), certain, rows, predicted, deviation))
        if agreeing >= ENOUGH * len(mine):
            break
    return proposals


def _unfitted(reference: Reference, anchors: Sequence[Anchor]) -> ReferencePrior:
    marks = sum(anchor.uuid in reference.uuids for anchor in anchors)
    if marks < FEWEST:
        reason = f"{marks} of its marks are known in the target or looked for; a map needs {FEWEST}"
    else:
        reason = f"no more of its {marks} marks agree on a map than would by chance"
    return ReferencePrior(reference.name, None, 0, marks, reason)
