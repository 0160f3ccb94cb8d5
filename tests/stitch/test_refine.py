"""Refinement brings jittered positions back, keeps right ones, and says what it could not do."""

import numpy as np
import pytest
import torch

from patchatlas.errors import InputError, UsageError
from patchatlas.stitch.refine import refine
from patchatlas.stitch.simulate import make_object, make_probe, scan_path, simulate


def scanned(jitter, *, count=80, side=32, path="fermat", image=None):
    rng = np.random.default_rng(3)
    image = make_object((150, 150), rng) if image is None else image
    at = scan_path(path, count, object_hw=(150, 150), side=side, generator=rng)
    return simulate(image, make_probe(side), at, generator=rng, jitter=jitter, noise=False)


def noisy(tiles, level):
    """Tiles with white noise of `level` times their contrast."""
    contrast = float((tiles - tiles.mean()).abs().square().mean().sqrt())
    noise = torch.randn(tiles.shape, generator=torch.Generator().manual_seed(0), dtype=tiles.dtype)
    return tiles + level * contrast * noise


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


@pytest.mark.parametrize("path", ["fermat", "raster"])
@pytest.mark.parametrize(("jitter", "most"), [(0.0, 0.04), (0.5, 0.05)])
def test_noise_in_the_tiles(path, jitter, most):
    """The least residual is that of the first round here, as tiles half a pixel off smooth their noise."""
    scan = scanned(jitter, path=path)
    found = refine(noisy(scan.tiles[:, None], 0.3), scan.recorded)
    assert error(found.positions, scan.positions) < most


def test_periodic_object_on_a_raster():
    y, x = np.mgrid[:150, :150]
    image = np.exp(0.8j * np.cos(2 * np.pi * x / 8) * np.cos(2 * np.pi * y / 8))
    scan = scanned(0.5, path="raster", image=torch.from_numpy(image).to(torch.complex64))
    found = refine(scan.tiles[:, None], scan.recorded)
    assert error(found.positions, scan.positions) < 0.05


@pytest.mark.parametrize("axis", [0, 1])
def test_lines_tell_one_direction_only(axis):
    image = np.exp(0.8j * np.cos(2 * np.pi * np.mgrid[:150, :150][1 - axis] / 9))
    scan = scanned(0.5, image=torch.from_numpy(image).to(torch.complex64))
    found = refine(scan.tiles[:, None], scan.recorded)
    assert error(found.positions[:, axis], scan.positions[:, axis]) < 0.02
    along = found.shifts[:, 1 - axis]
    torch.testing.assert_close(along, along.mean().expand(len(along)), atol=0.03, rtol=0)  # but for the common shift


def test_strong_lines_among_other_things_are_not_moved_along_themselves():
    """Their noise has more slope along them than the median tile asks for, but little beside their own steepest."""
    y = np.mgrid[:150, :150][0]
    image = torch.from_numpy(np.exp(1.5j * np.cos(2 * np.pi * y / 7))).to(torch.complex64)
    image[:, :75] = make_object((150, 75), np.random.default_rng(3))
    scan = scanned(0.5, image=image)
    found = refine(noisy(scan.tiles[:, None], 0.25), scan.recorded)
    along = found.shifts[scan.positions[:, 0] > 80, 0]
    assert len(along) == 12
    assert float((along - along.median()).abs().max()) < 0.05


def test_empty_tiles_are_left():
    image = torch.ones(150, 150, dtype=torch.complex64)
    image[:, :75] = make_object((150, 75), np.random.default_rng(3))
    scan = scanned(0.5, image=image)
    found = refine(noisy(scan.tiles[:, None], 0.1), scan.recorded)
    empty = scan.positions[:, 0] > 80
    assert int(empty.sum()) > 5
    apart = found.shifts[empty] - found.shifts[empty].median(dim=0).values
    assert float(apart.abs().median()) < 1e-9  # most have not moved, but for the common shift
    full = scan.positions[:, 0] < 50
    assert error(found.positions[full], scan.positions[full]) < 0.05


def test_where_the_residual_did_not_fall_the_given_positions_come_back(monkeypatch):
    growing = iter([0.1, 0.3, 0.05, 0.2])
    monkeypatch.setattr("patchatlas.stitch.refine.overlap_residual", lambda *_: next(growing))
    scan = scanned(0.5)
    found = refine(scan.tiles[:, None], scan.recorded, rounds=3)
    assert (found.chosen, found.before, found.after) == (0, 0.1, 0.1)
    torch.testing.assert_close(found.positions, scan.recorded, rtol=0, atol=0)
    assert float(found.shifts.abs().max()) == 0


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


def test_rounds_end_when_they_are_used_up():
    scan = scanned(0.5)
    found = refine(scan.tiles[:, None], scan.recorded, rounds=2)
    assert len(found.residuals) == 3
    assert found.chosen == 2
    assert found.after == found.residuals[2]


def test_nothing_to_hold_on_to():
    scan = scanned(0.0, count=4)
    apart = torch.tensor([[0.0, 0], [100, 0], [0, 100], [100, 100]], dtype=torch.float64)
    with pytest.raises(InputError, match="no two tiles overlap"):
        refine(scan.tiles[:, None], apart)
    with pytest.raises(InputError, match="all are even"):
        refine(torch.ones(4, 1, 32, 32), scan.positions)
    with pytest.raises(UsageError, match="must be positive"):
        refine(scan.tiles[:, None], scan.positions, rounds=0)
