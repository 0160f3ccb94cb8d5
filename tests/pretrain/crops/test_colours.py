"""Colours varied by hand."""

import numpy as np
import pytest
import torch

from patchatlas.pretrain.crops.colours import brighter, contrasted, grey, jittered, luma, saturated, solarised, turned
from patchatlas.pretrain.crops.config import PhotoAugment


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
