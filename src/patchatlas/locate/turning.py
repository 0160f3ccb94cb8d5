"""Lay the source down in every way that a recipe allows, and keep the one that fits the target best."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from patchatlas.arrays import ImageU8
from patchatlas.encoders.protocol import Encoder
from patchatlas.features import FeatureMap
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.turns import Turn, turned, turns_of
from patchatlas.io.masks import Mask
from patchatlas.locate.encoding import encode_view
from patchatlas.locate.recipe import Recipe
from patchatlas.matching.turns import MutualMatch, match_maps

CLEARLY = 1.5
"""Another way than upright must fit so many times as well, in coherent pairs. On 25 development cases with bundled:sift
that left 25 upright ones upright and turned 24 of 25 turned ones; without it 24 and 24. By the number and cosine of all
mutual pairs, coherent or not, it was 23 and 23."""

T = TypeVar("T")


def best_fit(ways: Iterable[tuple[MutualMatch, T]]) -> T:
    """Of ways to lay a picture down the one that fits best; the first, upright, unless another fits clearly better.

    Args:
        ways: how well each fits, and what it is; the first is upright.
    """
    ways = iter(ways)
    upright = best = next(ways)
    for way in ways:
        best = max(best, way, key=lambda one: one[0].score)
    return (best if best[0].coherent > CLEARLY * upright[0].coherent else upright)[1]


def encode_best_turn(
    source: ImageU8,
    encoder: Encoder,
    recipe: Recipe,
    target_map: FeatureMap,
    *,
    frame: Frame,
    source_mask: Mask | None = None,
    target_mask: Mask | None = None,
) -> tuple[FeatureMap, Turn]:
    """The map of the source that fits a target, and how the source lies in it.

    Every turn costs one encoding of the source. The best is the one with the best mutual match, see `matching.turns`;
    but it is upright unless another way fits clearly better.

    Args:
        source: upright picture.
        encoder: of pictures.
        recipe: whose turns are tried.
        target_map: of the target, made by the same recipe.
        frame: what to draw of the source; its patches stay where they are in every turn.
        source_mask: patches outside do not count.
        target_mask: likewise.

    Raises:
        ShapeError: a mask leaves no patch.
    """
    turns = turns_of(recipe.turns)
    if len(turns) == 1:
        return encode_view(source, encoder, recipe, frame=frame), turns[0]
    there = None if target_mask is None else target_mask.over(target_map.grid)

    def laid() -> Iterator[tuple[MutualMatch, tuple[FeatureMap, Turn]]]:
        for turn in turns:
            source_map = encode_view(source, encoder, recipe, frame=turned(frame, turn))
            here = None if source_mask is None else source_mask.over(source_map.grid)
            yield match_maps(source_map, target_map, source_mask=here, target_mask=there), (source_map, turn)

    return best_fit(laid())
