"""Several views of one landmark: they meet, and one that is wrong is left out and named."""

import math
import statistics
from dataclasses import replace

import pytest
import torch

from patchatlas.dense import encode
from patchatlas.errors import ShapeError
from patchatlas.features import FeatureMap
from patchatlas.locate.search import locate_points
from patchatlas.locate.views import ViewsFinding, locate_from_views, meet_views
from patchatlas.matching.confidence import Cues
from tests.locate.test_search import CellEncoder, clouds
from tests.matching.test_confidence import CALIBRATION

SHIFTS = [(8, 0), (16, 8), (0, 16), (24, 24)]
MARK = (60.0, 60.0)  # in the target; the centre of a patch


def scene_views(*, wrong: int | None = None) -> tuple[list[FeatureMap], torch.Tensor, FeatureMap]:
    """Cuts of one scene, each whole patches away from the target; view `wrong` has its mark 40 px too far right."""
    scene, encoder = clouds(160, 160, seed=7), CellEncoder((8, 8))
    target = encode(scene[:, 24:152, 24:152].contiguous(), encoder)
    maps, points = [], []
    for v, (dx, dy) in enumerate(SHIFTS):
        maps.append(encode(scene[:, 24 - dy : 152 - dy, 24 - dx : 152 - dx].contiguous(), encoder))
        points.append((MARK[0] + dx + 40 * (v == wrong), MARK[1] + dy))
    return maps, torch.tensor(points, dtype=torch.float64), target


def located(maps: list[FeatureMap], points: torch.Tensor, target: FeatureMap) -> ViewsFinding:
    names = [f"{v}.jpg" for v in range(len(maps))]
    return locate_from_views(maps, points, target, views=names, uuid="m", image_size=128, calibration=CALIBRATION)


def test_views_that_agree_meet() -> None:
    found = located(*scene_views())
    assert [v // 8 for v in found.finding.target_xy] == [7, 7]
    assert found.finding.state == "found"
    assert found.support == 1
    assert "4 of 4 views agree" in found.finding.reason
    assert all(vote.agrees for vote in found.votes)
    assert (found.finding.cues.views, found.finding.cues.agreement) == (4, 1)
    assert found.finding.confidence == CALIBRATION.probability(found.finding.cues)
    assert found.finding.confidence > max(vote.confidence for vote in found.votes)
    assert max(vote.error_px or 0 for vote in found.votes) < 8


def test_a_wrong_view_is_left_out_and_named() -> None:
    right, wrong = located(*scene_views()), located(*scene_views(wrong=2))
    maps, points, target = scene_views()
    agreeing = [(maps[v], target, points[v : v + 1]) for v in (0, 1, 3)]
    assert [vote.agrees for vote in wrong.votes] == [True, True, False, True]
    assert math.dist(wrong.finding.target_xy, right.finding.target_xy) < 4
    assert wrong.votes[2].error_px == pytest.approx(40, abs=8)
    assert wrong.votes[2].without_xy == pytest.approx(wrong.finding.target_xy)
    assert wrong.support < 1
    assert (wrong.finding.cues.views, wrong.finding.cues.agreement) == (3, wrong.support)
    assert wrong.finding.cues.lead == statistics.median(
        locate_points(*pair, uuids=["m"], image_size=128)[0].cues.lead for pair in agreeing
    )
    assert wrong.finding.state == "found"


def test_cues_of_views_that_agree_are_their_medians() -> None:
    """The third is the middle of three, not the mean: one view that is far too sure of itself does not decide."""
    maps, points, target = scene_views()
    alone = [locate_points(maps[v], target, points[v : v + 1], uuids=["m"], image_size=128)[0] for v in range(3)]
    given = [Cues(lead=9.0, cycle=0.1, entropy=0.2), Cues(lead=1.0, cycle=0.2, entropy=0.9)]
    given.append(Cues(lead=2.0, cycle=0.9, entropy=0.4))
    met = meet_views([replace(f, cues=c) for f, c in zip(alone, given, strict=True)], views=["a", "b", "c"])
    assert met.finding.cues == Cues(lead=2.0, cycle=0.2, entropy=0.4, views=3, agreement=1.0)
    given[1] = replace(given[1], lead=None)
    met = meet_views([replace(f, cues=c) for f, c in zip(alone, given, strict=True)], views=["a", "b", "c"])
    assert met.finding.cues.lead == 5.5


def test_one_view_is_the_plain_answer() -> None:
    maps, points, target = scene_views()
    (plain,) = locate_points(maps[0], target, points[:1], uuids=["m"], image_size=128, calibration=CALIBRATION)
    found = located(maps[:1], points[:1], target)
    assert (found.finding.target_xy, found.finding.state, found.finding.reason) == (
        plain.target_xy,
        plain.state,
        plain.reason,
    )
    assert (found.votes[0].without_xy, found.votes[0].error_px) == (None, None)


def test_views_of_something_else_are_not_found() -> None:
    encoder = CellEncoder((8, 8))
    maps = [encode(clouds(128, 128, seed=20 + v), encoder) for v in range(3)]
    target = encode(clouds(128, 128, seed=50), encoder)
    assert located(maps, torch.full((3, 2), 60.0, dtype=torch.float64), target).finding.state != "found"


def test_json_tells_every_vote() -> None:
    stored = located(*scene_views(wrong=1)).to_json(target="t.jpg")
    assert [vote["view"] for vote in stored["views"]] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert stored["source"] in {"0.jpg", "2.jpg", "3.jpg"}
    assert [vote["agrees"] for vote in stored["views"]] == [True, False, True, True]
    assert 0 < stored["support"] < 1


def test_nothing_to_go_by_is_refused() -> None:
    maps, points, target = scene_views()
    with pytest.raises(ShapeError, match="at least one view"):
        located([], points[:0], target)
    with pytest.raises(ShapeError, match="3 maps, 4 points"):
        located(maps[:3], points, target)
