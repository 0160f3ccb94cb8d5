"""Colours varied by hand."""

import numpy as np
import pytest
import torch

from patchatlas.pretrain.crops.colours import (
    brighter,
    contrasted,
    grey,
    jittered,
    lit,
    luma,
    noisy,
    saturated,
    solarised,
    turned,
)
from patchatlas.pretrain.crops.config import PhotoAugment, PhotoLight


def picture(*rgb: tuple[float, float, float]) -> torch.Tensor:
    """One row of pixels."""
    return torch.tensor(rgb).T[:, None, :].contiguous()


RED, GREY = (1.0, 0.0, 0.0), (0.5, 0.5, 0.5)


def test_luma_brightness_contrast() -> None:
    torch.testing.assert_close(luma(picture(RED, GREY)), torch.tensor([[[0.299, 0.5]]]))
    torch.testing.assert_close(brighter(picture(GREY), 1.5), picture((0.75, 0.75, 0.75)))
    two = picture((0.2, 0.2, 0.2), (0.6, 0.6, 0.6))
    torch.testing.assert_close(contrasted(two, 2.0), picture((0.0, 0.0, 0.0), (0.8, 0.8, 0.8)))
    torch.testing.assert_close(contrasted(two, 0.0), picture((0.4, 0.4, 0.4), (0.4, 0.4, 0.4)))


def test_saturation() -> None:
    torch.testing.assert_close(saturated(picture(GREY), 3.0), picture(GREY))
    torch.testing.assert_close(saturated(picture(RED), 0.0), grey(picture(RED)))
    torch.testing.assert_close(saturated(picture(RED), 1.0), picture(RED))


def test_hue_turns_about_grey_and_keeps_luma() -> None:
    torch.testing.assert_close(turned(picture(GREY), 0.3), picture(GREY), atol=1e-3, rtol=0)
    torch.testing.assert_close(turned(picture(RED), 1.0), picture(RED), atol=1e-6, rtol=0)
    half = turned(picture(RED), 0.5)
    torch.testing.assert_close(luma(half), luma(picture(RED)), atol=1e-4, rtol=0)
    assert half[0, 0, 0] < half[1, 0, 0]  # no longer red
    torch.testing.assert_close(turned(turned(picture(RED), 0.2), -0.2), picture(RED), atol=1e-6, rtol=0)


def test_solarise() -> None:
    torch.testing.assert_close(solarised(picture((0.2, 0.5, 0.9)), 0.5), picture((0.2, 0.5, 0.1)))


def test_jitter_stays_in_range_and_is_repeatable() -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).random((3, 8, 8), dtype=np.float32))
    strong = PhotoAugment(brightness=1.0, contrast=1.0, saturation=1.0, hue=0.5)
    one, again, other = (jittered(pixels, strong, np.random.default_rng(k)) for k in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert 0 <= one.min() <= one.max() <= 1
    none = PhotoAugment(brightness=0, contrast=0, saturation=0, hue=0)
    torch.testing.assert_close(jittered(pixels, none, np.random.default_rng(0)), pixels, atol=1e-5, rtol=0)
    assert one.mean().item() != pytest.approx(pixels.mean().item(), abs=1e-3)


STILL = {"gain": 0, "contrast": (1, 1), "level": 0, "gamma": (1, 1), "slope": 0}


def light(**changes: object) -> PhotoLight:
    """No change but these."""
    return PhotoLight.model_validate(STILL | changes)


def test_light_by_hand() -> None:
    two, rng = picture((0.2, 0.2, 0.2), (0.6, 0.6, 0.6)), np.random.default_rng(0)
    torch.testing.assert_close(lit(two, light(), rng), two)
    torch.testing.assert_close(lit(two, light(contrast=(0.5, 0.5)), rng), picture((0.3, 0.3, 0.3), (0.5, 0.5, 0.5)))
    torch.testing.assert_close(lit(two, light(gamma=(2, 2)), rng), picture((0.04, 0.04, 0.04), (0.36, 0.36, 0.36)))
    moved = lit(two, light(level=0.1), rng) - two
    assert float(moved.max() - moved.min()) == pytest.approx(0, abs=1e-6)
    assert 0 < float(moved.abs().max()) <= 0.1
    gained = lit(two, light(gain=0.3), rng) / two
    torch.testing.assert_close(gained[..., 0], gained[..., 1])  # one factor a channel, three different ones
    assert len({round(float(factor), 4) for factor in gained[:, 0, 0]}) == 3


def test_a_slope_runs_straight_across_and_leaves_the_middle() -> None:
    sloped = lit(torch.full((3, 5, 7), 0.5), light(slope=0.4), np.random.default_rng(1))
    torch.testing.assert_close(sloped[:, 2, 3], torch.full((3,), 0.5))
    torch.testing.assert_close(sloped[0].diff(n=2, dim=0), torch.zeros(3, 7), atol=1e-6, rtol=0)
    torch.testing.assert_close(sloped[0].diff(n=2, dim=1), torch.zeros(5, 5), atol=1e-6, rtol=0)
    assert float(sloped[0, 0, 0] - sloped[0, -1, -1]) != 0


def test_noise_has_the_deviation_asked_for_at_most() -> None:
    rng = np.random.default_rng(2)
    deviations = [float(noisy(torch.full((3, 64, 64), 0.5), 0.1, rng).std()) for _ in range(40)]
    assert 0 <= min(deviations) < 0.02
    assert 0.08 < max(deviations) < 0.102


def test_light_leaves_its_input_alone() -> None:
    given = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    kept = given.clone()
    lit(given, PhotoLight(), np.random.default_rng(0))
    noisy(given, 0.1, np.random.default_rng(0))
    assert torch.equal(given, kept)
