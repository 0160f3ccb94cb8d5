"""Turned and mirrored targets: found with turns, missed without, and the finding says which way up the source lay."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from patchatlas.arrays import ImageU8
from patchatlas.dense import encode
from patchatlas.encoders import sift
from patchatlas.geometry.turns import Turn
from patchatlas.io.masks import Mask
from patchatlas.locate import turning
from patchatlas.locate.pair import centred_frame, locate_pair, locate_pairs
from patchatlas.locate.recipe import Recipe
from patchatlas.locate.turning import encode_best_turn
from patchatlas.matching.turns import MutualMatch
from tests.locate.test_pair import PixelEncoder, texture

ROWS, COLUMNS = 120, 160
MARK = (60.5, 44.5)

# the target as numpy makes it of the source, and where the mark is then
TARGETS: dict[Turn, tuple[ImageU8, tuple[float, float]]] = {}
SCENE = texture(ROWS, COLUMNS, seed=3, blob=6)
for turn, picture, place in (
    ("upright", SCENE, MARK),
    ("rot90", np.rot90(SCENE, -1), (ROWS - MARK[1], MARK[0])),
    ("rot180", np.rot90(SCENE, 2), (COLUMNS - MARK[0], ROWS - MARK[1])),
    ("rot270", np.rot90(SCENE, 1), (MARK[1], COLUMNS - MARK[0])),
    ("flip", np.fliplr(SCENE), (COLUMNS - MARK[0], MARK[1])),
    ("flip-rot90", np.rot90(np.fliplr(SCENE), -1), (ROWS - MARK[1], COLUMNS - MARK[0])),
):
    TARGETS[turn] = np.ascontiguousarray(picture), place  # type: ignore[index]


@pytest.mark.parametrize("turn", TARGETS)
def test_the_turn_is_found_and_the_mark_with_it(turn: Turn) -> None:
    target, place = TARGETS[turn]
    encoder = sift.load(device=torch.device("cpu"))
    plain = locate_pair(SCENE, target, MARK, encoder, uuid="m", recipe=Recipe(image_size=160))
    recipe = Recipe(image_size=160, turns=("flip", "rot90"))
    finding = locate_pair(SCENE, target, MARK, encoder, uuid="m", recipe=recipe)
    assert finding.turn == turn
    assert math.dist(finding.target_xy, place) < 2.0
    assert finding.cycle_px < 2.0
    assert finding.source_xy == MARK
    assert (finding.recipe, plain.turn) == (recipe, "upright")
    missed = math.dist(plain.target_xy, place)
    assert missed < 2.0 if turn == "upright" else missed > 8.0


def test_a_closer_look_keeps_the_turn() -> None:
    target, place = TARGETS["flip-rot90"]
    encoder = sift.load(device=torch.device("cpu"))
    recipe = Recipe(image_size=160, turns=("flip", "rot90"), zoom=2.0, candidates=1)
    finding = locate_pair(SCENE, target, MARK, encoder, uuid="m", recipe=recipe)
    assert finding.turn == "flip-rot90"
    assert math.dist(finding.target_xy, place) < 1.0


def test_only_what_the_masks_leave_tells_the_turn() -> None:
    """The left half of the target shows the scene, the right half the scene upside down; the masks choose."""
    target = np.concatenate([SCENE[:, :80], np.rot90(SCENE, 2)[:, 80:]], axis=1)
    encoder = sift.load(device=torch.device("cpu"))
    for half, turn in ((slice(0, 80), "upright"), (slice(80, 160), "rot180")):
        inside = torch.zeros(ROWS, COLUMNS, dtype=torch.bool)
        inside[:, half] = True
        mask = Mask(inside, Path("t.png.mask.png"), "")
        recipe = Recipe(image_size=160, turns=("rot90",))
        finding = locate_pair(SCENE, target, (40.5, 60.5), encoder, uuid="m", recipe=recipe, target_mask=mask)
        assert finding.turn == turn
        assert finding.scored.sum() == 15 * 10
        assert half.start <= finding.target_xy[0] <= half.stop


def test_only_the_turns_asked_for_are_tried() -> None:
    target, _ = TARGETS["rot90"]
    encoder = PixelEncoder()
    for turns, forwards in (((), 2), (("flip",), 3), (("rot90",), 5), (("rot90", "flip"), 9)):
        encoder.forwards = 0
        finding = locate_pair(SCENE, target, MARK, encoder, uuid="m", recipe=Recipe(image_size=160, turns=turns))  # type: ignore[arg-type]
        assert encoder.forwards == forwards
        assert (finding.turn == "rot90") == ("rot90" in turns)


def test_each_view_has_a_turn_of_its_own() -> None:
    encoder = sift.load(device=torch.device("cpu"))
    turned, place = TARGETS["rot90"]
    found = locate_pairs(
        [SCENE, turned],
        SCENE,
        [MARK, place],
        encoder,
        views=["upright", "turned"],
        uuid="m",
        recipe=Recipe(image_size=160, turns=("rot90",)),
    )
    assert [vote.turn for vote in found.votes] == ["upright", "rot270"]
    assert [vote["turn"] for vote in found.to_json(target="t")["views"]] == ["upright", "rot270"]
    assert all(math.dist(vote.target_xy, MARK) < 2.0 for vote in found.votes)


def test_an_even_source_stays_upright() -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    recipe = Recipe(image_size=64, turns=("flip", "rot90"))
    finding = locate_pair(grey, texture(64, 64), (30.5, 30.5), PixelEncoder(), uuid="m", recipe=recipe)
    assert finding.turn == "upright"


@pytest.mark.parametrize(("mirrored", "turn"), [(0.46, "flip"), (0.44, "upright")])
def test_another_way_must_fit_clearly_better(mirrored: float, turn: Turn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half as much again as upright, which has 0.3; all mutual pairs speak for the mirror image."""
    matches = iter([MutualMatch(0.5, 0.5, 0.3), MutualMatch(0.9, 0.9, mirrored)])
    monkeypatch.setattr(turning, "match_maps", lambda *_, **__: next(matches))
    finding = locate_pair(SCENE, SCENE, MARK, PixelEncoder(), uuid="m", recipe=Recipe(image_size=160, turns=("flip",)))
    assert finding.turn == turn


def test_the_mark_is_a_patch_centre_in_every_turn() -> None:
    target, _ = TARGETS["flip-rot90"]
    encoder = sift.load(device=torch.device("cpu"))
    recipe = Recipe(image_size=160, turns=("flip", "rot90"))
    frame = centred_frame((ROWS, COLUMNS), MARK, image_size=160, patch=(8, 8))
    target_map = encode(target, encoder, size=160)
    source_map, turn = encode_best_turn(SCENE, encoder, recipe, target_map, frame=frame)
    assert turn == "flip-rot90"
    assert source_map.grid.shape == (21, 16)
    cell = source_map.grid.cells_of(torch.tensor([MARK]))[0]
    assert (cell - cell.floor()).tolist() == pytest.approx([0.5, 0.5])
