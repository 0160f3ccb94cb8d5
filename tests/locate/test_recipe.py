"""Recipes: what makes no sense is refused with what was given, what is allowed and what to do; JSON and back."""

import json
from typing import Any

import pytest

from patchatlas.errors import UsageError
from patchatlas.locate.recipe import Recipe


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image_size": 0}, "image_size 0 is not positive"),
        ({"windows": -8}, "windows -8 is not positive"),
        ({"windows": 896}, "windows of 896 px see all of an image size of 896"),
        ({"max_memory": 0}, "max_memory 0 is not positive"),
        ({"global_view": False}, "give windows too"),
        ({"debias": -1}, "debias -1 is negative"),
        ({"layers": (3, 3)}, "layers 3, 3 are not ascending"),
        ({"layers": (5, 3)}, "layers 5, 3 are not ascending"),
        ({"layers": (-1,)}, "layers -1 are not ascending"),
        ({"layers": (3,), "debias": 2}, "leave out one of the two"),
        ({"turns": ("flip", "flip")}, "turns flip, flip are not"),
        ({"jitter": 0}, "jitter 0 is not positive"),
        ({"zoom": 1.0}, "zoom 1.0 does not magnify"),
        ({"zoom": float("nan")}, "zoom nan does not magnify"),
        ({"zoom": float("inf")}, "zoom inf does not magnify"),
        ({"zoom": 2.0, "candidates": 6}, "candidates 6 is not in 1..5"),
        ({"zoom": 2.0, "candidates": 0}, "candidates 0 is not in 1..5"),
        ({"candidates": 2}, "give jitter or zoom too"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Recipe(**options)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("turns", ("rot45",), "turns rot45 are not flip, rot90 or both"),
        ("peak", "centroid", "peak 'centroid' is none of parabola, soft-argmax"),
    ],
)
def test_unknown_names_are_refused_where_types_are_not_checked(name: str, value: Any, said: str) -> None:
    recipe = Recipe()
    object.__setattr__(recipe, name, value)
    with pytest.raises(UsageError, match=said):
        recipe.__post_init__()


def test_a_closer_look_is_jitter_or_zoom() -> None:
    assert [Recipe().closer, Recipe(jitter=4).closer, Recipe(zoom=2.4, candidates=1).closer] == [False, True, True]


def test_json_and_back() -> None:
    recipe = Recipe(windows=448, global_view=False, turns=("flip", "rot90"), layers=(3, 7), zoom=2.4, candidates=5)
    stored = json.loads(json.dumps(recipe.to_json()))
    assert stored["layers"] == [3, 7]
    assert stored["debias"] == 0
    assert Recipe.from_json(stored) == recipe
    assert Recipe.from_json({}) == Recipe()
    with pytest.raises(UsageError, match="other options"):
        Recipe.from_json({"magic": 1})
