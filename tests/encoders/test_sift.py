"""Dense SIFT: exact places, the arithmetic of the paper, and no opinion where there is nothing to see."""

import math
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from patchatlas.encoders.sift import BLUR, OCTAVES, DenseSift, contrasted, load, root_sift
from patchatlas.errors import MissingExtraError, ShapeError

CPU = torch.device("cpu")
SIZES = len(OCTAVES)


@pytest.fixture(scope="module")
def sift() -> DenseSift:
    return load(device=CPU)


def blocks(sift: DenseSift, pictures: torch.Tensor) -> torch.Tensor:
    """Descriptors as b, grid row, grid column, size, bin row, bin column, direction."""
    gh, gw = pictures.shape[2] // 8, pictures.shape[3] // 8
    return sift(pictures).patches.reshape(-1, gh, gw, SIZES, 4, 4, 8)


def cosines(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return F.cosine_similarity(a.flatten(-3), b.flatten(-3), dim=-1)


def smooth_noise(seed: int, h: int, w: int) -> torch.Tensor:
    coarse = torch.rand(1, 3, h // 4, w // 4, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=(h, w), mode="bicubic", align_corners=False).clamp(0, 1)


class Waves:
    """A picture known at every real point: cosines with wavelengths of 10 to 160 pixels."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        length = np.geomspace(10, 160, 40)
        turn = rng.uniform(0, 2 * math.pi, 40)
        self.k_xy = 2 * math.pi / length[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        self.phase = rng.uniform(0, 2 * math.pi, 40)
        self.amplitude = length**0.5

    def at(self, x: np.ndarray, y: np.ndarray, *, blur: float = 0.0) -> np.ndarray:
        """Values after a Gaussian blur, which damps a wave k by exp(-(blur k)^2 / 2)."""
        damped = self.amplitude * np.exp(-((blur * np.linalg.norm(self.k_xy, axis=1)) ** 2) / 2)
        angle = x[..., None] * self.k_xy[:, 0] + y[..., None] * self.k_xy[:, 1] + self.phase
        return (damped * np.cos(angle)).sum(axis=-1)


def slow_descriptor(waves: Waves, x: float, y: float, octave: int) -> np.ndarray:
    """One upright descriptor straight from Lowe 2004, section 6: gradients in a Gaussian window into 4 x 4 x 8 bins."""
    step, bin_width = 2**octave, 3 * BLUR  # bin width in pixels of the octave
    # the picture is taken to have a blur of 0.5 already; reading it at pixel corners adds (1/2)^2 per axis
    blur = math.sqrt((BLUR * step) ** 2 - 0.5**2 + 0.5**2)
    reach = math.ceil(2.5 * bin_width)
    i, j = np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1), indexing="ij")
    px, py = x + step * j, y + step * i
    dx = waves.at(px + step, py, blur=blur) - waves.at(px - step, py, blur=blur)
    dy = waves.at(px, py - step, blur=blur) - waves.at(px, py + step, blur=blur)  # upwards
    weight = np.hypot(dx, dy) * np.exp(-((i / bin_width) ** 2 + (j / bin_width) ** 2) / 8)  # window: half of 4 bins
    place = np.stack([i / bin_width + 1.5, j / bin_width + 1.5, np.arctan2(dy, dx) / (math.pi / 4)])
    low = np.floor(place).astype(int)
    histogram = np.zeros((4, 4, 8))
    for corner in np.ndindex(2, 2, 2):
        cell = low + np.array(corner)[:, None, None]
        share = (weight * (1 - np.abs(place - cell)).prod(axis=0)).ravel()
        r, c, o = (axis.ravel() for axis in cell)
        inside = (r >= 0) & (r < 4) & (c >= 0) & (c < 4)
        np.add.at(histogram, (r[inside], c[inside], o[inside] % 8), share[inside])
    clipped = np.minimum(histogram, 0.2 * np.linalg.norm(histogram))
    return np.sqrt(clipped / clipped.sum())


def test_descriptors_are_those_of_the_paper_at_the_exact_patch_centres(sift):
    waves = Waves(seed=3)
    h, w = 352, 360
    y, x = np.meshgrid(np.arange(h) + 0.5, np.arange(w) + 0.5, indexing="ij")
    values = waves.at(x, y)
    low, high = values.min(), values.max()
    picture = torch.from_numpy((values - low) / (high - low)).float().expand(1, 3, h, w)
    got = blocks(sift, picture)[0]
    for row, column in [(21, 22), (22, 22), (22, 23)]:  # far enough from every border
        for size, octave in enumerate(OCTAVES):
            want = torch.from_numpy(slow_descriptor(waves, column * 8 + 4, row * 8 + 4, octave)).float()
            off = torch.from_numpy(slow_descriptor(waves, column * 8 + 4.5, row * 8 + 4.5, octave)).float()
            here, beside = (cosines(got[row, column, size], v).item() for v in (want, off))
            assert here > 0.999, (row, column, octave, here)
            assert here > beside, (row, column, octave)


@pytest.mark.parametrize(
    ("picture_axis", "grid_axis", "bin_axis", "direction"),
    [(-1, 2, 5, lambda o: 4 - o), (-2, 1, 4, lambda o: -o)],
    ids=["left-right", "upside-down"],
)
def test_a_mirrored_picture_gives_the_mirrored_descriptors(sift, picture_axis, grid_axis, bin_axis, direction):
    picture = smooth_noise(0, 208, 256)
    straight = blocks(sift, picture)
    mirrored = blocks(sift, picture.flip(picture_axis)).flip(grid_axis).flip(bin_axis)
    mirrored = mirrored[..., direction(torch.arange(8)) % 8]
    assert cosines(straight, mirrored).min() > 0.999  # a shift of half a pixel gives 0.95 at the smallest size


def test_a_shift_by_patches_moves_descriptors_by_cells(sift):
    picture = smooth_noise(1, 8, 600)[..., :8, :].expand(1, 3, 8, 600)
    picture = torch.cat([picture, picture.flip(-1)] * 2, dim=2)
    whole, cut = blocks(sift, picture), blocks(sift, picture[..., 24:])
    inside = slice(25, -25)  # cells whose largest support, blur included, sees no border
    assert torch.equal(whole[:, :, 3:][:, :, inside], cut[:, :, inside])
    assert not torch.equal(whole[:, :, 2:-1][:, :, inside], cut[:, :, inside])


def test_a_blob_on_a_patch_centre_looks_alike_from_all_sides(sift):
    y, x = torch.meshgrid(torch.arange(264) + 0.5, torch.arange(264) + 0.5, indexing="ij")
    for spread in (3.0, 12.0):
        blob = torch.exp(-((x - 132) ** 2 + (y - 132) ** 2) / (2 * spread**2)).expand(1, 3, 264, 264)
        middle = blocks(sift, blob)[0, 16, 16]  # s r c o
        o = torch.arange(8)
        for other in (
            middle.flip(2)[..., (4 - o) % 8],
            middle.flip(1)[..., -o % 8],
            middle.transpose(1, 2)[..., (6 - o) % 8],  # rows for columns: right becomes down, up becomes left
        ):
            assert cosines(middle, other).min() > 0.9999


@pytest.mark.parametrize("level", [0.0, 0.25, 100.5 / 255, 247 / 255, 1.0])
def test_an_even_picture_gives_zero_vectors(sift, level):
    # on many of these OpenCV itself describes the rounding errors of its blur
    assert not sift(torch.full((1, 3, 72, 104), level)).patches.any()


def test_rounding_to_eight_bits_is_no_contrast_and_one_step_more_is(sift):
    picture = torch.full((1, 3, 64, 64), 100 / 255)
    picture[..., ::2] = 101 / 255
    assert not sift(picture).patches.any()
    picture[..., 32:] = 103 / 255
    assert sift(picture).patches.any()


def test_colours_of_one_luma_have_no_contrast(sift):
    picture = torch.zeros(1, 3, 64, 64)
    picture[:, 0, :, 32:] = 0.587
    picture[:, 1, :, :32] = 0.299
    assert not sift(picture).patches.any()
    assert sift(picture.flip(1)).patches.any()


def test_flat_sizes_are_zero_and_the_others_are_whole(sift):
    picture = torch.full((1, 3, 256, 256), 0.5)
    picture[..., 128:] = 0.7
    lengths = blocks(sift, picture).flatten(-3).norm(dim=-1)[0, 16]  # columns, sizes
    assert torch.all((lengths == 0) | ((lengths - 1).abs() < 1e-5))
    assert [(lengths[:, s] > 0).nonzero().flatten().tolist() for s in range(SIZES)] == [
        list(range(14, 18)),  # 12 px to each side, whole patches
        list(range(10, 22)),  # 48 px
        list(range(4, 28)),  # 96 px
    ]


def test_contrast_is_counted_over_the_support():
    levels = torch.zeros(1, 8, 8 * 30)
    levels[..., 8 * 15] = 2.0
    seen = contrasted(levels)[0]  # n s
    assert [int(seen[:, s].sum()) for s in range(SIZES)] == [5, 13, 25]
    assert not contrasted(levels * 0.99).any()


def test_root_sift_of_a_known_vector():
    vector = torch.zeros(2, 128)
    vector[0, :2] = torch.tensor([9.0, 16.0])
    rooted = root_sift(vector)
    assert rooted[0, :3].tolist() == pytest.approx([0.6, 0.8, 0.0])
    assert not rooted[1].any()


def test_the_picture_goes_on_beyond_its_border(sift):
    stripes = smooth_noise(4, 8, 200)[..., :1, :].expand(1, 3, 240, 200)
    described = blocks(sift, stripes)
    assert cosines(described[:, :1], described[:, 15:16]).min() > 0.9999


def test_borders_and_small_pictures_are_described(sift):
    assert sift(smooth_noise(2, 8, 8)).patches.shape == (1, 1, 384)
    assert torch.isfinite(sift(smooth_noise(2, 8, 40)).patches).all()


def test_the_hash_follows_the_version_of_opencv(sift, monkeypatch):
    import cv2

    assert load(device=CPU).spec == sift.spec
    monkeypatch.setattr(cv2, "__version__", "4.0.0")
    assert load(device=CPU).spec.weights_sha256 != sift.spec.weights_sha256


def test_tokens_go_to_the_device():
    assert load(device=torch.device("meta"))(torch.rand(1, 3, 16, 16)).patches.device.type == "meta"


def test_without_opencv_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match=r"opencv-python-headless.*patchatlas\[opencv\]"):
        load(device=CPU)


def test_refuses_what_does_not_fit(sift):
    with pytest.raises(ShapeError, match=r"sides \(20, 16\) are not multiples of the patch \(8, 8\).*\(24, 16\)"):
        sift(torch.rand(1, 3, 20, 16))
    with pytest.raises(ShapeError, match="3 channels, given 1"):
        sift(torch.rand(1, 1, 16, 16))
