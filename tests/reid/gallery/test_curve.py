"""Which cosines decide, from what the videos say and what was asked for."""

from dataclasses import replace

import pytest
import torch

from patchatlas.reid.calibrate import KnownPairs, fit
from patchatlas.reid.config import LinkConfig
from patchatlas.reid.gallery.curve import limits_of


def pairs(*, rivals: bool = True) -> KnownPairs:
    same, different = torch.linspace(0.7, 1.0, 20).double(), torch.linspace(0.1, 0.6, 20).double()
    return KnownPairs(same, different, different if rivals else different[:0])


def test_cosines_come_from_chances():
    known = pairs()
    curve = fit(known)
    limits, notes = limits_of(curve, known, LinkConfig(accept=0.95, threshold=0.4, margin=0.07))
    assert (limits.named, limits.stranger) == (curve.cosine_at(0.95), curve.cosine_at(0.4))
    assert (limits.margin, notes) == (0.07, [])


def test_the_stricter_of_accept_and_false_links_holds():
    # A tenth of twenty may be named, so not the third highest.
    known = replace(pairs(), rivals=torch.tensor([0.9, 0.85, 0.8] + [0.2] * 17, dtype=torch.float64))
    curve = fit(known)
    limits, _ = limits_of(curve, known, LinkConfig(accept=0.5, false_links=0.1))
    assert limits.named == pytest.approx(0.8)
    assert limits.named > 0.8
    loose, _ = limits_of(curve, known, LinkConfig(accept=0.5, false_links=0.2))
    assert loose.named == curve.cosine_at(0.5)
    _, notes = limits_of(curve, pairs(rivals=False), LinkConfig(false_links=0.1))
    assert "false_links could not be kept to" in notes[0]


def test_a_cosine_that_was_asked_for_needs_no_curve():
    limits, notes = limits_of(None, pairs(), LinkConfig(cosine=0.7))
    assert (limits.named, limits.stranger, notes) == (0.7, 0.7, [])


def test_accept_is_never_below_threshold():
    known = pairs()
    curve = fit(known)
    limits, _ = limits_of(curve, known, LinkConfig(accept=0.2, threshold=0.6))
    assert limits.named == limits.stranger == curve.cosine_at(0.6)
