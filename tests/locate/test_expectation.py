"""Which maps are believed: evidence worked by hand, and predictions that do not rest on what they predict."""

import math

import pytest
import torch

from patchatlas.geometry.frame import Frame
from patchatlas.geometry.grid import PatchGrid
from patchatlas.locate.candidates import PRESENT, Looks
from patchatlas.locate.expectation import Anchor, Expectation, Proposal, evidence, expect
from patchatlas.locate.reference import Reference
from patchatlas.matching.belief import ASTRAY, PER_DEVIATION
from patchatlas.matching.prior import Prior, fit_prior
from tests.locate.planted import PATCH, SIDE, Cell, centre, planted, reference

GRID = PatchGrid.on(Frame.whole((16, 24)), (8, 8))  # centres x 4, 12, 20 and y 4, 12
CELLS: dict[str, Cell] = {"a": (3, 3), "b": (12, 4), "c": (19, 8), "d": (5, 12), "e": (13, 14), "f": (20, 19)}


def looks(*maps: list[float], grid: PatchGrid = GRID) -> Looks:
    likeness = torch.tensor(maps)
    return Looks(likeness, torch.ones_like(likeness, dtype=torch.bool), torch.ones(grid.shape, dtype=torch.bool), grid)


def proposal(at: tuple[float, float], deviation: float, *, row: int = 0) -> Proposal:
    prior = Prior("similarity", torch.ones(3, dtype=torch.bool), 1.0, *[torch.zeros(3, 2, dtype=torch.float64)] * 3)
    place, sigma = torch.tensor([at], dtype=torch.float64), torch.tensor([deviation], dtype=torch.float64)
    return Proposal(0, prior, 3, 3, False, torch.tensor([row]), place, sigma)


def density_at(centre_xy: tuple[float, float], predicted: tuple[float, float], deviation: float) -> float:
    """Over the floor, at the middle of a patch of 8 px in a target of 16 x 24."""
    variance = deviation**2 + 8**2 / 12
    peak = 16 * 24 / (2 * math.pi * variance) * math.exp(-(math.dist(centre_xy, predicted) ** 2) / (2 * variance))
    return (1 - ASTRAY) * peak + ASTRAY


CENTRES = [(x, y) for y in (4.0, 12.0) for x in (4.0, 12.0, 20.0)]


@pytest.mark.parametrize("row", [0, 1])
def test_evidence_is_the_mean_density_under_what_is_believed(row: int) -> None:
    likeness = [[1.5, 0, 0, 0, 0.5, 0], [0.0, 0, 2, 0, 0, 1]]
    weights = [math.exp(PER_DEVIATION * value) for value in likeness[row]]
    nowhere = 6 * math.exp(PRESENT)
    expected = sum(w * density_at(c, (5.0, 3.0), 2.0) for w, c in zip(weights, CENTRES, strict=True)) + nowhere
    found = evidence(looks(*likeness), proposal((5.0, 3.0), 2.0, row=row), given=Expectation.nothing(2, 2))
    assert found == pytest.approx(math.log(expected / (sum(weights) + nowhere)), abs=1e-4)


def test_what_is_believed_already_counts() -> None:
    likeness = [1.5, 0, 0, 0, 0.5, 1.5]
    given = Expectation.nothing(1, 2)
    given.predicted[0, 1], given.deviation[0, 1] = torch.tensor([20.0, 12.0]).double(), 3.0
    before = [density_at(c, (20.0, 12.0), 3.0) for c in CENTRES]
    weights = [b * math.exp(PER_DEVIATION * value) for value, b in zip(likeness, before, strict=True)]
    nowhere = 6 * math.exp(PRESENT)
    for at in ((4.0, 4.0), (20.0, 12.0)):
        mean = sum(w * density_at(c, at, 3.0) for w, c in zip(weights, CENTRES, strict=True)) + nowhere
        found = evidence(looks(likeness), proposal(at, 3.0), given=given)
        assert found == pytest.approx(math.log(mean / (sum(weights) + nowhere)), abs=1e-4)
    assert found > 0


def planted_looks(shown: dict[str, float]) -> Looks:
    """Each landmark so many deviations like the patch where its cell says, and no other."""
    likeness = torch.zeros(len(shown), SIDE * SIDE)
    for k, (uuid, value) in enumerate(shown.items()):
        column, row = CELLS[uuid]
        likeness[k, row * SIDE + column] = value
    grid = planted({}, seed=0).grid
    return Looks(likeness, likeness > 0, torch.ones(grid.shape, dtype=torch.bool), grid)


def anchors(moved: dict[str, tuple[float, float]] | None = None) -> list[Anchor]:
    places = {**{uuid: centre(cell) for uuid, cell in CELLS.items()}, **(moved or {})}
    return [Anchor(uuid, xy, sure=False, likely=True) for uuid, xy in places.items()]


def test_no_prediction_rests_on_the_place_it_predicts() -> None:
    x, y = centre(CELLS["d"])
    marks = anchors({"d": (x + 9, y - 5)})
    one = reference("r", CELLS, seed=1)
    found = expect([one], marks, list(CELLS), planted_looks(dict.fromkeys(CELLS, 5.0)), tolerance=float(PATCH))
    target = torch.tensor([mark.target_xy for mark in marks], dtype=torch.float64)
    for k in range(len(CELLS)):
        kept = torch.arange(len(CELLS)) != k
        others = fit_prior(one.points_source[kept], target[kept], tolerance=float(PATCH), kind="similarity")
        assert others is not None
        expected = others.predict(one.points_source[k : k + 1])[0]
        torch.testing.assert_close(found.predicted[k, 0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("value", "believed"), [(5.0, True), (1.0, False)])
def test_marks_that_agree_but_hardly_look_like_anything_are_not_believed(value: float, believed: bool) -> None:
    few = dict(list(CELLS.items())[:4])
    one = reference("r", few, seed=1)
    marks = [mark for mark in anchors() if mark.uuid in few]
    found = expect([one], marks, list(few), planted_looks(dict.fromkeys(few, value)), tolerance=float(PATCH))
    assert (found.priors[0].prior is not None) == believed
    assert bool(found.deviation.isnan().all()) != believed
    assert (found.surest(0) is not None) == believed
    assert found.priors[0].reason.startswith("similarity map" if believed else "the target does not bear out the")


def test_beside_a_map_that_is_believed_another_needs_some_evidence_too() -> None:
    """The second reference's marks agree perfectly, and none of them is anywhere to be seen."""
    first, second = (dict(list(CELLS.items())[n : n + 3]) for n in (0, 3))
    shown = {**dict.fromkeys(first, 6.0), **dict.fromkeys(second, 0.0)}
    references = [reference("r", first, seed=1), reference("s", second, seed=2)]
    found = expect(references, anchors(), list(CELLS), planted_looks(shown), tolerance=float(PATCH))
    assert [prior.prior is not None for prior in found.priors] == [True, False]


def test_marks_that_are_known_need_no_evidence() -> None:
    cells = {uuid: CELLS[uuid] for uuid in "abcd"}
    one: Reference = reference("r", cells, seed=1)
    marks = [Anchor(uuid, centre(cells[uuid]), sure=True, likely=True) for uuid in "abc"]
    found = expect([one], marks, ["d"], planted_looks({"d": 0.0}), tolerance=float(PATCH))
    torch.testing.assert_close(found.predicted[0, 0], torch.tensor(centre(cells["d"])).double())
    moved = [Anchor(mark.uuid, mark.target_xy, sure=False, likely=True) for mark in marks]
    assert expect([one], moved, ["d"], planted_looks({"d": 0.0}), tolerance=float(PATCH)).priors[0].prior is None
