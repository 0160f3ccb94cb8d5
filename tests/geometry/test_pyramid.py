"""Drawing quadrilaterals: ramps keep their coordinates at every size, fine stripes become grey, not other stripes."""

import numpy as np
import pytest
import torch

from patchatlas.geometry.frame import Frame
from patchatlas.geometry.projective import Projective
from patchatlas.geometry.pyramid import Pyramid
from patchatlas.geometry.sampling import resample


def ramp(h: int, w: int) -> np.ndarray:
    """Red is twice the column and green twice the row: the point (x, y) has levels 2 x - 1 and 2 y - 1."""
    pixels = np.zeros((h, w, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = 2 * np.arange(w), 2 * np.arange(h)[:, None]
    return pixels


def centres(h: int, w: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(h).double() + 0.5, torch.arange(w).double() + 0.5, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


QUADS = {
    "enlarged": [(30, 40), (50, 43), (46, 60), (28, 58)],
    "as it is": [(10, 20), (42, 20), (42, 52), (10, 52)],
    "turned by a quarter": [(100, 10), (100, 110), (10, 110), (10, 10)],
    "slanted and small": [(12, 10), (117, 25), (108, 113), (20, 104)],
    "mirrored": [(110, 10), (12, 10), (12, 112), (110, 112)],
}


@pytest.mark.parametrize("name", QUADS)
@pytest.mark.parametrize("size", [(32, 32), (24, 40), (8, 10)])
def test_ramps_keep_their_coordinates(name: str, size: tuple[int, int]) -> None:
    warp = Projective.onto(size, np.array(QUADS[name], dtype=np.float64))
    drawn = Pyramid.of(ramp(124, 125)).draw(warp, size)
    true = warp.to_source(centres(*size))
    read = (drawn[:2].flatten(1).T * 255 + 1) / 2
    torch.testing.assert_close(read.double(), true, rtol=0, atol=1e-3)


def test_copies_halve_and_say_what_they_take() -> None:
    pyramid = Pyramid.of(ramp(100, 129))
    assert [level.shape for level in pyramid.levels] == [(100, 129, 3), (50, 64, 3)]
    assert pyramid.nbytes == 3 * (100 * 129 + 50 * 64)
    assert (pyramid.levels[1][..., 0] == 4 * np.arange(64) + 1).all()
    grey = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    means = [level.mean() for level in Pyramid.of(grey).levels]
    assert max(means) - min(means) < 0.05  # rounding brightens nothing


def test_fine_stripes_become_grey() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    warp = Projective.onto((48, 48), np.array([(3, 9), (240, 2), (250, 250), (5, 245)], dtype=np.float64))
    drawn = Pyramid.of(stripes).draw(warp, (48, 48))
    assert float((drawn - 0.5).abs().max()) < 0.01
    assert float(Pyramid((stripes,)).draw(warp, (48, 48)).std()) > 0.2  # without copies


def test_what_shows_detail_is_as_sharp_as_a_resize() -> None:
    rng = np.random.default_rng(1)
    picture = (rng.random((16, 16, 3)).repeat(8, 0).repeat(8, 1) * 255).astype(np.uint8)
    frame = Frame.whole((128, 128)).crop((16, 16), (96, 96)).resize((48, 48))
    drawn = Pyramid.of(picture).draw(Projective.of_frame(frame), (48, 48))
    plain = resample(torch.from_numpy(picture).permute(2, 0, 1) / 255, frame)
    assert float((drawn - plain).abs().mean()) < 0.05
    assert float(drawn.std()) > 0.98 * float(plain.std())


def test_the_border_repeats() -> None:
    beyond = Projective.onto((8, 8), np.array([(-20, 0), (-10, 0), (-10, 10), (-20, 10)], dtype=np.float64))
    assert float(Pyramid.of(ramp(124, 125)).draw(beyond, (8, 8))[0].abs().max()) == 0
    far = Projective.onto((8, 8), np.array([(130, 130), (140, 130), (140, 140), (130, 140)], dtype=np.float64))
    assert (Pyramid.of(ramp(124, 125)).draw(far, (8, 8))[1] * 255).unique().tolist() == [246]
