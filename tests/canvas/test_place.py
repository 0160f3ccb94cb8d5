"""Placing and extracting: worked by hand, against two oracles, and what must hold whatever the scan."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from patchatlas.canvas.canvas import Canvas
from patchatlas.canvas.place import extract, place
from patchatlas.canvas.plan import CanvasPlan, plan_canvas
from patchatlas.canvas.taps import reach
from patchatlas.canvas.windows import gaussian, hann, probe_intensity
from patchatlas.errors import ShapeError
from tests.canvas import oracle
from tests.canvas.scans import INTERPOLATIONS, generator, random_positions, random_tiles

pytestmark = pytest.mark.usefixtures("torch_path")

SIZES = [(6,), (5, 7), (3, 4, 5)]


def doubles(rows: list) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


# By hand


def test_half_a_pixel_by_hand():
    canvas = place(doubles([[[1, 3]]]), doubles([[0.5]]))
    assert canvas.plan == CanvasPlan((0,), (3,))
    assert canvas.sum.tolist() == [[0.5, 2, 1.5]]
    assert canvas.weight.tolist() == [0.5, 1, 0.5]
    assert canvas.value().tolist() == [[1, 2, 3]]
    assert canvas.lit_box == ((0,), (3,))


def test_two_tiles_by_hand_x_is_the_column():
    tiles = doubles([[[[4]]], [[[8]]]])
    canvas = place(tiles, doubles([[1.25, 0.5], [2, 1]]))
    assert canvas.plan == CanvasPlan((0, 1), (2, 2))
    assert canvas.sum[0].tolist() == [[1.5, 0.5], [1.5, 8.5]]
    assert canvas.weight.tolist() == [[0.375, 0.125], [0.375, 1.125]]
    torch.testing.assert_close(canvas.value()[0], doubles([[4, 4], [4, 8.5 / 1.125]]))
    assert canvas.counts.tolist() == [[1, 1], [1, 2]]


def test_whole_positions_by_hand_with_a_hole():
    tiles = torch.arange(1.0, 9).reshape(2, 1, 2, 2)
    canvas = place(tiles, doubles([[-2, 5], [1, 6]]), fill=-7.0)
    assert canvas.plan == CanvasPlan((5, -2), (3, 5))
    assert canvas.value()[0].tolist() == [[1, 2, -7, -7, -7], [3, 4, -7, 5, 6], [-7, -7, -7, 7, 8]]
    assert canvas.value(fill=0.5)[0, 0, 2] == 0.5
    assert canvas.coverage.tolist() == [[1, 1, 0, 0, 0], [1, 1, 0, 1, 1], [0, 0, 0, 1, 1]]
    assert canvas.value(fill=math.nan).isnan().sum() == 7


def test_cubic_half_a_pixel_by_hand():
    plan = CanvasPlan((-2,), (6,))
    canvas = place(doubles([[[16]]]), doubles([[0.5]]), interpolation="cubic", plan=plan)
    assert canvas.sum.tolist() == [[0, -1, 9, 9, -1, 0]]
    assert canvas.weight.tolist() == [0, -1 / 16, 9 / 16, 9 / 16, -1 / 16, 0]
    assert canvas.coverage.tolist() == [0, 0, 9 / 16, 9 / 16, 0, 0]
    assert canvas.lit_box == ((0,), (2,))
    assert canvas.value(fill=5.0).tolist() == [[5, 5, 16, 16, 5, 5]]


def test_volumes_by_hand_positions_are_x_y_z():
    canvas = place(doubles([[[[[8]]]]]), doubles([[5, 3.5, 2.25]]))
    assert canvas.plan == CanvasPlan((2, 3, 5), (2, 2, 1))
    assert canvas.sum[0, :, :, 0].tolist() == [[3, 3], [1, 1]]


def test_extract_by_hand():
    ramp = doubles([[[0, 1, 2, 3], [10, 11, 12, 13], [20, 21, 22, 23]]])
    (tile,) = extract(ramp, doubles([[1.25, 0.5]]), (2, 2))
    assert tile[0].tolist() == [[6.25, 7.25], [16.25, 17.25]]
    (moved,) = extract(ramp, doubles([[-98.75, 7.5]]), (2, 2), plan=CanvasPlan((7, -100), (3, 4)))
    torch.testing.assert_close(moved, tile)


def test_windows_and_weights_by_hand():
    tiles = doubles([[[1, 1, 1]], [[5, 5, 5]]])
    canvas = Canvas(CanvasPlan((0,), (4,)), dtype=torch.float64)
    canvas.add(tiles[:1], doubles([[0]]), window=doubles([1, 2, 1]))
    canvas.add(tiles[1:], doubles([[1]]), window=doubles([1, 1, 3]), weights=doubles([2]))
    assert canvas.weight.tolist() == [1, 4, 3, 6]
    assert canvas.value().tolist() == [[1, 3, (1 + 10) / 3, 5]]


def test_weights_without_a_window_by_hand():
    canvas = place(doubles([[[2, 2]], [[5, 5]]]), doubles([[0], [1]]), weights=doubles([1, 2]))
    assert canvas.weight.tolist() == [1, 3, 2]
    assert canvas.value().tolist() == [[2, 4, 5]]


# Against the oracles


def test_the_oracles_agree_with_each_other():
    tiles, positions = random_tiles(1, channels=1), random_positions(1)
    plan = plan_canvas(positions, (5, 7))
    total, weight = oracle.four_taps(tiles[:, 0].numpy(), positions.numpy(), plan)
    by_matrix = oracle.place_by_matrix(tiles, positions, plan, "linear")
    np.testing.assert_allclose(by_matrix[0].numpy(), total, atol=1e-13)
    ones = oracle.place_by_matrix(torch.ones_like(tiles.real), positions, plan, "linear")
    np.testing.assert_allclose(ones[0].numpy(), weight, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128, torch.float32, torch.float64])
def test_linear_is_the_four_taps(dtype):
    tiles, positions = random_tiles(2, channels=1, n=9, dtype=dtype), random_positions(2, n=9)
    canvas = place(tiles, positions)
    total, weight = oracle.four_taps(tiles[:, 0].numpy().astype(np.complex128), positions.numpy(), canvas.plan)
    close = 1e-12 if dtype in (torch.complex128, torch.float64) else 2e-6
    assert np.abs(total).max() > 1
    np.testing.assert_allclose(canvas.sum[0].numpy(), total, atol=close)
    np.testing.assert_allclose(canvas.weight.numpy(), weight, atol=close)
    mean = np.divide(total, weight, where=weight > 0, out=np.zeros_like(total))
    np.testing.assert_allclose(canvas.value()[0].numpy(), mean, atol=20 * close)


def kernel_of_cover(interpolation: str) -> str:
    """The kernel that is positive exactly where a tile covers something."""
    return "nearest" if interpolation == "nearest" else "linear"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128])
def test_every_interpolation_is_its_matrix(size, interpolation, dtype):
    tiles, positions = random_tiles(3, size=size, dtype=dtype), random_positions(3, ndim=len(size))
    weights, window = torch.rand(5, generator=generator(4)).double(), hann(size).double()
    canvas = place(tiles, positions, interpolation=interpolation, window=window, weights=weights)
    scale = weights.reshape(-1, *[1] * (1 + len(size))) * window
    total = oracle.place_by_matrix(tiles * scale, positions, canvas.plan, interpolation)
    weight = oracle.place_by_matrix(scale, positions, canvas.plan, interpolation)[0]
    inside = oracle.place_by_matrix(torch.ones_like(tiles.real), positions, canvas.plan, kernel_of_cover(interpolation))
    close = {"rtol": 0, "atol": 1e-12 if dtype == torch.complex128 else 1e-5}
    torch.testing.assert_close(canvas.sum.to(total.dtype), total, **close)
    torch.testing.assert_close(canvas.weight.double(), weight, **close)
    coverage = torch.where(inside[0] > 1e-12, weight.clamp(min=0), 0)
    torch.testing.assert_close(canvas.coverage.double(), coverage, **close)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_extract_is_the_transposed_matrix(size, interpolation):
    positions = random_positions(5, ndim=len(size))
    plan = plan_canvas(positions, size, interpolation=interpolation)
    values = torch.randn(2, *plan.size, dtype=torch.complex128, generator=generator(5))
    found = extract(values, positions, size, plan=plan, interpolation=interpolation)
    wanted = oracle.extract_by_matrix(values, positions, size, plan, interpolation)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_tiles_that_reach_outside_are_cropped_if_wanted(interpolation):
    tiles, positions = random_tiles(6, n=12), random_positions(6, n=12, spread=12)
    plan = CanvasPlan((-1, 1), (9, 11))
    with pytest.raises(ShapeError, match="of 12 tiles reach outside"):
        place(tiles, positions, interpolation=interpolation, plan=plan)
    canvas = place(tiles, positions, interpolation=interpolation, plan=plan, crop=True)
    wanted = oracle.place_by_matrix(tiles, positions, plan, interpolation)
    torch.testing.assert_close(canvas.sum, wanted, rtol=0, atol=1e-12)
    weight = oracle.place_by_matrix(torch.ones_like(tiles.real), positions, plan, interpolation)[0]
    torch.testing.assert_close(canvas.weight, weight, rtol=0, atol=1e-12)
    with pytest.raises(ShapeError, match="reach outside"):
        extract(wanted, positions, (5, 7), plan=plan, interpolation=interpolation)
    found = extract(wanted, positions, (5, 7), plan=plan, interpolation=interpolation, crop=True)
    read = oracle.extract_by_matrix(wanted, positions, (5, 7), plan, interpolation)
    torch.testing.assert_close(found, read, rtol=0, atol=1e-12)


def test_tiles_wholly_outside_leave_nothing():
    canvas = place(torch.ones(2, 1, 3, 3), doubles([[-50, 0], [0, 50.5]]), plan=CanvasPlan((0, 0), (4, 4)), crop=True)
    assert not canvas.sum.any()
    assert not canvas.coverage.any()
    assert not canvas.counts.any()
    assert canvas.lit_box is None


# What must hold whatever the scan

WINDOWS = {
    "uniform": lambda _: None,
    "hann": hann,
    "gaussian": gaussian,
    "probe": lambda size: probe_intensity(torch.randn(*size, dtype=torch.complex64, generator=generator(0))),
    "user": lambda size: torch.rand(*size, generator=generator(1)) + 0.1,
}


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_partition_of_unity(window, interpolation, weighted):
    """Tiles that all show a constant stitch to that constant wherever there is a value, to 1e-6 in float32."""
    positions = random_positions(7, n=40, spread=20)
    tiles = torch.tensor([1.0, -3.0])[:, None, None].expand(40, 2, 9, 8)
    weights = torch.rand(40, generator=generator(7)) + 0.01 if weighted else None
    canvas = place(tiles, positions, interpolation=interpolation, window=WINDOWS[window]((9, 8)), weights=weights)
    values = canvas.value(fill=math.nan)
    assert torch.equal(values[0].isfinite(), canvas.covered)
    assert canvas.covered.float().mean() > 0.3
    shown = values[:, canvas.covered]
    assert (shown[0] - 1).abs().max() < 1e-6
    assert (shown[1] + 3).abs().max() < 3e-6


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("window", [None, hann((6, 5))])
def test_extract_then_place_is_the_identity_at_whole_positions(interpolation, window):
    truth = torch.randn(2, 14, 17, dtype=torch.complex64, generator=generator(8))
    positions = doubles([[x, y] for x in (0, 3, 7, 12) for y in (0, 4, 8)])
    tiles = extract(truth, positions, (6, 5), interpolation=interpolation)
    again = place(tiles, positions, interpolation=interpolation, window=window).value()
    assert again.shape == truth.shape
    if window is None:
        # Sums of equal numbers divided by their count: exact up to three of them, else within one rounding.
        torch.testing.assert_close(again, truth, rtol=2e-7, atol=0)
        one = place(tiles[:1], positions[:1], interpolation=interpolation).value()
        assert torch.equal(one, truth[:, :6, :5])
    else:
        torch.testing.assert_close(again, truth, rtol=0, atol=1e-6)


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_an_affine_object_comes_back_from_sub_pixel_positions(interpolation):
    rows, columns = torch.meshgrid(torch.arange(40).double(), torch.arange(50).double(), indexing="ij")
    truth = (2 - 0.3 * rows + 0.7 * columns)[None]
    positions = torch.rand(20, 2, dtype=torch.float64, generator=generator(9)) * doubles([36.0, 26.0]) + 2
    tiles = extract(truth, positions, (10, 9), interpolation=interpolation)
    at = positions[:, :, None, None]
    own = 2 - 0.3 * (at[:, 1] + torch.arange(10.0)[:, None]) + 0.7 * (at[:, 0] + torch.arange(9.0))
    torch.testing.assert_close(tiles[:, 0], own, rtol=0, atol=1e-11)
    for tile, position in zip(tiles, positions, strict=True):
        canvas = place(tile[None], position[None], interpolation=interpolation)
        (top, left), (bottom, right) = canvas.plan.origin, canvas.plan.end
        errors = (canvas.value() - truth[:, top:bottom, left:right]).abs()[0]
        # At its rim a tile has no neighbour to lean on, and a slope is pulled towards it.
        rim = 2 * reach(interpolation) + 1
        assert errors[rim:-rim, rim:-rim].max() < 1e-11
        assert errors.max() < 1


def waves(highest: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """A random sum of 40 waves up to `highest` cycles a pixel, of size 1 or so, drawn from a corner (x, y) on."""
    frequencies = (torch.rand(40, 2, dtype=torch.float64, generator=generator(10)) * 2 - 1) * highest
    heights = torch.randn(40, dtype=torch.complex128, generator=generator(11)) / math.sqrt(40)

    def draw(corner: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        x = torch.exp(2j * math.pi * (corner[0] + torch.arange(size[1])) * frequencies[:, 0, None])
        y = torch.exp(2j * math.pi * (corner[1] + torch.arange(size[0])) * frequencies[:, 1, None])
        return torch.einsum("k,ky,kx->yx", heights, y, x)

    return draw


@pytest.mark.parametrize("highest", [0.1, 0.2, 0.35])
def test_fourier_extracts_what_is_there(highest):
    """Tiles read between the pixels of a band-limited object are the object at these places."""
    draw = waves(highest)
    truth = draw(torch.zeros(2, dtype=torch.float64), (120, 130))[None]
    margin = reach("fourier")
    room = doubles([130 - 24 - 2 * margin - 1, 120 - 32 - 2 * margin - 1])
    positions = torch.rand(20, 2, dtype=torch.float64, generator=generator(12)) * room + margin
    tiles = extract(truth, positions, (32, 24), interpolation="fourier")
    wanted = torch.stack([draw(corner, (32, 24)) for corner in positions])
    assert (tiles[:, 0] - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize(("side", "highest"), [(32, 0.2), (48, 0.25), (64, 0.1), (64, 0.3), (96, 0.33)])
def test_fourier_extract_then_place_is_the_identity(side, highest, dtype):
    """From sub-pixel positions, to 1e-5 of an object of size 1, at every pixel that has a value."""
    draw = waves(highest)
    truth = draw(torch.zeros(2, dtype=torch.float64), (3 * side + 10, 3 * side + 20))[None].to(dtype)
    room = doubles([2 * side - 12, 2 * side - 22])
    positions = torch.rand(60, 2, dtype=torch.float64, generator=generator(13)) * room + reach("fourier")
    tiles = extract(truth, positions, (side, side), interpolation="fourier")
    canvas = place(tiles, positions, interpolation="fourier", window=hann((side, side), power=3))
    (top, left), (bottom, right) = canvas.plan.origin, canvas.plan.end
    errors = (canvas.value() - truth[:, top:bottom, left:right]).abs()[0]
    assert errors[canvas.covered].max() < 1e-5
    assert canvas.covered.double().mean() > 0.4


def test_a_fourier_tile_between_pixels_has_values_in_its_middle():
    tiles, window = torch.ones(1, 1, 64, 64, dtype=torch.float64), hann((64, 64), power=3)
    between = place(tiles, doubles([[0.5, 0.5]]), interpolation="fourier", window=window)
    assert between.covered.double().mean() == pytest.approx(0.31, abs=0.02)
    assert between.covered[32, 32]
    assert not between.covered[:8].any()
    # Copied, it leaves no trace beyond itself, and keeps all of its pixels.
    assert place(tiles, doubles([[3, 4]]), interpolation="fourier", window=window).covered.all()
