"""Photographs in memory: read once, up to the bytes allowed, those used last longest."""

import numpy as np

from patchatlas.geometry.pyramid import Pyramid
from patchatlas.pretrain.crops.kept import Kept


def asked(kept: Kept, names: str) -> str:
    """Ask for photographs of 300 bytes; the names of those that were read."""
    read = []

    def make(name: str) -> Pyramid:
        read.append(name)
        return Pyramid((np.full((10, 10, 3), ord(name), np.uint8),))

    for name in names:
        assert kept.get(name, lambda name=name: make(name)).levels[0][0, 0, 0] == ord(name)
    return "".join(read)


def test_each_is_read_once_while_there_is_room() -> None:
    assert asked(Kept(900), "abcabcaabbcc") == "abc"


def test_the_one_not_used_for_longest_goes() -> None:
    assert asked(Kept(600), "abacab") == "abcb"  # c takes the place of b


def test_none_is_kept_where_none_may_be() -> None:
    assert asked(Kept(0), "aab") == "aab"
