"""Refinement brings jittered positions back, keeps right ones, and says what it could not do."""

import numpy as np
import pytest
import torch

from patchatlas.errors import InputError, UsageError
from patchatlas.stitch.refine import refine
from patchatlas.stitch.simulate import make_object, make_probe, scan_path, simulate


def scanned(jitter, *, count=80, side=32):
    rng = np.random.default_rng(3)
    image = make_object((150, 150), rng)
    at = scan_path("fermat", count, object_hw=(150, 150), side=side, generator=rng)
    return simulate(image, make_probe(side), at, generator=rng, jitter=jitter, noise=False)


def error(positions, truth):
    """RMS along each axis, the common shift taken off."""
    apart = positions - truth
    return float((apart - apart.mean(dim=0)).square().mean().sqrt())


@pytest.mark.parametrize("jitter", [0.5, 1.0])
@pytest.mark.parametrize("part", ["complex", "real"])
def test_jitter_is_undone(jitter, part):
    scan = scanned(jitter)
    tiles = scan.tiles[:, None] if part == "complex" else scan.tiles.angle()[:, None]
    seen = []
    found = refine(tiles, scan.recorded, on_round=lambda number, residual: seen.append((number, residual)))
    assert error(scan.recorded, scan.positions) > 0.9 * jitter
    assert error(found.positions, scan.positions) < 0.06 * jitter
    assert found.before > 0.01
    assert found.after < 0.01 * found.before
    assert found.residuals[0] == found.before
    assert [number for number, _ in seen] == list(range(1, len(found.residuals)))
    torch.testing.assert_close(found.positions - scan.recorded, found.shifts, rtol=0, atol=0)
    assert float(found.shifts.mean().abs()) < 1e-9
    assert found.held == ()


def test_right_positions_stay():
    scan = scanned(0.0)
    found = refine(scan.tiles[:, None], scan.positions)
    assert float(found.shifts.abs().max()) < 0.03
    assert found.after <= found.before


def test_linear_reading_works_too():
    scan = scanned(0.5)
    found = refine(scan.tiles[:, None], scan.recorded, interpolation="linear")
    assert error(found.positions, scan.positions) < 0.1


def test_a_tile_that_would_go_too_far_is_held_and_named():
    scan = scanned(0.3)
    given = scan.recorded.clone()
    given[7, 0] += 2.5
    found = refine(scan.tiles[:, None], given, limit=1.5)
    assert found.held == (7,)
    assert found.shifts[7].tolist() == [0, 0]
    others = torch.arange(len(given)) != 7
    assert error(found.positions[others], scan.positions[others]) < 0.1
    assert error(refine(scan.tiles[:, None], given, limit=4.0).positions, scan.positions) < 0.05


def test_the_best_round_is_kept():
    scan = scanned(0.5)
    found = refine(scan.tiles[:, None], scan.recorded, rounds=2)
    assert len(found.residuals) == 3
    assert found.after == min(found.residuals)


def test_nothing_to_hold_on_to():
    scan = scanned(0.0, count=4)
    apart = torch.tensor([[0.0, 0], [100, 0], [0, 100], [100, 100]], dtype=torch.float64)
    with pytest.raises(InputError, match="no two tiles overlap"):
        refine(scan.tiles[:, None], apart)
    with pytest.raises(InputError, match="all are even"):
        refine(torch.ones(4, 1, 32, 32), scan.positions)
    with pytest.raises(UsageError, match="must be positive"):
        refine(scan.tiles[:, None], scan.positions, rounds=0)
