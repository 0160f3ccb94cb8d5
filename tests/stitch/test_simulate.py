"""Simulated scans: exact tiles, honest photons, paths on the object, the same bytes every time, readable by us."""

import math

import numpy as np
import pytest
import torch

from patchatlas.errors import UsageError
from patchatlas.io.scans.read import read_scan
from patchatlas.stitch.positions import corners
from patchatlas.stitch.simulate import (
    FINEST_PX,
    MARGIN,
    PATHS,
    make_object,
    make_probe,
    save_simulation,
    scan_path,
    simulate,
)

SIDE = 24


@pytest.fixture(scope="module")
def parts():
    rng = np.random.default_rng(5)
    image, probe = make_object((90, 110), rng), make_probe(SIDE, photons=1e5)
    return image, probe, scan_path("random", 20, object_hw=(90, 110), side=SIDE, generator=rng)


def made(parts, *, seed=1, **options):
    return simulate(*parts, generator=np.random.default_rng(seed), **options)


def test_tiles_are_the_object_at_whole_positions(parts):
    image, probe, _ = parts
    at = torch.tensor([[30.0, 21.0], [61.0, 40.0]], dtype=torch.float64)
    tiles = made((image, probe, at), noise=False).tiles
    for tile, (x, y) in zip(tiles, at.int().tolist(), strict=True):
        torch.testing.assert_close(tile, image[y : y + SIDE, x : x + SIDE], atol=1e-6, rtol=0)


def test_tiles_between_pixels_are_the_object_shifted(parts):
    """Against the phase ramp of the whole object, which is exact for what repeats; the middle does not see the seam."""
    image, probe, _ = parts
    fy, fx = (torch.fft.fftfreq(n, dtype=torch.float64) for n in image.shape)
    x, y = 44.3, 31.8
    ramp = torch.exp(2j * torch.pi * (fx[None] * (x % 1) + fy[:, None] * (y % 1)))
    shifted = torch.fft.ifft2(torch.fft.fft2(image.to(torch.complex128)) * ramp)
    tile = made((image, probe, torch.tensor([[x, y]], dtype=torch.float64)), noise=False).tiles[0]
    apart = (tile - shifted[31 : 31 + SIDE, 44 : 44 + SIDE]).abs().max()
    assert apart < 2e-3
    assert (tile - image[32 : 32 + SIDE, 44 : 44 + SIDE]).abs().max() > 20 * apart


def test_photons(parts):
    clean, noisy = made(parts, noise=False), made(parts)
    # Parseval: the orthonormal transform keeps the sum of squares.
    expected = (parts[1] * clean.tiles).abs().square().sum(dim=(1, 2))
    torch.testing.assert_close(clean.diffraction.square().sum(dim=(1, 2)), expected, rtol=1e-4, atol=0)
    assert float(parts[1].abs().square().sum()) == pytest.approx(1e5, rel=1e-5)
    counts = noisy.diffraction.double().square()
    torch.testing.assert_close(counts, counts.round(), atol=2e-2, rtol=0)
    # Poisson: variance is the mean.
    mean = clean.diffraction.double().square()
    bright = mean > 20
    assert float(((counts - mean).square()[bright] / mean[bright]).mean()) == pytest.approx(1, abs=0.1)


def test_zero_frequency_is_in_the_middle(parts):
    frame = made(parts, noise=False).diffraction.square().mean(dim=0)
    weight = frame / frame.sum()
    at = torch.arange(SIDE).float()
    assert float((weight.sum(dim=1) * at).sum()) == pytest.approx(SIDE // 2, abs=1.5)
    assert float((weight.sum(dim=0) * at).sum()) == pytest.approx(SIDE // 2, abs=1.5)


def test_jitter_is_in_the_record_only(parts):
    still, shaken = made(parts, noise=False), made(parts, noise=False, jitter=0.5)
    torch.testing.assert_close(still.recorded, still.positions, rtol=0, atol=0)
    torch.testing.assert_close(still.tiles, shaken.tiles, rtol=0, atol=0)
    error = shaken.recorded - shaken.positions
    assert float(error.square().mean().sqrt()) == pytest.approx(0.5, rel=0.2)
    assert float(error.abs().max()) <= 0.5 * math.sqrt(3)


def test_the_object_is_smooth_and_has_no_symmetry():
    image = make_object((128, 96), np.random.default_rng(0))
    power = torch.fft.fft2(image).abs().square()
    v = torch.hypot(torch.fft.fftfreq(128)[:, None], torch.fft.fftfreq(96)[None])
    assert float(power[v > 0.375].sum() / (power.sum() - power[0, 0])) < 1e-3
    assert FINEST_PX > 1
    for other in (image.flip(0), image.flip(1), image.flip(0, 1)):
        a, b = image - image.mean(), other - image.mean()
        assert float((a.conj() * b).sum().abs() / a.abs().square().sum()) < 0.3
    assert float(image.abs().min()) >= 0.6
    assert float(image.abs().max()) <= 1.0


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize("count", [1, 2, 97])
def test_paths_stay_on_the_object(kind, count):
    at = scan_path(kind, count, object_hw=(100, 140), side=SIDE, generator=np.random.default_rng(0))
    assert at.shape == (count, 2)
    assert len(at.unique(dim=0)) == count
    assert bool((at >= MARGIN).all())
    assert bool((at[:, 0] <= 140 - SIDE - MARGIN).all())
    assert bool((at[:, 1] <= 100 - SIDE - MARGIN).all())
    assert count < 97 or bool((np.ptp(at.numpy(), axis=0) > [60, 25]).all())


def test_raster_goes_across_first():
    at = scan_path("raster", 12, object_hw=(104, 104), side=SIDE, generator=np.random.default_rng(0))
    steps = at.diff(dim=0)
    assert bool((steps[:3, 0] > 0).all())
    assert bool((steps[:3, 1] == 0).all())


def test_what_does_not_fit_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(UsageError, match="do not fit on an object of 60 x 100"):
        scan_path("random", 5, object_hw=(60, 100), side=SIDE, generator=rng)
    with pytest.raises(UsageError, match="do not fit"):
        scan_path("random", 0, object_hw=(100, 100), side=SIDE, generator=rng)


def test_our_reader_reads_it_and_bytes_repeat(parts, tmp_path):
    simulation = made(parts, jitter=0.3)
    for name in ("a.npz", "b.npz"):
        save_simulation(tmp_path / name, simulation, metadata={"seed": 1})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    scan = read_scan(tmp_path / "a.npz", frames=True)
    torch.testing.assert_close(corners(scan, (SIDE, SIDE)), simulation.recorded, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(scan.tiles, simulation.tiles.numpy())
    np.testing.assert_array_equal(scan.diffraction, simulation.diffraction.numpy())
    np.testing.assert_array_equal(scan.object, parts[0].numpy())
    np.testing.assert_array_equal(scan.probe, parts[1].numpy()[None])
    with np.load(tmp_path / "a.npz") as file:
        np.testing.assert_allclose(file["xcoords_true"], simulation.positions[:, 0] + SIDE // 2, rtol=1e-12)
        assert '"seed": 1' in str(file["_metadata"])
