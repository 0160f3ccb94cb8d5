"""Drawn textures: the same from a seed, each family in turn, and never the one that is kept for judging."""

import inspect

import numpy as np
import pytest

from tools.bundled import textures
from tools.bundled.held_out import TEXTURE_FAMILY
from tools.bundled.textures import FAMILIES, draw, main

SIDE = 96


@pytest.mark.parametrize("number", range(len(FAMILIES)))
def test_each_family_is_repeatable_and_shows_something(number):
    family, pixels = draw(number, side=SIDE, seed=1)
    assert family == list(FAMILIES)[number]
    assert (pixels.shape, pixels.dtype) == ((SIDE, SIDE, 3), np.uint8)
    assert np.array_equal(pixels, draw(number, side=SIDE, seed=1)[1])
    assert not np.array_equal(pixels, draw(number, side=SIDE, seed=2)[1])
    assert not np.array_equal(pixels, draw(number + len(FAMILIES), side=SIDE, seed=1)[1])
    assert pixels.astype(float).std(axis=(0, 1)).max() > 4


def test_the_kept_family_is_not_drawn():
    assert TEXTURE_FAMILY not in FAMILIES
    code = inspect.getsource(textures).split('"""', 2)[2]  # without the head, which says what is left out
    assert not [word for word in ("Voronoi", "cKDTree", "KDTree", "Worley", "distance_transform") if word in code]


def test_files_are_numbered(tmp_path):
    assert main([str(tmp_path), "--count", "7", "--side", str(SIDE)]) == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names[0] == "texture--000-octaves.png"
    assert names[6] == "texture--006-octaves.png"
    assert len(names) == 7
