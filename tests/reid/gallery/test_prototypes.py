"""The running mean, the looks kept last, and who is let in."""

import numpy as np
import pytest

from patchatlas.errors import UsageError
from patchatlas.reid.gallery.prototypes import PrototypeRules, prototypes_of, weights_of

EAST, NORTH = np.array([1.0, 0.0]), np.array([0.0, 1.0])


def kept(vectors, seen_s=None, *, gate=-1.0, **rules):
    count = len(vectors)
    return prototypes_of(
        np.stack(vectors),
        np.array([2.0] * count if seen_s is None else seen_s),
        least_likeness=gate,
        rules=PrototypeRules(**rules),
    )


def test_the_mean_forgets():
    # 0.9 of east, then one of north.
    expected = np.array([0.9, 1.0]) / np.hypot(0.9, 1.0)
    np.testing.assert_allclose(kept([EAST, NORTH]).mean, expected)


def test_the_last_are_kept():
    assert kept([EAST] * 10, recent=3).recent == (7, 8, 9)


def test_who_is_unlike_or_seen_too_briefly_is_not_let_in():
    found = kept([EAST, NORTH, EAST, EAST], [2, 2, 0.1, 2], gate=0.5)
    assert found.admitted.tolist() == [True, False, False, True]
    np.testing.assert_allclose(found.mean, EAST)


def test_somebody_always_stands_for_an_identity():
    assert kept([EAST, NORTH], [0.1, 0.3]).admitted.tolist() == [False, True]
    # The first who is seen well enough begins, not the first of all.
    assert kept([NORTH, EAST, EAST], [0.1, 2, 2], gate=0.5).admitted.tolist() == [False, True, True]


def test_weights_stop_growing():
    np.testing.assert_allclose(weights_of(np.array([0.5, 2.0, 60.0])), [0.5, 1.0, 1.0])


@pytest.mark.parametrize("rules", [{"keep": 1.0}, {"recent": 0}, {"least_seen_s": -1.0}])
def test_rules_out_of_range(rules):
    with pytest.raises(UsageError, match="keep is"):
        PrototypeRules(**rules)
