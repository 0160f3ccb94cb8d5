"""Calibration without labels: which pairs it learns from, both curves, their error, and thresholds."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from patchatlas.errors import InputError, UsageError
from patchatlas.reid.boxes import Tracklet
from patchatlas.reid.calibrate import (
    METHODS,
    Calibration,
    KnownPairs,
    calibration_error,
    error_rates,
    fit,
    known_pairs,
    threshold_for,
)
from patchatlas.reid.portraits import Portrait, together

MakeTracklet = Callable[..., Tracklet]
MakePortrait = Callable[..., Portrait]


def pairs_of(seed: int, same: int = 60, different: int = 300) -> KnownPairs:
    rng = np.random.default_rng(seed)
    alike = torch.from_numpy(np.clip(rng.normal(0.8, 0.1, same), -1, 1))
    unlike = torch.from_numpy(np.clip(rng.normal(0.4, 0.15, different), -1, 1))
    return KnownPairs(alike, unlike, unlike[:40])


def test_pairs_that_the_video_itself_knows(tracklet: MakeTracklet, portrait: MakePortrait) -> None:
    a = portrait(tracklet(1, range(12)), (1.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.0, 1.0))  # end unlike beginning
    b = portrait(tracklet(2, range(12), (50, 0, 60, 20)), (1.0, 1.0), (1.0, 1.0))
    later = portrait(tracklet(3, range(20, 30)), (1.0, 0.0))
    blind = portrait(tracklet(4, range(12), (90, 0, 99, 20)))
    people = [a, b, later, blind]
    pairs = known_pairs(people, together([one.tracklet for one in people], tolerance=5))
    torch.testing.assert_close(pairs.same, torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(pairs.different, torch.ones(1, dtype=torch.float64))  # a and b on the diagonal
    torch.testing.assert_close(pairs.rivals, torch.ones(2, dtype=torch.float64))
    assert not pairs.enough
    assert len(known_pairs([blind], torch.zeros(1, 1, dtype=torch.bool)).same) == 0


@pytest.mark.parametrize("method", METHODS)
def test_curves_rise_and_meet_half_between_the_kinds(method: str) -> None:
    curve = fit(pairs_of(1), method=method)
    assert np.all(np.diff(curve.chances) >= 0)
    assert 0.5 < curve.cosine_at(0.5) < 0.75
    chances = curve.chance(torch.tensor([-1.0, 0.4, 0.8, 1.0]))
    assert chances[0] < 0.05
    assert chances[1] < 0.2
    assert chances[2] > 0.8
    at = torch.tensor([curve.cosine_at(0.5)], dtype=torch.float64)
    assert curve.chance(at).item() == pytest.approx(0.5, abs=0.02 if method == "logistic" else 0.5)
    assert curve.ece < 0.1
    assert (curve.same, curve.different) == (60, 300)


def test_kinds_count_alike_however_many_there_are() -> None:
    few, many = fit(pairs_of(1)), fit(pairs_of(1, different=3000))
    assert many.cosine_at(0.5) == pytest.approx(few.cosine_at(0.5), abs=0.03)


def test_isotonic_by_hand() -> None:
    """Equal counts, so weights are equal: 0.1 - | 0.2 + 0.3 - | 0.4 + ... pools the violators to one half."""
    same = torch.tensor([0.2, 0.4, 0.5, 0.6, 0.7], dtype=torch.float64)
    different = torch.tensor([0.1, 0.3, 0.05, 0.02, 0.01], dtype=torch.float64)
    curve = fit(KnownPairs(same, different, different), method="isotonic")
    assert curve.cosines == (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    assert curve.chances == (0, 0, 0, 0, 0.5, 0.5, 1, 1, 1, 1)


def test_kinds_that_do_not_overlap_stay_finite() -> None:
    apart = KnownPairs(torch.full((9,), 0.9).double(), torch.full((9,), 0.1).double(), torch.zeros(0).double())
    curve = fit(apart)
    assert 0.4 < curve.cosine_at(0.5) < 0.6
    assert 0.8 < curve.chance(torch.tensor([0.9]).double()).item() < 1


def test_calibration_error_by_hand() -> None:
    chances, labels = np.array([0.95, 0.95, 0.15, 0.15]), np.array([1.0, 0.0, 0.0, 0.0])
    # Bins 9 and 1: |0.95 - 0.5| and |0.15 - 0|, half of the weight each.
    assert calibration_error(chances, labels, np.full(4, 0.25)) == pytest.approx(0.3)


def test_where_a_chance_is_reached() -> None:
    curve = Calibration((0.0, 0.5, 1.0), (0.1, 0.3, 0.9), "logistic", 5, 5, 0.0)
    assert curve.cosine_at(0.05) == 0
    assert curve.cosine_at(0.6) == pytest.approx(0.75)
    assert curve.cosine_at(0.95) > 1


def test_threshold_for_a_stated_rate_of_strangers() -> None:
    rivals = torch.tensor([0.9, 0.1, 0.5, 0.7], dtype=torch.float64)
    pairs = KnownPairs(torch.tensor([0.6, 0.8], dtype=torch.float64), rivals, rivals)
    for allowed, limit in ((0.0, 0.9), (0.24, 0.9), (0.25, 0.7), (0.5, 0.5)):
        threshold = threshold_for(pairs, fpir=allowed)
        assert threshold == pytest.approx(limit)
        assert error_rates(pairs, threshold=threshold)[0] <= allowed
        assert error_rates(pairs, threshold=np.nextafter(limit, -1))[0] > allowed
    assert error_rates(pairs, threshold=0.7) == (0.5, 0.5)
    assert threshold_for(pairs, fpir=1.0) == -1


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="4 pairs of the same"):
        fit(pairs_of(1, same=4))
    with pytest.raises(UsageError, match="logistic or isotonic"):
        fit(pairs_of(1), method="otsu")
    with pytest.raises(UsageError, match="fpir"):
        threshold_for(pairs_of(1), fpir=2.0)
    nobody = KnownPairs(*(torch.zeros(0, dtype=torch.float64) for _ in range(3)))
    with pytest.raises(InputError, match="no stranger"):
        threshold_for(nobody, fpir=0.1)
    assert all(np.isnan(rate) for rate in error_rates(nobody, threshold=0.5))
