"""How good identities are: HOTA, IDF1, MOTA and ID switches against the truth, purity, retrieval, open-set errors.

The tracking scores are computed by `trackers.eval`; tests hold them to `trackeval`, the reference program of
MOTChallenge. All shares run 0..1.

Axes: q queries, g gallery entries; n tracklets.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from patchatlas.errors import InputError, MissingExtraError, ShapeError
from patchatlas.reid.boxes import Tracklet
from patchatlas.reid.motchallenge import MotRow
from patchatlas.reid.overlap import iou

MATCH_IOU = 0.5
"""Overlap from which a box counts as found (MOT16, arXiv 1603.00831, section 4.1)."""


@dataclass(frozen=True)
class TrackingScores:
    """Scores of one sequence.

    Attributes:
        hota: higher order tracking accuracy (Luiten et al., arXiv 2009.07736), mean over overlaps 0.05 to 0.95.
        deta: its detection part.
        assa: its association part.
        idf1: share of boxes that carry the right identity (Ristani et al., arXiv 1609.01775).
        mota: 1 - (missed + false + switches) / true boxes; may be negative (Bernardin and Stiefelhagen, 2008).
        precision: share of found boxes that are true ones.
        recall: share of true boxes that are found.
        id_switches: times a true object changes its identity.
        true_boxes: boxes of the truth that are scored.
        found_boxes: boxes of the result.
    """

    hota: float
    deta: float
    assa: float
    idf1: float
    mota: float
    precision: float
    recall: float
    id_switches: int
    true_boxes: int
    found_boxes: int


@dataclass(frozen=True)
class PairScores:
    """How well tracklets are put together, over all pairs of them.

    Attributes:
        precision: share of pairs put together that belong together; `None` where none was put together.
        recall: share of pairs that belong together that were put together; `None` where none belongs together.
        f1: harmonic mean of both; `None` where both are.
    """

    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class RetrievalScores:
    """Ranking of a gallery for queries whose identity it holds.

    Attributes:
        rank1: share of queries whose best entry is right.
        mean_ap: mean average precision.
        queries: how many queries count: those with at least one right entry.
    """

    rank1: float
    mean_ap: float
    queries: int


@dataclass(frozen=True)
class OpenSetScores:
    """Errors of a gallery that is also asked for strangers, at one threshold (ISO/IEC 19795-1; NIST IR 8271).

    Attributes:
        fpir: share of strangers for whom the gallery names somebody.
        fnir: share of known ones for whom it does not name the right one first.
        strangers: queries without an entry.
        known: queries with one.
    """

    fpir: float
    fnir: float
    strangers: int
    known: int


def score_tracking(truth: Sequence[MotRow], found: Sequence[MotRow]) -> TrackingScores:
    """Scores of `found` against `truth`, by IoU of boxes frame by frame.

    Args:
        truth: rows with confidence 0 are not scored.
        found: rows of the result; each id at most once a frame.

    Raises:
        InputError: there is no scored truth, or an id occurs twice in a frame.
        MissingExtraError: `trackers` is not installed.
    """
    try:
        from trackers.eval import compute_clear_metrics, compute_hota_metrics, compute_identity_metrics
    except ImportError as error:
        raise MissingExtraError("trackers", extra="reid", needed_for="scoring tracks") from error
    true, given = _by_frame([row for row in truth if row.confidence != 0], "truth"), _by_frame(found, "result")
    if not true:
        raise InputError("the truth has no scored row (confidence 0 marks rows that are not scored)")
    true_index, given_index = _numbered(true), _numbered(given)
    true_ids, given_ids, overlaps = [], [], []
    for frame in sorted(true.keys() | given.keys()):
        there, here = true.get(frame, []), given.get(frame, [])
        true_ids.append(np.array([true_index[row.id] for row in there], dtype=int))
        given_ids.append(np.array([given_index[row.id] for row in here], dtype=int))
        overlaps.append(_overlaps(there, here).numpy())
    clear = compute_clear_metrics(true_ids, given_ids, overlaps, threshold=MATCH_IOU)
    identity = compute_identity_metrics(true_ids, given_ids, overlaps, threshold=MATCH_IOU)
    hota = compute_hota_metrics(true_ids, given_ids, overlaps)
    return TrackingScores(
        hota=float(hota["HOTA"]),
        deta=float(hota["DetA"]),
        assa=float(hota["AssA"]),
        idf1=float(identity["IDF1"]),
        mota=float(clear["MOTA"]),
        precision=float(clear["CLR_Pr"]),
        recall=float(clear["CLR_Re"]),
        id_switches=int(clear["IDSW"]),
        true_boxes=sum(map(len, true.values())),
        found_boxes=sum(map(len, given.values())),
    )


def true_identities(truth: Sequence[MotRow], tracklets: Sequence[Tracklet]) -> list[int | None]:
    """Whom each tracklet shows: the identity that most of its boxes overlap, None where that is nobody.

    Boxes and truth are matched one to one in each frame, by the largest sum of IoU, at `MATCH_IOU` or more.
    """
    true = _by_frame(truth, "truth")
    boxes: dict[int, list[tuple[int, MotRow]]] = defaultdict(list)
    for index, tracklet in enumerate(tracklets):
        for seen in tracklet.observations:
            boxes[seen.frame + 1].append((index, MotRow(seen.frame + 1, index, seen.box)))
    votes: list[Counter[int]] = [Counter() for _ in tracklets]
    for frame, entries in boxes.items():
        there = true.get(frame, [])
        overlap = _overlaps(there, [row for _, row in entries]).numpy()
        pairs = linear_sum_assignment(np.where(overlap >= MATCH_IOU, overlap, 0), maximize=True)
        for row, column in zip(*pairs, strict=True):
            if overlap[row, column] >= MATCH_IOU:
                votes[entries[column][0]][there[row].id] += 1
    majority = []
    for tracklet, counted in zip(tracklets, votes, strict=True):
        best = min(counted, key=lambda identity: (-counted[identity], identity), default=None)
        majority.append(best if best is not None and 2 * counted[best] > len(tracklet.observations) else None)
    return majority


def purity(found: Sequence[int], truth: Sequence[int], *, weights: Sequence[float] | None = None) -> float:
    """Share of tracklets that belong to the most frequent true identity of the identity they were given.

    Exchanging the two lists gives the share that belong to the identity most frequent for their true one
    (completeness).

    Args:
        found: identity given to each tracklet.
        truth: true identity of each.
        weights: what each counts, such as its boxes; all alike without it.

    Raises:
        ShapeError: the lists differ in length or are empty.
    """
    _same_length(found, truth)
    shares: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    counts = [1.0] * len(found) if weights is None else list(weights)
    for given, true, count in zip(found, truth, counts, strict=True):
        shares[given][true] += count
    return sum(max(counted.values()) for counted in shares.values()) / sum(counts)


def score_pairs(found: Sequence[int], truth: Sequence[int]) -> PairScores:
    """Precision, recall and F1 over all pairs of tracklets.

    Raises:
        ShapeError: the lists differ in length or are empty.
    """
    _same_length(found, truth)
    pairs = list(combinations(range(len(found)), 2))
    together = {pair for pair in pairs if found[pair[0]] == found[pair[1]]}
    belong = {pair for pair in pairs if truth[pair[0]] == truth[pair[1]]}
    right = len(together & belong)
    return PairScores(
        precision=right / len(together) if together else None,
        recall=right / len(belong) if belong else None,
        f1=2 * right / (len(together) + len(belong)) if together or belong else None,
    )


def co_visible_merges(
    tracklets: Sequence[Tracklet], identities: Mapping[int, int], truth: Sequence[int | None]
) -> list[tuple[int, int]]:
    """Pairs of tracklets that were made one identity although they show different people in one and the same frame.

    Args:
        tracklets: all of them.
        identities: identity of each tracklet, by its id; those without one are absent.
        truth: whom each tracklet shows, from `true_identities`.

    Returns:
        The ids of the two tracklets of each pair.
    """
    frames = [{seen.frame for seen in tracklet.observations} for tracklet in tracklets]
    merged = []
    for one, other in combinations(range(len(tracklets)), 2):
        ids = (tracklets[one].id, tracklets[other].id)
        together = ids[0] in identities and identities[ids[0]] == identities.get(ids[1])
        differ = truth[one] is not None and truth[other] is not None and truth[one] != truth[other]
        if together and differ and frames[one] & frames[other]:
            merged.append(ids)
    return merged


def score_retrieval(
    similarity: Float[Tensor, "q g"],
    query_ids: Sequence[int],
    gallery_ids: Sequence[int],
    *,
    skip: Bool[Tensor, "q g"] | None = None,
) -> RetrievalScores:
    """Rank-1 and mean average precision, as for Market-1501 (Zheng et al., ICCV 2015): the mean, over the right
    entries, of the precision at their rank.

    Args:
        similarity: larger is more alike; of equals the first entry ranks first.
        query_ids: identity of each query.
        gallery_ids: identity of each entry.
        skip: entries that do not count for a query, such as itself or its own camera.

    Raises:
        ShapeError: identities do not fit the table.
        InputError: a similarity is NaN, or no query has a right entry.
    """
    q, g = similarity.shape
    if len(query_ids) != q or len(gallery_ids) != g:
        raise ShapeError(f"{len(query_ids)} queries and {len(gallery_ids)} entries do not fit a table of {q} x {g}")
    if bool(similarity.isnan().any()):
        raise InputError("a similarity is NaN; leave out rows that could not be embedded")
    firsts, precisions = [], []
    for row in range(q):
        order = torch.argsort(similarity[row], descending=True, stable=True).tolist()
        ranked = [gallery_ids[k] == query_ids[row] for k in order if skip is None or not bool(skip[row, k])]
        ranks = [rank for rank, right in enumerate(ranked, start=1) if right]
        if ranks:
            firsts.append(ranks[0] == 1)
            precisions.append(sum(found / rank for found, rank in enumerate(ranks, start=1)) / len(ranks))
    if not firsts:
        raise InputError("no query has a right entry in the gallery; retrieval cannot be scored")
    return RetrievalScores(sum(firsts) / len(firsts), sum(precisions) / len(precisions), len(firsts))


def score_open_set(
    similarity: Float[Tensor, "q g"], query_ids: Sequence[int], gallery_ids: Sequence[int], *, threshold: float
) -> OpenSetScores:
    """False positive and false negative identification rates when the best entry is named from `threshold` on.

    A rate over no queries at all is NaN.

    Raises:
        ShapeError: identities do not fit the table.
    """
    q, g = similarity.shape
    if len(query_ids) != q or len(gallery_ids) != g:
        raise ShapeError(f"{len(query_ids)} queries and {len(gallery_ids)} entries do not fit a table of {q} x {g}")
    named, missed, strangers, known = 0, 0, 0, 0
    for row, identity in enumerate(query_ids):
        best = int(similarity[row].argmax()) if g else 0
        accepted = g > 0 and float(similarity[row, best]) >= threshold
        if identity in gallery_ids:
            known += 1
            missed += not (accepted and gallery_ids[best] == identity)
        else:
            strangers += 1
            named += accepted
    return OpenSetScores(
        fpir=named / strangers if strangers else float("nan"),
        fnir=missed / known if known else float("nan"),
        strangers=strangers,
        known=known,
    )


def _by_frame(rows: Sequence[MotRow], what: str) -> dict[int, list[MotRow]]:
    frames: dict[int, list[MotRow]] = defaultdict(list)
    for row in rows:
        frames[row.frame].append(row)
    for frame, entries in frames.items():
        doubled = [identity for identity, count in Counter(row.id for row in entries).items() if count > 1]
        if doubled:
            raise InputError(f"in frame {frame} of the {what} the id {doubled[0]} has several boxes; an id has one")
    return frames


def _numbered(frames: Mapping[int, Sequence[MotRow]]) -> dict[int, int]:
    """Ids as 0, 1, ... in order, as the scoring functions want them."""
    return {identity: k for k, identity in enumerate(sorted({row.id for rows in frames.values() for row in rows}))}


def _overlaps(one: Sequence[MotRow], other: Sequence[MotRow]) -> Float[Tensor, "n m"]:
    first, second = (
        torch.tensor([row.box for row in rows], dtype=torch.float64).reshape(-1, 4) for rows in (one, other)
    )
    return iou(first, second)


def _same_length(found: Sequence[int], truth: Sequence[int]) -> None:
    if len(found) != len(truth) or not found:
        raise ShapeError(
            f"{len(found)} found and {len(truth)} true identities; give one of each a tracklet, at least one"
        )
