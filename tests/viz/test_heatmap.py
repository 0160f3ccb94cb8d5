"""The red lies where the cosines are, to the half pixel, on a scale that is the same for every picture."""

import numpy as np
import pytest
import torch

from patchatlas.errors import UsageError
from patchatlas.geometry.buckets import fit
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.grid import PatchGrid
from patchatlas.viz.heatmap import LONGEST, RED, SHORTEST, Scale, draw_photo, overlay, view_of

GREY = 100


def photo(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def redness(picture: np.ndarray) -> np.ndarray:
    """Part of red in each pixel of an overlay on `photo`."""
    return (picture[..., 0].astype(float) - GREY) / (RED[0] - GREY)


def test_red_at_patch_centres_and_between_them() -> None:
    """4 x 6 patches of 9 px on a picture drawn at its own size: centres of patches are centres of pixels."""
    cosines = torch.zeros(4, 6)
    cosines[1, 4] = 1.0
    whole = Frame.whole((36, 54))
    red = redness(overlay(photo(36, 54), cosines, PatchGrid.on(whole, (9, 9)), view=whole, scale=Scale(0.0, 1.0)))
    assert np.unravel_index(red.argmax(), red.shape) == (9 + 4, 4 * 9 + 4)
    np.testing.assert_allclose(red[13, 40], 0.7, atol=0.005)
    np.testing.assert_allclose(red[13, 40 + 3], 0.7 * 2 / 3, atol=0.005)  # a third of the way to the next centre
    np.testing.assert_allclose(red[13 - 6, 40], 0.7 / 3, atol=0.005)
    assert (red[:, :31] == 0).all()
    assert (red[:, 50:] == 0).all()
    assert (red[23:] == 0).all()


def test_red_follows_resize_and_padding() -> None:
    """A 60 x 100 picture fitted to 96 px (58 x 96, padded to 64), drawn 720 px long: centre of mass of one patch."""
    frame = fit((60, 100), long_side=96, patch=(16, 16))
    grid = PatchGrid.on(frame, (16, 16))
    cosines = torch.zeros(grid.shape)
    cosines[1, 3] = 1.0
    view = view_of((60, 100))
    red = redness(overlay(photo(60, 100), cosines, grid, view=view, scale=Scale(0.0, 1.0)))
    rows, columns = np.indices(red.shape)
    found = torch.tensor([[(red * (columns + 0.5)).sum() / red.sum(), (red * (rows + 0.5)).sum() / red.sum()]])
    expected = [(3.5 * 16) * 100 / 96, (1.5 * 16) * 60 / 58]
    np.testing.assert_allclose(view.to_source(found)[0], expected, atol=0.02)


def test_the_scale_is_the_same_in_every_picture() -> None:
    """A cosine of 0.8 has one colour, whatever else is in the picture."""
    whole = Frame.whole((16, 16))
    grid = PatchGrid.on(whole, (8, 8))
    weak, strong = torch.tensor([[0.1, 0.2], [0.3, 0.8]]), torch.tensor([[0.8, 0.9], [0.95, 1.0]])
    a, b = (overlay(photo(16, 16), m, grid, view=whole, scale=Scale(0.5, 1.0)) for m in (weak, strong))
    np.testing.assert_array_equal(a[15, 15], b[0, 0])
    np.testing.assert_array_equal(a[15, 15], np.rint(GREY + 0.42 * (np.array(RED) - GREY)))


@pytest.mark.parametrize(
    ("cosine", "strength"), [(-1.0, 0.0), (0.5, 0.0), (0.6, 0.14), (0.75, 0.35), (1.0, 0.7), (1.01, 0.7)]
)
def test_strength_by_hand(cosine: float, strength: float) -> None:
    assert Scale(0.5, 1.0).strength(torch.tensor([cosine])).item() == pytest.approx(strength, abs=1e-6)


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.5), (0.8, 0.2), (-1.5, 1.0), (0.0, 2.0), (float("nan"), 1.0)])
def test_no_scale(low: float, high: float) -> None:
    with pytest.raises(UsageError, match="low < high"):
        Scale(low, high)


def test_patches_that_do_not_count_stay_grey_and_tint_nothing() -> None:
    whole = Frame.whole((32, 32))
    scored = torch.ones(4, 4, dtype=torch.bool)
    scored[:, 3] = False
    cosines = torch.full((4, 4), 0.6)
    cosines[:, 3] = 1.0
    red = redness(
        overlay(photo(32, 32), cosines, PatchGrid.on(whole, (8, 8)), view=whole, scale=Scale(0.0, 1.0), scored=scored)
    )
    assert (red[:, 24:] == 0).all()
    np.testing.assert_allclose(red[:, :24], 0.42, atol=0.005)


def test_the_photo_under_the_red_is_its_luma() -> None:
    whole = Frame.whole((8, 8))
    coloured = np.broadcast_to(np.array([200, 100, 50], np.uint8), (8, 8, 3)).copy()
    picture = overlay(coloured, torch.zeros(1, 1), PatchGrid.on(whole, (8, 8)), view=whole, scale=Scale())
    np.testing.assert_array_equal(picture, np.full((8, 8, 3), round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)))


@pytest.mark.parametrize(
    ("size_hw", "drawn"),
    [
        ((500, 741), (500, 741)),
        ((72, 96), (540, SHORTEST)),
        ((5992, 3995), (LONGEST, 1067)),
        ((10, 16000), (1, LONGEST)),
        ((1, 2000), (1, LONGEST)),
        ((SHORTEST, 5), (SHORTEST, 5)),
    ],
)
def test_size_of_the_drawing(size_hw: tuple[int, int], drawn: tuple[int, int]) -> None:
    assert view_of(size_hw).size == drawn


def test_outside_the_photo_is_dark() -> None:
    picture = draw_photo(photo(4, 4), Frame.whole((4, 4)).crop((-2, 1), (4, 4)))
    assert (picture[:2] == 40).all()
    assert (picture[:, 3] == 40).all()
    assert (picture[2:, :3] == GREY).all()
