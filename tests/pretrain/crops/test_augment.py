"""How values are varied: each step by hand, chances by counting, and the window that never hides foreground."""

import numpy as np
import pytest
import torch

from patchatlas.pretrain.crops.augment import blurred, coarse, draw_flips, log_uniform, other_window, vary, windowed
from patchatlas.pretrain.crops.config import VolumeAugment

WINDOW = (-1000.0, 1000.0)
NONE = VolumeAugment.none()


def only(**changes: object) -> VolumeAugment:
    """Nothing but what is named."""
    return VolumeAugment.model_validate(NONE.model_dump() | changes)


def flat(hu: float = 0.0) -> torch.Tensor:
    """A crop of one value."""
    return torch.full((1, 12, 12, 12), hu)


def rng(seed: int = 0) -> np.random.Generator:
    """A generator."""
    return np.random.default_rng(seed)


def test_without_variation_only_the_window_is_applied() -> None:
    hu = torch.tensor([-2000.0, -1000.0, -500.0, 0.0, 1000.0, 3000.0]).reshape(1, 1, 1, 6)
    expected = torch.tensor([0, 0, 0.25, 0.5, 1, 1]).reshape(1, 1, 1, 6)
    torch.testing.assert_close(vary(hu, NONE, WINDOW, rng(), floor=-500.0), expected)
    torch.testing.assert_close(windowed(hu, WINDOW), expected)


def test_noise_has_the_spread_asked_for_in_hu() -> None:
    out = vary(torch.zeros(1, 40, 40, 40), only(noise_prob=1, noise_hu=(30, 30)), WINDOW, rng(), floor=-500.0)
    assert (out.std() * 2000).item() == pytest.approx(30, rel=0.02)
    assert (out.mean() * 2000 - 1000).item() == pytest.approx(0, abs=1)


def test_blur_keeps_a_flat_crop_and_spreads_a_point() -> None:
    torch.testing.assert_close(blurred(flat(40.0), 1.0), flat(40.0))
    point = torch.zeros(1, 21, 21, 21)
    point[0, 10, 10, 10] = 1
    spread = blurred(point, 1.5)
    assert spread.sum().item() == pytest.approx(1, rel=1e-4)
    along = spread[0].sum(dim=(0, 1))
    variance = (along * (torch.arange(21.0) - 10) ** 2).sum()
    assert variance.item() == pytest.approx(1.5**2, rel=0.05)  # the tails beyond three sigmas are cut


def test_fewer_voxels_keep_size_place_and_mean() -> None:
    ramp = torch.arange(24.0).expand(1, 24, 24, 24)
    drawn = coarse(ramp, 2.0)
    assert drawn.shape == ramp.shape
    torch.testing.assert_close(drawn[..., 6:18], ramp[..., 6:18], atol=1e-3, rtol=0)
    noise = torch.from_numpy(rng().standard_normal((1, 24, 24, 24), dtype=np.float32))
    assert coarse(noise, 2.0).std() < 0.6 * noise.std()


def test_gamma_keeps_the_ends_of_the_window() -> None:
    hu = torch.tensor([-1000.0, 0.0, 1000.0]).reshape(1, 1, 1, 3)
    out = vary(hu, only(gamma_prob=1, gamma=(2, 2)), WINDOW, rng(), floor=-500.0)
    torch.testing.assert_close(out.flatten(), torch.tensor([0, 0.25, 1]))


def test_a_varied_window_never_begins_above_the_foreground() -> None:
    augment = only(window_prob=1, window_shift_hu=400, window_width=(0.5, 1.5))
    windows = np.array([other_window((-600.0, 1000.0), augment, rng(k), -500.0) for k in range(300)])
    assert windows[:, 0].max() == -500
    assert windows[:, 0].min() < -900
    assert (windows[:, 1] > windows[:, 0]).all()


def test_flips_by_anatomy() -> None:
    assert draw_flips(only(flip_left_right=1), rng()) == (2,)
    assert draw_flips(only(flip_front_back=1, flip_head_foot=1), rng()) == (0, 1)
    times = sum(draw_flips(only(flip_left_right=0.3), rng(k)) == (2,) for k in range(1000))
    assert times / 1000 == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("name", ["low_resolution", "blur", "noise", "window", "gamma"])
def test_every_chance_is_what_it_says(name: str) -> None:
    hu = torch.from_numpy(100 * rng().standard_normal((1, 6, 6, 6), dtype=np.float32))
    still = vary(hu, NONE, WINDOW, rng(), floor=-500.0)
    augment = only(**{f"{name}_prob": 0.4}, low_resolution=(1.6, 2.0))
    changed = [not torch.equal(vary(hu, augment, WINDOW, rng(k), floor=-500.0), still) for k in range(500)]
    assert np.mean(changed) == pytest.approx(0.4, abs=0.07)


def test_the_generator_decides_everything() -> None:
    hu = torch.from_numpy(100 * rng().standard_normal((1, 6, 6, 6), dtype=np.float32))
    full = VolumeAugment.model_validate(
        {f"{name}_prob": 1.0 for name in ("low_resolution", "blur", "noise", "window", "gamma")}
    )
    one, again, other = (vary(hu, full, WINDOW, rng(k), floor=-500.0) for k in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert 0 <= one.min() <= one.max() <= 1


def test_factors_are_even_over_their_logarithm() -> None:
    drawn = [log_uniform((0.5, 2.0), rng(k)) for k in range(500)]
    assert np.mean([one < 1 for one in drawn]) == pytest.approx(0.5, abs=0.06)
