"""Landmarks that are located together: what cannot be told by appearance is told by the others, and masks hold."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.locate.sets import case
from patchatlas.dense import encode
from patchatlas.encoders import sift
from patchatlas.errors import LandmarkError, ShapeError
from patchatlas.features import FeatureMap
from patchatlas.locate import candidates
from patchatlas.locate.placement import Placement, Together
from patchatlas.locate.reference import Reference
from patchatlas.locate.search import locate_points
from patchatlas.locate.together import locate_together
from tests.locate.planted import CALIBRATION, PATCH, SIDE, Cell, centre, planted, reference

CELLS: dict[str, Cell] = {
    "a": (4, 4),
    "b": (12, 3),
    "c": (18, 6),
    "d": (5, 11),
    "e": (11, 12),
    "f": (18, 13),
    "g": (6, 18),
    "h": (13, 19),
}
"""Landmarks of the reference."""

SHIFT = (2, 1)
"""Cells that everything moves by on its way to the target."""


def moved(cell: Cell) -> Cell:
    return cell[0] + SHIFT[0], cell[1] + SHIFT[1]


def target_of(
    cells: Mapping[str, Cell], *, changed: Mapping[Cell, Mapping[str, float]] | None = None, weight: float = 0.9
) -> FeatureMap:
    """The landmarks where they should be, but for the cells that are changed."""
    shown: dict[Cell, Mapping[str, float]] = {moved(cell): {uuid: weight} for uuid, cell in cells.items()}
    return planted({**shown, **(changed or {})}, seed=99)


def together(references: list[Reference], target: FeatureMap, **options: object) -> Together:
    return locate_together(
        references,
        target,
        image_size=SIDE * PATCH,
        **{"calibration": CALIBRATION, **options},  # type: ignore[arg-type]
    )


def by_uuid(found: Together) -> dict[str, Placement]:
    return {placement.uuid: placement for placement in found.placements}


def cell_of(placement: Placement) -> Cell:
    return int(placement.target_xy[0] // PATCH), int(placement.target_xy[1] // PATCH)


def test_all_are_found_where_they_went_in_the_order_of_the_references() -> None:
    found = together([reference("r", CELLS, seed=1)], target_of(CELLS))
    assert [placement.uuid for placement in found.placements] == list(CELLS)
    for placement in found.placements:
        assert cell_of(placement) == moved(CELLS[placement.uuid])
        assert (placement.state, placement.rank, placement.taken_by) == ("found", 0, None)
        assert placement.moved_by == pytest.approx(0, abs=1e-6)
        assert placement.predicted_xy is not None
        assert placement.predicted_xy == pytest.approx(centre(moved(CELLS[placement.uuid])), abs=4)
        assert placement.prior_px == pytest.approx(math.dist(placement.predicted_xy, placement.target_xy))
        assert placement.cues.residual == pytest.approx(placement.prior_px / (placement.prior_sigma_px or 0))
    (prior,) = found.priors
    assert prior.prior is not None
    assert (prior.prior.kind, prior.agreeing, prior.marks) == ("similarity", 8, 8)
    assert "similarity map that 8 of 8 marks agree on" in prior.reason


def test_the_one_that_looks_better_elsewhere_is_put_where_the_others_say() -> None:
    """Cell (20, 20) looks more like e than e's own place does."""
    target = target_of(CELLS, changed={moved(CELLS["e"]): {"e": 0.75}, (20, 20): {"e": 0.85}})
    found = by_uuid(together([reference("r", CELLS, seed=1)], target))["e"]
    assert cell_of(found) == moved(CELLS["e"])
    assert found.rank == 1
    assert found.moved_by == pytest.approx(math.dist(found.target_xy, found.views.finding.target_xy))
    assert found.moved_by > 40
    assert found.cues.lead is not None
    assert found.cues.lead < 0
    assert found.cues.cycle < 1


def test_a_place_that_was_not_even_a_runner_up_can_win() -> None:
    decoys: dict[Cell, Mapping[str, float]] = {
        cell: {"e": 0.7} for cell in ((1, 1), (1, 10), (1, 22), (22, 2), (22, 12), (22, 22))
    }
    target = target_of(CELLS, changed={moved(CELLS["e"]): {"e": 0.6}, **decoys})
    found = by_uuid(together([reference("r", CELLS, seed=1)], target))["e"]
    assert cell_of(found) == moved(CELLS["e"])
    assert found.rank == 1 + len(found.views.finding.runners_up) == 5


def test_no_two_get_the_same_place() -> None:
    """Without a prior: y is not in the target, and of the five patches that are allowed it looks most like x's."""
    cells = {"x": (6, 6), "y": (15, 15)}
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[10, 8:13] = True
    target = planted({(10, 10): {"x": 0.9, "y": 0.4}}, seed=5)
    found = by_uuid(together([reference("r", cells, seed=1)], target, target_mask=mask))
    assert (cell_of(found["x"]), found["x"].taken_by) == ((10, 10), None)
    assert (cell_of(found["y"]), found["y"].taken_by) == ((10, 10), "x")
    assert found["y"].state != "found"
    assert not found["y"].identity_safe
    assert found["y"].confidence <= 1 - found["x"].confidence
    assert "given to x" in found["y"].reason
    assert (found["y"].state, found["x"].gap_px) == ("absent", None)  # what is absent is near nothing

    trusting = replace(CALIBRATION, base=20.0)  # it takes every place for right
    found = by_uuid(together([reference("r", cells, seed=1)], target, target_mask=mask, calibration=trusting))
    assert found["x"].confidence > 0.99
    assert found["y"].confidence < 0.01


def test_who_does_not_get_the_best_place_gets_the_next() -> None:
    cells = {"x": (6, 6), "y": (15, 15)}
    target = planted({(10, 10): {"x": 0.8, "y": 0.6}, (18, 12): {"y": 0.45}}, seed=5)
    found = by_uuid(together([reference("r", cells, seed=1)], target))
    assert (cell_of(found["x"]), cell_of(found["y"])) == ((10, 10), (18, 12))
    assert (found["y"].rank, found["y"].taken_by) == (1, None)


def test_twins_side_by_side_stay_apart() -> None:
    """One patch apart, each where it looks most like itself, though not by much."""
    cells = {**CELLS, "p": (14, 9), "q": (15, 9)}
    twins = {moved(cells["p"]): {"p": 0.8, "q": 0.5}, moved(cells["q"]): {"p": 0.5, "q": 0.8}}
    source = reference("r", cells, seed=1)
    found = by_uuid(together([source], target_of(cells, changed=twins)))
    assert (cell_of(found["p"]), cell_of(found["q"])) == (moved(cells["p"]), moved(cells["q"]))
    assert found["p"].taken_by is found["q"].taken_by is None
    assert found["p"].gap_px == pytest.approx(math.dist(found["p"].target_xy, found["q"].target_xy))
    assert found["p"].identity_safe  # the prior alone tells them apart
    (_, few) = together([reference("r", {uuid: cells[uuid] for uuid in "gp"}, seed=1)], target_of(cells)).placements
    assert few.identity_safe
    two = by_uuid(together([reference("r", {u: cells[u] for u in "pq"}, seed=1)], target_of(cells, changed=twins)))
    assert two["p"].gap_px == pytest.approx(found["p"].gap_px)
    assert two["p"].spread_px > two["p"].gap_px / 2
    assert not two["p"].identity_safe


def test_twins_that_look_alike_take_one_place_each() -> None:
    """Two equal marks 6 patches apart in a target where both look more like p: q, too, must go to its own."""
    cells = {**CELLS, "p": (14, 9), "q": (20, 9)}
    twins = {moved(cells["p"]): {"p": 0.8, "q": 0.55}, moved(cells["q"]): {"p": 0.6, "q": 0.5}}
    found = by_uuid(together([reference("r", cells, seed=1)], target_of(cells, changed=twins)))
    assert (cell_of(found["p"]), cell_of(found["q"])) == (moved(cells["p"]), moved(cells["q"]))


def test_fewer_than_three_marks_give_no_prior_and_say_so() -> None:
    cells = {uuid: CELLS[uuid] for uuid in "ab"}
    found = together([reference("r", cells, seed=1)], target_of(cells))
    assert found.priors[0].prior is None
    assert found.priors[0].reason == "2 of its marks are known in the target or looked for; a map needs 3"
    for placement in found.placements:
        assert (placement.predicted_xy, placement.prior_px, placement.prior_sigma_px) == (None, None, None)
        assert placement.cues.residual is None
        assert cell_of(placement) == moved(CELLS[placement.uuid])


def test_known_marks_lead_the_way_and_keep_their_places() -> None:
    """Nothing but e is looked for, and it looks like three places; e's second best is that of the known mark a."""
    known = {uuid: centre(moved(CELLS[uuid])) for uuid in "abcd"}
    changed = {moved(CELLS["e"]): {"e": 0.6}, moved(CELLS["a"]): {"e": 0.7}, (20, 20): {"e": 0.75}}
    cells = {uuid: CELLS[uuid] for uuid in "abcde"}
    found = together([reference("r", cells, seed=1)], target_of(cells, changed=changed), known=known)
    assert [placement.uuid for placement in found.placements] == ["e"]
    assert cell_of(found.placements[0]) == moved(CELLS["e"])
    assert found.priors[0].prior is not None

    alone = reference("r", {uuid: CELLS[uuid] for uuid in "ae"}, seed=1)
    target = target_of(cells, changed={moved(CELLS["e"]): {}, moved(CELLS["a"]): {"e": 0.8}})
    (left,) = together([alone], target, known={"a": known["a"]}).placements
    assert left.state != "found"
    assert left.taken_by in ("a", None)
    if left.taken_by is None:
        assert math.dist(left.target_xy, known["a"]) > PATCH


def test_an_absent_landmark_is_not_found() -> None:
    cells = {**CELLS, "gone": (15, 16)}
    found = by_uuid(together([reference("r", cells, seed=1)], target_of(cells, changed={moved(cells["gone"]): {}})))
    assert found["gone"].state != "found"
    assert {found[uuid].state for uuid in CELLS} == {"found"}


def test_several_references_vote_and_a_blind_one_does_not_hurt() -> None:
    """The second reference sees e as something else altogether, and does not know h."""
    blind = reference("blind", {uuid: cell for uuid, cell in CELLS.items() if uuid != "h"}, seed=2)
    tokens = blind.map.tokens.clone()
    column, row = CELLS["e"]
    tokens[row * SIDE + column] = planted({}, seed=77).tokens[0]
    blind = Reference("blind", replace(blind.map, tokens=tokens), blind.uuids, blind.points_source)
    found = by_uuid(together([blind, reference("r", CELLS, seed=1)], target_of(CELLS)))
    assert list(found) == list(CELLS)
    assert cell_of(found["e"]) == moved(CELLS["e"])
    assert [vote.view for vote in found["e"].views.votes] == ["blind", "r"]
    assert [vote.view for vote in found["h"].views.votes] == ["r"]
    assert [cell_of(found[uuid]) for uuid in CELLS] == [moved(cell) for cell in CELLS.values()]


@pytest.mark.parametrize("seed", range(5))
def test_a_reference_with_marks_at_random_places_is_not_believed(seed: int) -> None:
    """Its marks show the right things in the wrong places; a few of them agree on some map by chance."""
    random = np.random.default_rng(seed)
    cells = random.permutation([(c, r) for c in range(2, 22) for r in range(2, 22)])[: len(CELLS)].tolist()
    wrong = reference("wrong", {uuid: (c, r) for uuid, (c, r) in zip(CELLS, cells, strict=True)}, seed=3)
    right = reference("r", CELLS, seed=1)
    for references in ([wrong], [wrong, right], [right, wrong]):
        found = together(references, target_of(CELLS))
        assert [prior.prior is not None for prior in found.priors] == [one is right for one in references]
        assert [cell_of(placement) for placement in found.placements] == [
            moved(CELLS[p.uuid]) for p in found.placements
        ]


def test_forbidden_patches_are_neither_answers_nor_rivals() -> None:
    """Whatever stands in the patches that the mask forbids, each number comes out the same."""
    mask = torch.ones(SIDE, SIDE, dtype=torch.bool)
    mask[:, 21:] = False
    source = reference("r", CELLS, seed=1)
    plain = together([source], target_of(CELLS), target_mask=mask)
    decoys: dict[Cell, Mapping[str, float]] = {(22, row): {uuid: 1.0} for row, uuid in enumerate(CELLS)}
    other = together([source], target_of(CELLS, changed=decoys), target_mask=mask)
    assert plain.to_json() == other.to_json()
    assert {p.uuid: cell_of(p) for p in plain.placements} == {uuid: moved(cell) for uuid, cell in CELLS.items()}
    free = by_uuid(together([source], target_of(CELLS, changed=decoys)))
    assert free["e"].views.finding.target_xy[0] > 21 * PATCH


def test_places_match_back_to_allowed_patches_only() -> None:
    """The source shows e a second time, better, where its mask forbids it."""
    cells = {**CELLS, "e": CELLS["e"]}
    shown: dict[Cell, Mapping[str, float]] = {cell: {uuid: 0.8} for uuid, cell in cells.items()}
    tokens = planted({**shown, (22, 22): {"e": 0.95}}, seed=1)
    points = torch.tensor([centre(cell) for cell in cells.values()], dtype=torch.float64)
    mask = torch.ones(SIDE, SIDE, dtype=torch.bool)
    mask[20:, 20:] = False
    target = planted({moved(cell): {uuid: 0.95} for uuid, cell in cells.items()}, seed=99)
    open_ = by_uuid(together([Reference("r", tokens, tuple(cells), points)], target))["e"]
    closed = by_uuid(together([Reference("r", tokens, tuple(cells), points, mask)], target))["e"]
    assert open_.cues.cycle > 5
    assert closed.cues.cycle < 1
    away = planted({**{moved(cell): {uuid: 0.7} for uuid, cell in cells.items()}, (1, 20): {"e": 0.9}}, seed=99)
    (placed,) = together([Reference("r", tokens, tuple(cells), points, mask)], away, uuids=["e"]).placements
    assert placed.rank == 1  # moved to where the others say, and its cues read there
    assert placed.cues.cycle < 1


def test_a_place_that_no_view_by_itself_would_take_has_the_cues_of_all() -> None:
    target = target_of(CELLS, changed={moved(CELLS["e"]): {"e": 0.75}, (20, 20): {"e": 0.85}})
    two = [reference("r", CELLS, seed=1), reference("s", CELLS, seed=2)]
    found = by_uuid(together(two, target))["e"]
    assert cell_of(found) == moved(CELLS["e"])
    assert (found.cues.views, found.cues.agreement) == (1, 0)
    assert found.cues.lead is not None
    assert found.cues.lead < 0


def test_the_order_of_marks_and_the_size_of_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    target = target_of(CELLS, changed={moved(CELLS["e"]): {"e": 0.75}, (20, 20): {"e": 0.85}})
    forward = by_uuid(together([reference("r", CELLS, seed=1)], target))
    backward = dict(reversed(CELLS.items()))
    monkeypatch.setattr(candidates, "_AT_ONCE", 1)
    other = by_uuid(together([reference("r", backward, seed=1)], target))
    for uuid in CELLS:
        assert forward[uuid].target_xy == pytest.approx(other[uuid].target_xy, abs=1e-3)
        assert forward[uuid].state == other[uuid].state
        assert forward[uuid].prior_sigma_px == pytest.approx(other[uuid].prior_sigma_px, rel=1e-3)


def test_some_are_told_of_and_all_are_looked_for() -> None:
    target = target_of(CELLS, changed={moved(CELLS["e"]): {"e": 0.75}, (20, 20): {"e": 0.85}})
    source = reference("r", CELLS, seed=1)
    everything = together([source], target)
    some = together([source], target, uuids=["h", "e"])
    assert [placement.uuid for placement in some.placements] == ["h", "e"]
    assert some.placements[1].to_json() == by_uuid(everything)["e"].to_json()


def test_what_a_single_landmark_finds_alone_is_unchanged() -> None:
    source, target = reference("r", {"a": CELLS["a"]}, seed=1), target_of({"a": CELLS["a"]})
    (alone,) = locate_points(
        source.map, target, source.points_source, uuids=["a"], image_size=SIDE * PATCH, calibration=CALIBRATION
    )
    (placed,) = together([source], target).placements
    assert placed.target_xy == pytest.approx(alone.target_xy)
    assert (placed.state, placed.confidence, placed.cues) == (alone.state, alone.confidence, alone.cues)
    assert (placed.gap_px, placed.identity_safe) == (None, True)


def test_nothing_to_look_for_is_no_error() -> None:
    source = reference("r", {"a": CELLS["a"]}, seed=1)
    found = together([source], target_of(CELLS), known={"a": (10.0, 10.0)})
    assert found.placements == ()
    assert together([reference("empty", {}, seed=1)], target_of(CELLS)).placements == ()


def test_json_is_json_and_holds_what_appearance_said() -> None:
    target = target_of(CELLS, changed={moved(CELLS["e"]): {"e": 0.75}, (20, 20): {"e": 0.85}})
    found = together([reference("r", CELLS, seed=1)], target)
    stored = json.loads(json.dumps(found.to_json(), allow_nan=False))
    (told,) = [placement for placement in stored["placements"] if placement["uuid"] == "e"]
    placement = by_uuid(found)["e"]
    assert told["target_xy"] == list(placement.target_xy)
    assert told["appearance"]["target_xy"] == list(placement.views.finding.target_xy)
    for name in (
        "state",
        "reason",
        "confidence",
        "rank",
        "moved_by",
        "taken_by",
        "gap_px",
        "identity_safe",
        "prior_px",
    ):
        assert told[name] == getattr(placement, name)
    assert stored["priors"][0]["agreeing"] == 8
    assert stored["priors"][0]["kind"] == "similarity"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"uuids": ["a", "z"]}, "no reference has z"),
        ({"uuids": ["a"], "known": {"a": (1.0, 1.0)}}, "the target already has a"),
        ({"uuids": ["a", "b", "a"]}, "more than once: a"),
    ],
)
def test_landmarks_that_cannot_be_looked_for_are_named(options: dict[str, object], said: str) -> None:
    with pytest.raises(LandmarkError, match=said):
        together([reference("r", CELLS, seed=1)], target_of(CELLS), **options)


def test_wrong_references_are_refused() -> None:
    source, target = reference("r", CELLS, seed=1), target_of(CELLS)
    with pytest.raises(ShapeError, match="0 references"):
        together([], target)
    with pytest.raises(ShapeError, match="8 points need as many uuids, has 1"):
        Reference("r", source.map, ("a",), source.points_source)
    with pytest.raises(LandmarkError, match="r has a more than once"):
        Reference("r", source.map, ("a", "a"), source.points_source[:2])
    with pytest.raises(ShapeError, match="does not fit"):
        Reference("r", source.map, tuple(CELLS), source.points_source, torch.ones(2, 2, dtype=torch.bool))


def test_near_twins_of_drawn_skin_are_sorted_out() -> None:
    """Moles in nearly equal pairs on a texture that repeats: appearance alone takes many for their twins."""
    encoder = sift.load(device=torch.device("cpu"))
    alone = right = count = 0
    for seed in (10, 29):
        one = case("twins", seed, "dev")
        points = torch.from_numpy(one.source_points[0])
        source = Reference("source", encode(one.sources[0], encoder, size=384), one.uuids, points)
        target = encode(one.target, encoder, size=384)
        for placement, truth, visible in zip(
            locate_together([source], target, image_size=384).placements, one.truth, one.visible, strict=True
        ):
            if visible:
                count += 1
                alone += math.dist(placement.views.finding.target_xy, truth) <= 8
                right += math.dist(placement.target_xy, truth) <= 8
    assert right >= 0.9 * count
    assert right > alone
