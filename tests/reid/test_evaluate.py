"""Scores: hand-worked cases, and tracking scores against `trackeval`, the reference program."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from patchatlas.errors import InputError, ShapeError
from patchatlas.reid.boxes import Tracklet
from patchatlas.reid.evaluate import (
    co_visible_merges,
    purity,
    score_open_set,
    score_pairs,
    score_retrieval,
    score_tracking,
    true_identities,
)
from patchatlas.reid.motchallenge import MotRow
from patchatlas.reid.overlap import iou

MakeTracklet = Callable[..., Tracklet]


def row(frame: int, number: int, x: float, confidence: float = 1.0) -> MotRow:
    return MotRow(frame, number, (x, 0.0, x + 10, 20.0), confidence)


def noisy(seed: int) -> tuple[list[MotRow], list[MotRow]]:
    """Six people, some frames missed, some false boxes, identities that change now and then."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for frame in range(1, 41):
        for person in range(6):
            x = 40.0 * person + 3 * frame
            truth.append(row(frame, person + 1, x))
            if rng.random() < 0.85:
                number = person + 1 + (10 if frame > 20 and person % 2 else 0)
                found.append(row(frame, number, x + float(rng.normal(0, 2))))
        if rng.random() < 0.4:
            found.append(row(frame, 100 + frame, float(rng.uniform(400, 600))))
    return truth, found


def test_a_perfect_result() -> None:
    truth, _ = noisy(0)
    scores = score_tracking(truth, truth)
    assert (scores.hota, scores.idf1, scores.mota, scores.id_switches) == (1, 1, 1, 0)
    assert scores.true_boxes == scores.found_boxes == 240


def test_one_switch_by_hand() -> None:
    """One person, four frames, the identity changes halfway: half the boxes carry the better identity."""
    truth = [row(frame, 1, 0.0) for frame in (1, 2, 3, 4)]
    found = [row(frame, 1 if frame < 3 else 2, 0.0) for frame in (1, 2, 3, 4)]
    scores = score_tracking(truth, found)
    assert scores.idf1 == 0.5
    assert scores.id_switches == 1
    assert scores.mota == 0.75
    # HOTA: every box is found (DetA 1); each has 2 right, 2 missed, 0 false in its association (A = 2 / 4).
    assert scores.hota == pytest.approx(0.5**0.5)


def test_rows_marked_as_not_scored_are_not() -> None:
    truth = [row(1, 1, 0.0), row(1, 2, 100.0, confidence=0.0)]
    assert score_tracking(truth, [row(1, 5, 0.0)]).recall == 1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_tracking_scores_are_those_of_trackeval(seed: int) -> None:
    import trackeval

    truth, found = noisy(seed)
    frames = range(1, 41)
    numbers = {what: sorted({r.id for r in rows}) for what, rows in (("gt", truth), ("tracker", found))}
    data: dict[str, Any] = {"num_timesteps": len(frames), "gt_ids": [], "tracker_ids": [], "similarity_scores": []}
    for frame in frames:
        sides = {what: [r for r in rows if r.frame == frame] for what, rows in (("gt", truth), ("tracker", found))}
        for what, rows in sides.items():
            data[f"{what}_ids"].append(np.array([numbers[what].index(r.id) for r in rows], dtype=int))
        boxes = [torch.tensor([r.box for r in rows], dtype=torch.float64).reshape(-1, 4) for rows in sides.values()]
        data["similarity_scores"].append(iou(*boxes).numpy())
    for what, rows in (("gt", truth), ("tracker", found)):
        data[f"num_{what}_dets"], data[f"num_{what}_ids"] = len(rows), len(numbers[what])
    quiet = {"PRINT_CONFIG": False}
    hota = trackeval.metrics.HOTA().eval_sequence(data)
    clear = trackeval.metrics.CLEAR(quiet).eval_sequence(data)
    identity = trackeval.metrics.Identity(quiet).eval_sequence(data)
    scores = score_tracking(truth, found)
    assert 0 < scores.id_switches < 20
    assert scores.hota == pytest.approx(hota["HOTA"].mean(), abs=1e-9)
    assert scores.deta == pytest.approx(hota["DetA"].mean(), abs=1e-9)
    assert scores.assa == pytest.approx(hota["AssA"].mean(), abs=1e-9)
    assert scores.idf1 == pytest.approx(identity["IDF1"], abs=1e-9)
    assert scores.mota == pytest.approx(clear["MOTA"], abs=1e-9)
    assert scores.id_switches == clear["IDSW"]


def test_what_tracking_scores_refuse() -> None:
    with pytest.raises(InputError, match="no scored row"):
        score_tracking([row(1, 1, 0.0, confidence=0.0)], [])
    with pytest.raises(InputError, match="frame 1 of the result the id 4"):
        score_tracking([row(1, 1, 0.0)], [row(1, 4, 0.0), row(1, 4, 50.0)])


def test_a_result_without_boxes_scores_nothing() -> None:
    scores = score_tracking([row(1, 1, 0.0)], [])
    assert (scores.hota, scores.idf1, scores.mota, scores.found_boxes) == (0, 0, 0, 0)


def test_whom_a_tracklet_shows(tracklet: MakeTracklet) -> None:
    truth = [row(frame + 1, 5, 0.0) for frame in range(10)] + [row(frame + 1, 6, 100.0) for frame in range(10)]
    five = tracklet(1, range(10), (1, 0, 11, 20))
    neither = tracklet(2, range(10), (50, 0, 60, 20))
    mostly_six = tracklet(3, range(4, 10), (100, 0, 110, 20))
    half = tracklet(4, range(8, 12), (100, 0, 110, 20))  # two of its four frames have no truth: no majority
    assert true_identities(truth, [five, neither, mostly_six]) == [5, None, 6]
    assert true_identities(truth, [half]) == [None]


def test_a_true_box_stands_for_one_tracklet_only(tracklet: MakeTracklet) -> None:
    truth = [row(frame + 1, 5, 0.0) for frame in range(4)]
    assert true_identities(truth, [tracklet(1, range(4), (3, 0, 13, 20)), tracklet(2, range(4))]) == [None, 5]


def test_purity_by_hand() -> None:
    assert purity([1, 1, 1, 2], [7, 7, 8, 8]) == 0.75
    assert purity([7, 7, 8, 8], [1, 1, 1, 2]) == 0.75  # completeness: 2 of 2 and 1 of 2
    assert purity([1, 1], [7, 8], weights=[3.0, 1.0]) == 0.75
    with pytest.raises(ShapeError, match="2 found and 1 true"):
        purity([1, 1], [7])


def test_pairs_by_hand() -> None:
    # Together: 01, 02, 12; belong: 01, 23.
    scores = score_pairs([1, 1, 1, 2], [7, 7, 8, 8])
    assert (scores.precision, scores.recall) == (pytest.approx(1 / 3), 0.5)
    assert scores.f1 == pytest.approx(0.4)
    nothing = score_pairs([1, 2], [7, 8])
    assert (nothing.precision, nothing.recall, nothing.f1) == (None, None, None)
    missed = score_pairs([1, 2], [7, 7])
    assert (missed.precision, missed.recall, missed.f1) == (None, 0, 0)


def test_co_visible_merges(tracklet: MakeTracklet) -> None:
    """Defect 13: two people seen at once became one."""
    three = [tracklet(1, range(10)), tracklet(2, range(9, 20)), tracklet(3, range(10, 20))]
    assert co_visible_merges(three, {1: 1, 2: 1, 3: 1}, [5, 6, 7]) == [(1, 2), (2, 3)]
    assert co_visible_merges(three, {1: 1, 2: 1, 3: 1}, [5, 5, 5]) == []  # the same person twice in a frame
    assert co_visible_merges(three, {1: 1, 2: 2, 3: 1}, [5, 6, 7]) == []
    assert co_visible_merges(three, {1: 1}, [5, None, 7]) == []


def test_retrieval_by_hand() -> None:
    similarity = torch.tensor([[0.9, 0.8, 0.7, 0.1], [0.2, 0.9, 0.3, 0.4], [0.5, 0.5, 0.5, 0.5]], dtype=torch.float64)
    scores = score_retrieval(similarity, [1, 2, 9], [1, 3, 1, 2])
    # First: ranks 1 and 3, (1 + 2/3) / 2; second: rank 2, 1/2; nobody is like the third.
    assert scores.rank1 == 0.5
    assert scores.mean_ap == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert scores.queries == 2
    skip = torch.zeros(3, 4, dtype=torch.bool)
    skip[1, 1] = True
    assert score_retrieval(similarity, [1, 2, 9], [1, 3, 1, 2], skip=skip).rank1 == 1
    with pytest.raises(InputError, match="no query"):
        score_retrieval(similarity, [8, 8, 8], [1, 3, 1, 2])
    with pytest.raises(InputError, match="NaN"):
        score_retrieval(similarity * torch.nan, [1, 2, 9], [1, 3, 1, 2])
    with pytest.raises(ShapeError, match="do not fit"):
        score_retrieval(similarity, [1, 2], [1, 3, 1, 2])


def test_open_set_by_hand() -> None:
    similarity = torch.tensor([[0.9, 0.2], [0.6, 0.7], [0.8, 0.1], [0.3, 0.2]], dtype=torch.float64)
    # Known 1 found, known 1 takes the wrong one first; stranger accepted, stranger refused.
    scores = score_open_set(similarity, [1, 1, 8, 9], [1, 2], threshold=0.5)
    assert (scores.fpir, scores.fnir, scores.strangers, scores.known) == (0.5, 0.5, 2, 2)
    strict = score_open_set(similarity, [1, 1, 8, 9], [1, 2], threshold=0.95)
    assert (strict.fpir, strict.fnir) == (0, 1)
    empty = score_open_set(similarity[:, :0], [1, 1, 8, 9], [], threshold=0.5)
    assert empty.fpir == 0
    assert np.isnan(empty.fnir)
